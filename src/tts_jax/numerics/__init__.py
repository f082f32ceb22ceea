"""Linear solves and quadrature."""
