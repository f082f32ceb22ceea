"""What is known exactly about a network against a target, each with its ODE system."""
