"""Linear solves that XLA folds into the loop around them, which a call of LAPACK prevents."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import _device
from .._types import Array, Float, Scalar

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
        return s - (column - unit_column) * ((row + unit_row) / pivot)

    def eliminate_two(k: Array, s: Array) -> Array:
        k = 2 * k
        rows = jax.lax.dynamic_slice(s, (k, 0), (2, size))
        rows = rows + jax.lax.dynamic_slice(units, (k, 0), (2, size))
        columns = jax.lax.dynamic_slice(s, (0, k), (size, 2))
        columns = columns - jax.lax.dynamic_slice(units, (0, k), (size, 2))
        pivots = jax.lax.dynamic_slice(s, (k, k), (2, 2))
        over = 1.0 / (pivots[0, 0] * pivots[1, 1] - pivots[0, 1] * pivots[1, 0])
        first = over * (pivots[1, 1] * rows[0] - pivots[0, 1] * rows[1])
        second = over * (pivots[0, 0] * rows[1] - pivots[1, 0] * rows[0])
        return s - (columns[:, :1] * first[None, :] + columns[:, 1:] * second[None, :])

    if _device.on_cpu() or size == 1:
        return jax.lax.fori_loop(0, size, eliminate, matrix, unroll=_UNROLL)
    # Elsewhere what takes time is to go through all matrices of a batch once more.
    matrix = jax.lax.fori_loop(0, size // 2, eliminate_two, matrix, unroll=_UNROLL // 2)
    return eliminate(jnp.asarray(size - 1), matrix) if size % 2 else matrix


def symmetric_solver(matrix: Float[Array, "n n"]) -> Callable[[Array], Array]:
    """A function r (n,) -> matrix^-1 r for a symmetric matrix, inverted once.

    Its derivatives are solves with the same inverse.
    """
    scale, inverted = _scaled_inverse(jax.lax.stop_gradient(matrix))

    def solve(right: Array) -> Array:
        return jax.lax.custom_linear_solve(
            lambda x: matrix @ x,
            right,
            lambda _, r: scale * (inverted @ (scale * r)),
            symmetric=True,
        )

    return solve


class Layered(NamedTuple):
    """A symmetric matrix for one number, n more, and m others, by its blocks on and above the
    diagonal."""

    corner: Scalar
    edge_n: Float[Array, " n"]
    edge_m: Float[Array, " m"]
    block_n: Float[Array, "n n"]
    between: Float[Array, "n m"]
    block_m: Float[Array, "m m"]

    def __matmul__(self, x: tuple[Scalar, Array, Array]) -> tuple[Scalar, Array, Array]:
        one, n, m = x
        return (
            self.corner * one + self.edge_n @ n + self.edge_m @ m,
            self.edge_n * one + self.block_n @ n + self.between @ m,
            self.edge_m * one + n @ self.between + self.block_m @ m,
        )


def layered_solver(
    matrix: Layered,
) -> Callable[[tuple[Scalar, Array, Array]], tuple[Scalar, Array, Array]]:
    """`symmetric_solver` block by block, in this order, which is half the work.

    The function takes and returns (), (n,), (m,).
    """
    fixed = jax.lax.stop_gradient(matrix)
    # What is left of the other blocks once the number is eliminated, and once the n are.
    over_n, over_m = fixed.edge_n / fixed.corner, fixed.edge_m / fixed.corner
    block_n = fixed.block_n - fixed.edge_n[:, None] * over_n[None, :]
    between = fixed.between - fixed.edge_n[:, None] * over_m[None, :]
    block_m = fixed.block_m - fixed.edge_m[:, None] * over_m[None, :]
    scale_n, inverse_n = _scaled_inverse(block_n)
    between = scale_n[:, None] * between
    solved = _product(inverse_n, between)
    scale_m, inverse_m = _scaled_inverse(block_m - _product(between, solved))

    def solve_fixed(_: Any, right: tuple[Scalar, Array, Array]) -> tuple[Scalar, Array, Array]:
        one, n, m = right
        n = scale_n * (n - over_n * one)
        m = scale_m * (m - over_m * one - n @ solved)
        m = scale_m * (inverse_m @ m)
        n = scale_n * (inverse_n @ n - solved @ m)
        return one / fixed.corner - over_n @ n - over_m @ m, n, m

    def solve(right: tuple[Scalar, Array, Array]) -> tuple[Scalar, Array, Array]:
        return jax.lax.custom_linear_solve(lambda x: matrix @ x, right, solve_fixed, symmetric=True)

    return solve


def _scaled_inverse(matrix: Array) -> tuple[Array, Array]:
    """s and M so that the inverse is s_i M_ij s_j."""
    # The elimination adds ones to the rows: it loses what is far from one.
    diagonal = jax.lax.slice(matrix.ravel(), (0,), (matrix.size,), (matrix.shape[0] + 1,))
    scale = jax.lax.rsqrt(jnp.abs(diagonal))
    scaled = scale[:, None] * matrix * scale[None, :]
    return scale, inverse(scaled) if matrix.shape[0] < _LARGE else jnp.linalg.inv(scaled)


def _product(left: Float[Array, "n p"], right: Float[Array, "n q"]) -> Float[Array, "p q"]:
    """left.T @ right, on a CPU a row of both at a time: as a product XLA may not fold it."""
    if not _device.on_cpu():
        return left.T @ right

    def add(k: Array, total: Array) -> Array:
        column = jax.lax.dynamic_index_in_dim(left, k, 0, False)
        row = jax.lax.dynamic_index_in_dim(right, k, 0, False)
        return total + column[:, None] * row[None, :]

    none = jnp.zeros((left.shape[1], right.shape[1]), left.dtype)
    return jax.lax.fori_loop(0, left.shape[0], add, none, unroll=_UNROLL)
