"""Products of matrices in full precision, and sums over large samples block by block."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._types import Array, Tree


def product(left: Array, right: Array) -> Array:
    """Return left @ right, as exact as its dtype: some devices would multiply in less precision."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


def summed_over_blocks(of_block: Callable[[Any], Tree], rows: Tree, size: int) -> Tree:
    """Return the sum of what `of_block` makes of blocks of at most `size` rows.

    Rows are on the first axis of every array of `rows`. The last block is filled up with rows of
    zeros, which `of_block` must count as nothing. A derivative computes each block again, so that
    memory does not grow with the rows.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    if count <= size:
        return of_block(rows)
    blocks = -(-count // size)
    size = -(-count // blocks)

    def in_blocks(values: Array) -> Array:
        more = [(0, blocks * size - count)] + [(0, 0)] * (values.ndim - 1)
        return jnp.pad(values, more).reshape(blocks, size, *values.shape[1:])

    parts = jax.tree.map(in_blocks, rows)
    each = jax.checkpoint(of_block)

    def add(total: Tree, block: Tree) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, each(block)), None

    first = each(jax.tree.map(lambda v: v[0], parts))
    return jax.lax.scan(add, first, jax.tree.map(lambda v: v[1:], parts))[0]
