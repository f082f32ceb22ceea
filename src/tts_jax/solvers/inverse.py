"""Linear solves that XLA folds into the loop around them, which a call of LAPACK prevents."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._types import Array, Float

_UNROLL = 4
"""Pivots per turn of the loop."""

_LARGE = 128
"""From this size on a call of LAPACK no longer weighs against the work in it."""


def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse by Gauss-Jordan elimination, without pivoting.

    For symmetric matrices with ones on the diagonal whose leading minors are far from zero: those
    of a step along a gradient, which resolves the directions in which the risk is concave.
    """
    size = matrix.shape[0]
    units = jnp.eye(size, dtype=matrix.dtype)

    def eliminate(k: Array, s: Array) -> Array:
        row = jax.lax.dynamic_slice(s, (k, 0), (1, size))
        column = jax.lax.dynamic_slice(s, (0, k), (size, 1))
        pivot = jax.lax.dynamic_slice(s, (k, k), (1, 1))
        unit_row = jax.lax.dynamic_slice(units, (k, 0), (1, size))
        unit_column = jax.lax.dynamic_slice(units, (0, k), (size, 1))
        return s - ((column - unit_column) / pivot) * (row + unit_row)

    return jax.lax.fori_loop(0, size, eliminate, matrix, unroll=_UNROLL)


def symmetric_solver(matrix: Float[Array, "n n"]) -> Callable[[Array], Array]:
    """A function r (n,) -> matrix^-1 r for a symmetric matrix, inverted once.

    Its derivatives are solves with the same inverse.
    """
    fixed = jax.lax.stop_gradient(matrix)
    # The elimination adds ones to the rows: it loses what is far from one.
    diagonal = jax.lax.slice(fixed.ravel(), (0,), (fixed.size,), (fixed.shape[0] + 1,))
    scale = jax.lax.rsqrt(jnp.abs(diagonal))
    scaled = scale[:, None] * fixed * scale[None, :]
    inverted = inverse(scaled) if fixed.shape[0] < _LARGE else jnp.linalg.inv(scaled)

    def solve(right: Array) -> Array:
        return jax.lax.custom_linear_solve(
            lambda x: matrix @ x,
            right,
            lambda _, r: scale * (inverted @ (scale * r)),
            symmetric=True,
        )

    return solve
