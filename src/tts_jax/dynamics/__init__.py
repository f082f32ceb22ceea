"""The dynamics, which are the ways for parameters to move in slow time: a file for each flow."""
