"""The Rosenbrock method of the package: its step, its loop and its derivatives."""
