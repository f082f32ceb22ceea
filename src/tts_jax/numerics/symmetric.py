"""Solves with symmetric matrices, without LAPACK.

XLA on a CPU compiles these into one kernel with the loop around them. It cannot with a call of
LAPACK.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Float, Scalar, put, varying_as
from ..batching import devices as _device

_UNROLL = 2
"""Pairs of pivots per turn of the loop. An even number: after an odd one XLA copies the matrix."""

_WRITTEN_OUT = 12
"""Up to so many pairs of pivots the loop is unrolled in full; with more, compiling takes long."""

_ROWS = 4
"""Rows that a product adds in one turn of its loop."""

_LARGE = 128
"""The size from which on LAPACK is called: there its arithmetic takes far longer than the call."""


def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Return the inverse of a symmetric matrix by Gauss-Jordan elimination, without pivoting.

    The matrix must have ones on its diagonal and leading minors far from zero. The matrices of a
    solver's step along a gradient have: the step is short enough to resolve the directions in which
    the risk is concave. Two pivots are eliminated at a time, so that the matrix is read and written
    half as often.
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
    """Return the function r (n,) -> matrix^-1 r for a symmetric matrix, which is inverted once.

    The derivatives of the function are solves with this inverse too.
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
    """A symmetric matrix of order 1 + n + m, by its blocks on and above the diagonal."""

    block_00: Scalar
    block_0n: Float[Array, " n"]
    block_0m: Float[Array, " m"]
    block_nn: Float[Array, "n n"]
    block_nm: Float[Array, "n m"]
    block_mm: Float[Array, "m m"]

    def __matmul__(self, x: tuple[Scalar, Array, Array]) -> tuple[Scalar, Array, Array]:
        x_0, x_n, x_m = x
        return (
            self.block_00 * x_0 + self.block_0n @ x_n + self.block_0m @ x_m,
            self.block_0n * x_0 + self.block_nn @ x_n + self.block_nm @ x_m,
            self.block_0m * x_0 + x_n @ self.block_nm + self.block_mm @ x_m,
        )

    def bilinear(
        self, lefts: tuple[Array, Array, Array], rights: tuple[Array, Array, Array]
    ) -> Scalar:
        """Return sum_k lefts_k^T matrix rights_k, for vectors as rows (k,), (k, n) and (k, m)."""
        (left_0, left_n, left_m), (right_0, right_n, right_m) = lefts, rights
        return (
            self.block_00 * (left_0 @ right_0)
            + self.block_0n @ (left_0 @ right_n + right_0 @ left_n)
            + self.block_0m @ (left_0 @ right_m + right_0 @ left_m)
            + jnp.sum(self.block_nn * _product(left_n, right_n))
            + jnp.sum(self.block_nm * (_product(left_n, right_m) + _product(right_n, left_m)))
            + jnp.sum(self.block_mm * _product(left_m, right_m))
        )


def layered_solver(
    matrix: LayeredMatrix,
) -> Callable[[tuple[Scalar, Array, Array]], tuple[Scalar, Array, Array]]:
    """Return the function r -> matrix^-1 r, for r as (), (n,), (m,), by elimination of blocks.

    Block by block, in the order 0, n, m, is half the work of `symmetric_solver`.
    """
    fixed = jax.lax.stop_gradient(matrix)
    # The Schur complements: the blocks after the elimination of 0, and then of n.
    over_n, over_m = fixed.block_0n / fixed.block_00, fixed.block_0m / fixed.block_00
    block_nn = fixed.block_nn - fixed.block_0n[:, None] * over_n[None, :]
    block_nm = fixed.block_nm - fixed.block_0n[:, None] * over_m[None, :]
    block_mm = fixed.block_mm - fixed.block_0m[:, None] * over_m[None, :]
    scale_n, inverse_n = _scaled_inverse(block_nn)
    block_nm = scale_n[:, None] * block_nm
    solved = _product(inverse_n, block_nm)
    scale_m, inverse_m = _scaled_inverse(block_mm - _product(block_nm, solved))
    # The inverses are scaled back here, once, and not in every solve.
    inverse_n = scale_n[:, None] * inverse_n * scale_n[None, :]
    inverse_m = scale_m[:, None] * inverse_m * scale_m[None, :]
    solved = scale_n[:, None] * solved
    solved_transposed = solved.T

    def solve_fixed(_: Any, right: tuple[Scalar, Array, Array]) -> tuple[Scalar, Array, Array]:
        r_0, r_n, r_m = right
        r_n = r_n - over_n * r_0
        x_m = inverse_m @ (r_m - over_m * r_0 - solved_transposed @ r_n)
        x_n = inverse_n @ r_n - solved @ x_m
        return r_0 / fixed.block_00 - over_n @ x_n - over_m @ x_m, x_n, x_m

    def solve(right: tuple[Scalar, Array, Array]) -> tuple[Scalar, Array, Array]:
        return jax.lax.custom_linear_solve(lambda x: matrix @ x, right, solve_fixed, symmetric=True)

    return solve


def _scaled_inverse(matrix: Array) -> tuple[Array, Array]:
    """Return s (n,) and M (n, n) such that the inverse of the matrix is s_i M_ij s_j."""
    # `inverse` adds ones to the rows: rounding would lose entries that are far from one.
    diagonal = jax.lax.slice(matrix.ravel(), (0,), (matrix.size,), (matrix.shape[0] + 1,))
    scale = jax.lax.rsqrt(jnp.abs(diagonal))
    scaled = scale[:, None] * matrix * scale[None, :]
    return scale, inverse(scaled) if matrix.shape[0] < _LARGE else jnp.linalg.inv(scaled)


def _product(left: Float[Array, "n p"], right: Float[Array, "n q"]) -> Float[Array, "p q"]:
    """Return left.T @ right, on a CPU by a loop over rows.

    XLA does not compile a matrix product into one kernel with the loop around it.
    """
    if not _device.on_cpu():
        return left.T @ right
    missing = -left.shape[0] % _ROWS
    left, right = (jnp.pad(part, ((0, missing), (0, 0))) for part in (left, right))

    def add(k: Array, total: Array) -> Array:
        columns = jax.lax.dynamic_slice_in_dim(left, _ROWS * k, _ROWS)
        rows = jax.lax.dynamic_slice_in_dim(right, _ROWS * k, _ROWS)
        for column, row in zip(columns, rows, strict=True):
            total = total + column[:, None] * row[None, :]
        return total

    zeros = varying_as((left, right), jnp.zeros((left.shape[1], right.shape[1]), left.dtype))
    return jax.lax.fori_loop(0, left.shape[0] // _ROWS, add, zeros, unroll=_UNROLL)
