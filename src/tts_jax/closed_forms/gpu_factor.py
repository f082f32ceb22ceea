"""The matrix of a step factorised in a GPU kernel as L D L^T, column by column as it is made.

It is symmetric and needs no pivoting (see `numerics.symmetric.inverse`). The columns of L D are
stored, and 1/D: the columns of the bias, of the weights, and of the positions, of 2m+1 rows each.
"""

from typing import Any

import jax
import jax.numpy as jnp

from .._types import Array
from ..batching.gpu_kernel import KernelOutput
from ..batching.summation import pairwise_sum


class ColumnFactor:
    """L D L^T of a block of runs: `columns` holds column k of L D from row k (2m+1) on, and
    `inverse` 1/D. `zero`: a vector of zeros."""

    def __init__(self, width: int, zero: Array, columns: KernelOutput, inverse: KernelOutput):
        self.width, self.size, self.zero = width, 2 * width + 1, zero
        self.columns, self.inverse = columns, inverse

    def begin_column(self, column: Any, first: int, values: list[Array]) -> None:
        """Store the rows of a column from `first` on, minus the products with earlier columns.

        What is still missing in them may be added with `add` before the column is ended.
        """

        def eliminate(k: Array, rows: list[Array]) -> list[Array]:
            by = self.columns[k * self.size + column] * self.inverse[k]
            return [v - by * self.columns[k * self.size + first + i] for i, v in enumerate(rows)]

        values = jax.lax.fori_loop(0, column, eliminate, values)
        for i, value in enumerate(values):
            self.columns[column * self.size + first + i] = value

    def add(self, column: Any, row: Any, value: Array) -> None:
        """Add a value to an entry of a column that has begun."""
        place = column * self.size + row
        self.columns[place] = self.columns[place] + value

    def invert_corner(self) -> None:
        """Store the inverse of the first diagonal entry, of a column that is stored whole."""
        self.inverse[0] = 1.0 / self.columns[0]

    def end_column(self, column: Any, first: int) -> None:
        """Store the inverse of the diagonal, and set it and the rows above it to zero.

        From row `first` on. The solves then need no bounds that depend on the column.
        """
        start = column * self.size
        self.inverse[column] = 1.0 / self.columns[start + column]
        for i in range(self.width):
            value = self.columns[start + first + i]
            self.columns[start + first + i] = jnp.where(first + i <= column, self.zero, value)

    def solve(self, right: list[Array]) -> list[Array]:
        """Return matrix^-1 times a vector, by a loop over columns that is unrolled over rows."""
        first, width = 1 + self.width, self.width
        bias, others = right[0], self._subtract_column(0, 1, right[0], right[1:])

        def weight_down(c: Array, others: list[Array]) -> list[Array]:
            return self._subtract_column(1 + c, 1, _selected(others[:width], c), others)

        others = jax.lax.fori_loop(0, width, weight_down, others)
        weights, positions = others[:width], others[width:]

        def position_down(c: Array, positions: list[Array]) -> list[Array]:
            return self._subtract_column(first + c, first, _selected(positions, c), positions)

        positions = jax.lax.fori_loop(0, width, position_down, positions)

        def position_up(turn: Array, positions: list[Array]) -> list[Array]:
            c = width - 1 - turn
            value = self._back_substituted(first + c, first, _selected(positions, c), positions)
            return _replaced(positions, c, value)

        positions = jax.lax.fori_loop(0, width, position_up, positions)

        def weight_up(turn: Array, weights: list[Array]) -> list[Array]:
            c = width - 1 - turn
            value = self._back_substituted(1 + c, 1, _selected(weights, c), [*weights, *positions])
            return _replaced(weights, c, value)

        weights = jax.lax.fori_loop(0, width, weight_up, weights)
        return [self._back_substituted(0, 1, bias, [*weights, *positions]), *weights, *positions]

    def _subtract_column(
        self, column: Any, first: int, by: Array, rows: list[Array]
    ) -> list[Array]:
        """Return rows, from `first` on, minus `by` times a column of L: forward substitution."""
        by, start = by * self.inverse[column], column * self.size + first
        return [v - self.columns[start + i] * by for i, v in enumerate(rows)]

    def _back_substituted(self, column: Any, first: int, value: Array, rows: list[Array]) -> Array:
        """Return the solution in row `column`, from those below, which are in `rows`."""
        start = column * self.size + first
        total = pairwise_sum([self.columns[start + i] * v for i, v in enumerate(rows)])
        return (value - total) * self.inverse[column]


def _selected(values: list[Array], k: Array) -> Array:
    """Return `values[k]` for a traced k."""
    selected = values[0]
    for i, value in enumerate(values):
        selected = jnp.where(k == i, value, selected)
    return selected


def _replaced(values: list[Array], k: Array, new: Array) -> list[Array]:
    """Return `values` with `new` at a traced index k."""
    return [jnp.where(k == i, new, value) for i, value in enumerate(values)]
