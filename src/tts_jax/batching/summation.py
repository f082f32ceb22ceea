"""Sums of many numbers, in an order that a compiler turns into fast code."""

import jax
import jax.numpy as jnp

from .._types import Array

_ROWS = 10
"""Rows that a turn of a loop over rows adds: few turns, and none so long that it spills."""


def _sum(rows: Array) -> Array:
    # Not a matrix product: XLA folds a sum into the SGD loop around, a product it does not.
    return jnp.sum(rows, axis=0)


@jax.custom_jvp
def sum_rows(rows: Array) -> Array:
    """The same, a row at a time: XLA's sum has the neurons of a run in the vector lanes."""
    whole = rows.shape[0] // _ROWS

    def more(i: Array, total: Array) -> Array:
        return total + pairwise_sum(list(jax.lax.dynamic_slice_in_dim(rows, i * _ROWS, _ROWS)))

    total = jnp.zeros(rows.shape[1:], rows.dtype)
    if whole:
        total = jax.lax.fori_loop(0, whole, more, total)
    rest = list(rows[whole * _ROWS :])
    return total + pairwise_sum(rest) if rest else total


def pairwise_sum(rows: list[Array]) -> Array:
    """The sum of some arrays of one shape."""
    # One after the other each addition waits for the one before, which few runs cannot hide.
    while len(rows) > 1:
        pairs = [a + b for a, b in zip(rows[::2], rows[1::2], strict=False)]
        rows = pairs + rows[2 * len(pairs) :]
    return rows[0]


@sum_rows.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return sum_rows(*primals), _sum(*tangents)
