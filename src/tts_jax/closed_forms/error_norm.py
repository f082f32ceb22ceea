"""The norm of the error of a solver's step, of weights and positions, for the closed forms."""

import jax
import jax.numpy as jnp

from .._types import Array, Scalar

_LIGHTER = 20.0
"""By how much the mass of a weight counts less than that of a position. Found by measurement, in
benchmarks/masses.py; between 5 and 50 it makes little difference."""


def position_error(
    eta: Scalar, epsilon: Scalar, weights: Scalar, error: Array, rtol: Scalar, atol: Scalar
) -> Scalar:
    """Return the error norm of a step, from the norm of its error of weights and its errors of u.

    **Arguments:** `weights`: the norm of the error of the weights alone, against the largest
    weight; `error` (m,): the errors of the positions, which count in units of eta, since that is
    the distance over which the risk changes.

    Weights and positions count by how long their errors last, which is by their masses: epsilon of
    a weight, and eta^2 of a position in units of eta.
    """
    by_eta = largest(error) / eta
    # At least a tenth: while the weights move fast, the risk shows every error of theirs. At most
    # as at epsilon = 1: above that the inner layer is the fast one.
    ratio = jnp.maximum(jnp.minimum(epsilon, 1.0) / (_LIGHTER * eta**2), 0.1)
    # Without a mass, weights follow from the positions; their errors are only rounding errors,
    # which are large where neurons meet.
    weights = jnp.where(epsilon > 0, ratio * weights, 0.0)
    # Where weights are slow, ratio > 1: they count by sqrt(ratio), and positions by 1/sqrt(ratio).
    norm = jnp.maximum(weights, by_eta / (atol + rtol)) * jax.lax.rsqrt(jnp.maximum(ratio, 1.0))
    # Whatever the tolerance, a position errs by at most a tenth of eta: a step must not carry a
    # neuron past kinks of the risk, which lie within a transition width.
    return jnp.maximum(norm, 10.0 * by_eta)


def largest(v: Array) -> Scalar:
    """Return the largest absolute value."""
    return jnp.max(jnp.abs(v))
