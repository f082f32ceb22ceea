"""Activations, networks, targets, and where training starts."""
