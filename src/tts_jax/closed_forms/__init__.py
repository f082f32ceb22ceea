"""Closed forms: exact risks of a network against a target, each with its ODE system."""
