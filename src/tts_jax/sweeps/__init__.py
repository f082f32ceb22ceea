"""Grids of runs as one labelled data set."""
