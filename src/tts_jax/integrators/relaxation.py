"""The exact relaxation of a linear equation under a forcing that is a polynomial.

The solution of dy/ds = -z y + sum_j f_j l_j(s) on a step [0, 1], with the Lagrange polynomials of
the Lobatto nodes, is y(c) = e^(-z c) y(0) + sum_j W_j(c; z) f_j, for any z of at least 0, with

    W_j(c; z) = integral from 0 to c of e^(-z (c - s)) l_j(s) ds.
"""

import jax.numpy as jnp
import numpy as np

from .._types import Array, Float
from ..numerics.products import product
from .lobatto import COEFFICIENTS, lagrange_at

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_LARGE = 6.0
"""The z c up to which the Gauss rule is exact to rounding, and from which the recurrence is."""


def relaxation_weights(rates: Float[Array, " p"], ends: Float[Array, " k"]) -> Array:
    """Return W (k, 5, p) at the ends c, for rates z of at least 0, each exact to rounding."""
    decay = jnp.exp(-rates[None, None, :] * (ends[:, None] * (1 - _NODES)[None, :])[..., None])
    polynomials = lagrange_at(ends[:, None] * _NODES[None, :])
    by_rule = (ends[:, None] * _WEIGHTS[None, :])[..., None] * polynomials
    small = product(jnp.swapaxes(by_rule, 1, 2), decay)
    # The moments of 1, s, s^2, ... by integration by parts, which loses no digits where z is large.
    z, c = jnp.maximum(rates, 1.0)[None, :], ends[:, None]
    moments = [-jnp.expm1(-z * c) / z]
    for power in range(1, COEFFICIENTS.shape[1]):
        moments.append((c**power - power * moments[-1]) / z)
    large = product(jnp.asarray(COEFFICIENTS)[None], jnp.stack(moments, axis=1))
    return jnp.where((rates[None, :] * c < _LARGE)[:, None, :], small, large)
