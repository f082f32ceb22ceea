"""Functions that `jax.vmap` on a CPU applies to many runs side by side, one in each vector lane."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Tree
from . import devices as _device

LANES = 32
"""Runs side by side on a CPU. More do not make it faster, and fewer leave lanes empty."""

ROUND = 8
"""From so many runs on, those side by side are a multiple of it, which fills vector registers."""


def vmap_in_lanes(
    one: Callable[[Tree], Tree],
    many: Callable[[Tree, Tree], Tree],
    pays: Callable[[Tree], bool],
    alone: Callable[[Tree], Tree],
) -> Callable[[Tree], Tree]:
    """Return a function that `jax.vmap` takes side by side where it pays; else, on a CPU, in turn.

    **Arguments:** functions of a tree; runs may differ in its arrays, all else in it is static.

    - `one(tree)`: returns a tree of arrays, for one of several runs;
    - `many(tree, is_batched)`: returns what `one` does for many runs at once. They are on the last
      axis of the results, and of the arrays for which `is_batched`, a tree of booleans, is True;
    - `pays(is_batched)`: returns whether `many` is faster for runs that differ in these arrays;
    - `alone(tree)`: returns what `one` does, for a run without `jax.vmap`.

    vmap in vmap works: the inner batch runs side by side, and the outer one in turn.
    """

    def run(tree: Tree) -> Tree:
        arrays, static = eqx.partition(tree, eqx.is_array)
        # In a list: a tangent of a tree with None in it fails in `custom_vmap`.
        leaves, structure = jax.tree.flatten(arrays)

        @jax.custom_batching.custom_vmap
        def mapped(leaves: list) -> Tree:
            return alone(eqx.combine(jax.tree.unflatten(structure, leaves), static))

        @mapped.def_vmap
        def _(size: int, flags: list, leaves: list) -> tuple[Tree, Tree]:
            arrays = jax.tree.unflatten(structure, leaves)
            is_batched = jax.tree.unflatten(structure, *flags)
            if not any(jax.tree.leaves(is_batched)):  # only tangents differ, as in `jax.jacfwd`
                out = alone(eqx.combine(arrays, static))
                return out, jax.tree.map(lambda _: False, out)
            batched, shared = eqx.partition(arrays, is_batched)

            def in_loop(batched: Tree) -> Tree:
                # Off a CPU not `mapped`, whose vmap would come back to this rule.
                arrays = eqx.combine(batched, shared)
                if _device.on_cpu():
                    return mapped(jax.tree.leaves(arrays))
                return one(eqx.combine(arrays, static))

            @jax.custom_batching.sequential_vmap
            def in_lanes(batched: Tree, shared: Tree) -> Tree:
                rows = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), batched)
                out = many(eqx.combine(rows, shared, static), is_batched)
                return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), out)

            if not pays(is_batched):
                out = (
                    jax.lax.map(in_loop, batched)
                    if _device.on_cpu()
                    else jax.vmap(in_loop)(batched)
                )
            elif _device.on_cpu():
                out = _in_tiles(lambda tile: in_lanes(tile, shared), batched, size)
            else:
                out = in_lanes(batched, shared)
            return out, jax.tree.map(lambda _: True, out)

        return mapped(leaves)

    return run


def _in_tiles(in_lanes: Callable[[Tree], Tree], runs: Tree, size: int) -> Tree:
    """Return the results of all runs, computed in tiles of at most `LANES` of them."""
    lanes, tiles = _shape(size)
    # The last run fills up the last tile.
    indices = jnp.minimum(jnp.arange(tiles * lanes), size - 1).reshape(tiles, lanes)
    out = jax.lax.map(in_lanes, jax.tree.map(lambda leaf: leaf[indices], runs))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:size], out)


def _shape(size: int) -> tuple[int, int]:
    """Return the lanes of a tile and how many tiles hold all runs, with few lanes to spare."""
    tiles = -(-size // LANES)
    lanes = -(-size // tiles)
    return (lanes if size < ROUND else -(-lanes // ROUND) * ROUND), tiles
