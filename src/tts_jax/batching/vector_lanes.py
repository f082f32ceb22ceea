"""Functions that `jax.vmap` on a CPU applies to many runs side by side, one in each vector lane."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._types import Array, Tree
from . import devices as _device

LANES = 32
"""Runs side by side on a CPU. More do not make it faster, and fewer leave lanes empty."""

_ROUND = 8
"""Runs side by side are a multiple of it, which fills vector registers."""


def vmap_in_lanes(
    single_run: Callable[[Tree], Tree],
    together: Callable[[Tree, Tree], Tree],
    lanes_pay: Callable[[Tree], bool],
    alone: Callable[[Tree], Tree] | None = None,
) -> Callable[[Tree], Tree]:
    """Return `single_run` so that under vmap runs go side by side where that pays, else in turn.

    **Arguments:** `single_run`, from a tree of arrays to a tree of arrays; `together(arrays,
    is_batched)`, which computes `single_run` for many runs, on the last axis of its results and of
    the arrays for which `is_batched`, a tree of truth values, is True; `lanes_pay(is_batched)`,
    whether `together` is faster than runs in turn; `alone`, what is called without vmap, by default
    `single_run`.

    vmap in vmap works: the inner batch runs side by side, and the outer one in turn.
    """
    mapped = jax.custom_batching.custom_vmap(alone or single_run)

    @mapped.def_vmap
    def _(size: int, batched: list, arguments: Tree) -> tuple[Tree, Tree]:
        (is_batched,) = batched
        leaves, structure = jax.tree.flatten(arguments)
        flags = jax.tree.leaves(is_batched)
        batched_leaves = [leaf for leaf, flag in zip(leaves, flags, strict=True) if flag]
        shared_leaves = [leaf for leaf, flag in zip(leaves, flags, strict=True) if not flag]

        def arguments_of(batched_leaves: list, shared_leaves: list) -> Tree:
            differing, shared = iter(batched_leaves), iter(shared_leaves)
            all_leaves = [next(differing) if flag else next(shared) for flag in flags]
            return jax.tree.unflatten(structure, all_leaves)

        @jax.custom_batching.sequential_vmap
        def tile(batched_leaves: list, shared_leaves: list) -> Tree:
            rows = [jnp.moveaxis(leaf, 0, -1) for leaf in batched_leaves]
            out = together(arguments_of(rows, shared_leaves), is_batched)
            return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), out)

        if not lanes_pay(is_batched):
            # Off a CPU `single_run` itself: vmap of `mapped` would come back to this rule.
            function = mapped if _device.on_cpu() else single_run
            out = _map_separately(
                lambda leaves_of_run: function(arguments_of(leaves_of_run, shared_leaves)),
                batched_leaves,
            )
        elif _device.on_cpu():
            lanes, tiles = _shape(size)
            indices = jnp.minimum(jnp.arange(tiles * lanes), size - 1).reshape(tiles, lanes)
            out = jax.lax.map(
                lambda leaves_of_tile: tile(leaves_of_tile, shared_leaves),
                [leaf[indices] for leaf in batched_leaves],
            )
            out = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:size], out)
        else:
            out = tile(batched_leaves, shared_leaves)
        return out, jax.tree.map(lambda _: True, out)

    return mapped


def _map_separately(function: Callable[[list], Tree], batched_leaves: list[Array]) -> Tree:
    return (
        jax.lax.map(function, batched_leaves)
        if _device.on_cpu()
        else jax.vmap(function)(batched_leaves)
    )


def _shape(size: int) -> tuple[int, int]:
    """Return the lanes of a tile and how many tiles hold all runs, with few lanes to spare."""
    tiles = -(-size // LANES)
    lanes = -(-size // tiles)
    return (lanes if size < _ROUND else -(-lanes // _ROUND) * _ROUND), tiles


def last_axes(is_batched: Any) -> Any:
    """Return the axes for `jax.vmap`: -1 where the tree is True, which is a batched array."""
    return jax.tree.map(lambda flag: -1 if flag else None, is_batched)
