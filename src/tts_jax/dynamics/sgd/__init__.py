"""Stochastic gradient descent with two step sizes."""
