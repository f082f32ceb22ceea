"""The Rosenbrock method of the package: its step, its loop, its derivatives."""
