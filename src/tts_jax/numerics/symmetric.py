"""Linear solves that XLA folds into the loop around them, which a call of LAPACK prevents."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Float, Scalar, put
from ..batching import devices as _device

_UNROLL = 2
"""Pairs of pivots per turn of the loop. An even number: after an odd one XLA copies the matrix."""

_WRITTEN_OUT = 12
"""Up to so many pairs of pivots the loop is written out altogether, where compiling allows it."""

_ROWS = 4
"""Rows that a product adds at once."""

_LARGE = 128
"""From this size on a call of LAPACK no longer weighs against the work in it."""


def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse by Gauss-Jordan elimination, without pivoting.

    For symmetric matrices with ones on the diagonal whose leading minors are far from zero: those
    of a step along a gradient, which resolves the directions in which the risk is concave.

    Two pivots at a time: the matrix goes through the registers half as often.
    """
    size = matrix.shape[0]
    even = size + size % 2
    units = jnp.asarray(np.eye(even), matrix.dtype)
    if even > size:
        matrix = put(jnp.pad(matrix, (0, 1)), size, units[size])

    def eliminate(k: Array, s: Array) -> Array:
        def strips(s: Array) -> tuple[Array, Array]:
            rows = jax.lax.dynamic_slice(s, (2 * k, 0), (2, s.shape[0]))
            columns = jax.lax.dynamic_slice(s, (0, 2 * k), (s.shape[0], 2))
            return rows, columns

        (rows, columns), (unit_rows, unit_columns) = strips(s), strips(units)
        block = jax.lax.dynamic_slice(s, (2 * k, 2 * k), (2, 2))
        over = 1.0 / (block[0, 0] * block[1, 1] - block[0, 1] * block[1, 0])
        first, second = rows + unit_rows
        left = columns - unit_columns
        first, second = (
            over * block[1, 1] * first - over * block[0, 1] * second,
            over * block[0, 0] * second - over * block[1, 0] * first,
        )
        return s - left[:, :1] * first[None, :] - left[:, 1:] * second[None, :]

    unroll = even // 2 if even // 2 <= _WRITTEN_OUT else _UNROLL
    inverted = jax.lax.fori_loop(0, even // 2, eliminate, matrix, unroll=unroll)
    return inverted[:size, :size]


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


class LayeredMatrix(NamedTuple):
    """A symmetric matrix for one number, n more, and m others, by its blocks on and above the
    diagonal."""

    corner: Scalar
    edge_n: Float[Array, " n"]
    edge_m: Float[Array, " m"]
    block_n: Float[Array, "n n"]
    across: Float[Array, "n m"]
    block_m: Float[Array, "m m"]

    def __matmul__(self, x: tuple[Scalar, Array, Array]) -> tuple[Scalar, Array, Array]:
        one, n, m = x
        return (
            self.corner * one + self.edge_n @ n + self.edge_m @ m,
            self.edge_n * one + self.block_n @ n + self.across @ m,
            self.edge_m * one + n @ self.across + self.block_m @ m,
        )

    def bilinear(
        self, lefts: tuple[Array, Array, Array], rights: tuple[Array, Array, Array]
    ) -> Scalar:
        """sum_k lefts_k^T matrix rights_k, of rows (k,), (k, n) and (k, m)."""
        (one, n, m), (other, right_n, right_m) = lefts, rights
        return (
            self.corner * (one @ other)
            + self.edge_n @ (one @ right_n + other @ n)
            + self.edge_m @ (one @ right_m + other @ m)
            + jnp.sum(self.block_n * _product(n, right_n))
            + jnp.sum(self.across * (_product(n, right_m) + _product(right_n, m)))
            + jnp.sum(self.block_m * _product(m, right_m))
        )


def layered_solver(
    matrix: LayeredMatrix,
) -> Callable[[tuple[Scalar, Array, Array]], tuple[Scalar, Array, Array]]:
    """`symmetric_solver` block by block, in this order, which is half the work.

    The function takes and returns (), (n,), (m,).
    """
    fixed = jax.lax.stop_gradient(matrix)
    # What is left of the other blocks once the number is eliminated, and once the n are.
    over_n, over_m = fixed.edge_n / fixed.corner, fixed.edge_m / fixed.corner
    block_n = fixed.block_n - fixed.edge_n[:, None] * over_n[None, :]
    across = fixed.across - fixed.edge_n[:, None] * over_m[None, :]
    block_m = fixed.block_m - fixed.edge_m[:, None] * over_m[None, :]
    scale_n, inverse_n = _scaled_inverse(block_n)
    across = scale_n[:, None] * across
    solved = _product(inverse_n, across)
    scale_m, inverse_m = _scaled_inverse(block_m - _product(across, solved))
    # Scaled back once, and not in every solve.
    inverse_n = scale_n[:, None] * inverse_n * scale_n[None, :]
    inverse_m = scale_m[:, None] * inverse_m * scale_m[None, :]
    solved = scale_n[:, None] * solved
    turned = solved.T

    def solve_fixed(_: Any, right: tuple[Scalar, Array, Array]) -> tuple[Scalar, Array, Array]:
        one, n, m = right
        n = n - over_n * one
        m = inverse_m @ (m - over_m * one - turned @ n)
        n = inverse_n @ n - solved @ m
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
    """left.T @ right, on a CPU some rows of both at a time: as a product XLA may not fold it."""
    if not _device.on_cpu():
        return left.T @ right
    more = -left.shape[0] % _ROWS
    left, right = (jnp.pad(part, ((0, more), (0, 0))) for part in (left, right))

    def add(k: Array, total: Array) -> Array:
        columns = jax.lax.dynamic_slice_in_dim(left, _ROWS * k, _ROWS)
        rows = jax.lax.dynamic_slice_in_dim(right, _ROWS * k, _ROWS)
        for column, row in zip(columns, rows, strict=True):
            total = total + column[:, None] * row[None, :]
        return total

    none = jnp.zeros((left.shape[1], right.shape[1]), left.dtype)
    return jax.lax.fori_loop(0, left.shape[0] // _ROWS, add, none, unroll=_UNROLL)
