"""Linear solves with symmetric banded matrices, in loops that XLA can fold."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._types import Array, Float, varying_as

_UNROLL = 2


def banded_solver(rows: Float[Array, "n b+1"]) -> Callable[[Array], Array]:
    """Return the function r (n,) -> matrix^-1 r of a symmetric matrix, `rows[i, o]` at (i, i + o).

    By L D L^T without pivoting, for the matrices that `inverse` is for, in O(n b^2) once and O(n b)
    for every r. Entries beyond the last column are not looked at. Its derivatives are solves with
    the same factors.
    """
    fixed, inverse_pivots = _factor(jax.lax.stop_gradient(rows))

    def solve(right: Array) -> Array:
        return jax.lax.custom_linear_solve(
            lambda x: _product(rows, x),
            right,
            lambda _, r: _solve(fixed, inverse_pivots, r),
            symmetric=True,
        )

    return solve


def _factor(rows: Array) -> tuple[Array, Array]:
    """Return the rows of D L^T, and 1 / D."""
    size = rows.shape[1]
    inside = jnp.arange(size)[None, :] < rows.shape[0] - jnp.arange(rows.shape[0])[:, None]
    rows = jnp.where(inside, rows, 0.0)

    def eliminate(taken: Array, row: Array) -> tuple[Array, tuple[Array, Array]]:
        # taken (b+1, b+1): what the rows before take off the matrix from here on.
        left = row - taken[0]
        over = 1.0 / left[0]
        more = taken + left[:, None] * (over * left)[None, :]
        return jnp.pad(more[1:, 1:], ((0, 1), (0, 1))), (left, over)

    taken = varying_as(rows, jnp.zeros((size, size), rows.dtype))
    return jax.lax.scan(eliminate, taken, rows, unroll=_UNROLL)[1]


def _solve(rows: Array, inverse_pivots: Array, right: Array) -> Array:
    def forward(taken: Array, at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        row, over, value = at
        left = over * (value - taken[0])
        return jnp.pad((taken + row * left)[1:], (0, 1)), left

    def backward(later: Array, at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        row, over, value = at
        left = value - over * jnp.sum(row[1:] * later)
        return jnp.concatenate([left[None], later])[: later.size], left

    none = varying_as((rows, right), jnp.zeros(rows.shape[1], rows.dtype))
    at = (rows, inverse_pivots)
    _, middle = jax.lax.scan(forward, none, (*at, right), unroll=_UNROLL)
    _, out = jax.lax.scan(backward, none[1:], (*at, middle), reverse=True, unroll=_UNROLL)
    return out


def _product(rows: Array, x: Array) -> Array:
    """Return the product of the matrix and x."""
    size, width = rows.shape[0], rows.shape[1] - 1
    far = jnp.pad(x, (width, width))

    def add(offset: Array, total: Array) -> Array:
        entries = jax.lax.dynamic_index_in_dim(rows, offset, 1, False)
        ahead = jax.lax.dynamic_slice_in_dim(far, width + offset, size)
        behind = jax.lax.dynamic_slice_in_dim(
            jnp.pad(entries * x, (width, 0)), width - offset, size
        )
        return total + entries * ahead + behind

    return jax.lax.fori_loop(1, width + 1, add, rows[:, 0] * x)
