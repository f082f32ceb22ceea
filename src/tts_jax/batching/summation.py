"""Sums of many numbers, in an order that a compiler turns into fast code."""

import jax
import jax.numpy as jnp

from .._types import Array, varying_as

_ROWS = 10
"""Rows that a turn of a loop over rows adds: few turns, each of which fits the registers."""


def plain_sum(rows: Array) -> Array:
    """Return the sum of rows (n, ...) over the first axis, in XLA's order."""
    # Not a matrix product: XLA on a CPU compiles a sum into one kernel with the loop of SGD around
    # it, but not a product.
    return jnp.sum(rows, axis=0)


@jax.custom_jvp
def sum_rows(rows: Array) -> Array:
    """Return the sum of rows (n, ..., R) over the first axis, by additions of whole rows.

    So the R runs on the last axis fill the vector lanes; in XLA's own sum the n rows would.
    """
    turns = rows.shape[0] // _ROWS

    def add_rows(i: Array, total: Array) -> Array:
        return total + pairwise_sum(list(jax.lax.dynamic_slice_in_dim(rows, i * _ROWS, _ROWS)))

    total = varying_as(rows, jnp.zeros(rows.shape[1:], rows.dtype))
    if turns:
        total = jax.lax.fori_loop(0, turns, add_rows, total)
    remainder = list(rows[turns * _ROWS :])
    return total + pairwise_sum(remainder) if remainder else total


def pairwise_sum(rows: list[Array]) -> Array:
    """Return the sum of arrays of one shape, by pairs."""
    # In a chain every addition waits for the one before, a delay that few runs cannot hide.
    while len(rows) > 1:
        pairs = [a + b for a, b in zip(rows[::2], rows[1::2], strict=False)]
        rows = pairs + rows[2 * len(pairs) :]
    return rows[0]


@sum_rows.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return sum_rows(*primals), plain_sum(*tangents)
