"""Composite Gauss-Legendre quadrature on [0, 1], cut where the integrand has its kinks.

Between consecutive cuts the integrand of the risk is a polynomial, so a rule of high enough
order is exact, and so is its derivative by autodiff: the nodes move with the cuts, and the sum is
the integral as a function of them.
"""

import functools

import jax.numpy as jnp
import numpy as np

from .._types import Array, Float

SMOOTH_POINTS = 10
"""Points per cell where an integrand is not polynomial."""


@functools.cache
def gauss_legendre(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights (points,) of the Gauss-Legendre rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return 0.5 * (nodes + 1.0), 0.5 * weights


def points_per_cell(*degrees: int | None) -> int:
    """Return how many points integrate the square of a polynomial of the largest degree exactly.

    A Gauss-Legendre rule of n points is exact up to degree 2 n - 1. If one of the degrees is None,
    the integrand is no polynomial: `SMOOTH_POINTS`.
    """
    if any(degree is None for degree in degrees):
        return SMOOTH_POINTS
    return max(degree for degree in degrees if degree is not None) + 1


def cell_rule(
    cuts: Float[Array, " k"], points: int
) -> tuple[Float[Array, "k+1 q"], Float[Array, "k+1 q"], Float[Array, " k+1"]]:
    """Return nodes, weights and lower ends of the cells into which `cuts` divide [0, 1].

    Cuts may come in any order, coincide, and lie outside [0, 1]. Cells of width zero are kept, so
    that shapes do not depend on values; of cuts that coincide, the one that is first in `cuts` ends
    the lower cell.
    """
    ends = jnp.sort(jnp.clip(cuts, 0.0, 1.0), stable=True)
    zero, one = jnp.zeros(1, ends.dtype), jnp.ones(1, ends.dtype)
    lower, upper = jnp.concatenate([zero, ends]), jnp.concatenate([ends, one])
    nodes, weights = (jnp.asarray(v, ends.dtype)[None, :] for v in gauss_legendre(points))
    width = (upper - lower)[:, None]
    return lower[:, None] + width * nodes, width * weights, lower
