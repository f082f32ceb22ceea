"""The ways for parameters to move in slow time, a file for each flow."""
