"""The size of an error of a step, of weights and of positions, against what is allowed."""

import jax
import jax.numpy as jnp

from .._types import Array, Scalar

_LIGHTER = 20.0
"""How much less the mass of a weight counts: see benchmarks/masses.py. Between 5 and 50 it makes
little difference."""


def position_error(
    eta: Scalar, epsilon: Scalar, weights: Scalar, error: Array, rtol: Scalar, atol: Scalar
) -> Scalar:
    """The size of an error: of weights, which count against the largest, and of positions (m,).

    A position counts against eta: that is what moves the risk. Of the two, each counts by how long
    its errors last, which is by its mass: epsilon of a weight, eta^2 of a position in units of eta.
    """
    off = largest(error) / eta
    # Not by less than a tenth: the risk shows every error of a weight while they move fast. Nor by
    # more than at epsilon = 1, above which the inner layer is the fast one.
    ratio = jnp.maximum(jnp.minimum(epsilon, 1.0) / (_LIGHTER * eta**2), 0.1)
    # Without a mass weights only follow, and are rounded off where neurons meet.
    weights = jnp.where(epsilon > 0, ratio * weights, 0.0)
    # Where weights are slow they count more and positions less, each by the square root of it.
    size = jnp.maximum(weights, off / (atol + rtol)) * jax.lax.rsqrt(jnp.maximum(ratio, 1.0))
    # But at any tolerance a step must not carry neurons past what lies within a transition.
    return jnp.maximum(size, 10.0 * off)


def largest(v: Array) -> Scalar:
    return jnp.max(jnp.abs(v))
