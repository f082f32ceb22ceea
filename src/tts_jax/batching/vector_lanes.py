"""What `jax.vmap` does with runs of SGD: on a CPU, side by side in the vector lanes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._types import Array, Tree
from . import devices as _device

LANES = 32
"""Runs side by side on a CPU. More do not make it faster, and fewer leave lanes empty."""

ROUND = 8
"""Runs come in multiples of it, which fill vector registers."""


def vmap_in_lanes(
    one: Callable[[Tree], Tree],
    together: Callable[[Tree, Tree], Tree],
    in_step: Callable[[Tree], bool],
    alone: Callable[[Tree], Tree] | None = None,
) -> Callable[[Tree], Tree]:
    """`one`, which under vmap runs side by side where that pays, and in turn where it does not.

    **Arguments:** `one`, from a tree of arrays to a tree of arrays; `together`, the same for runs
    on the last axis of its results and of those arrays for which the tree of its second argument
    says so; `in_step`: whether that pays if those arrays are a run's own; `alone`: what a run
    without others does, `one` by default.

    vmap in vmap works: what comes first runs side by side, and batches of that in turn.
    """
    mapped = jax.custom_batching.custom_vmap(alone or one)

    @mapped.def_vmap
    def _(size: int, batched: list, arguments: Tree) -> tuple[Tree, Tree]:
        (own_ones,) = batched
        leaves, structure = jax.tree.flatten(arguments)
        along = jax.tree.leaves(own_ones)
        own = [leaf for leaf, is_own in zip(leaves, along, strict=True) if is_own]
        rest = [leaf for leaf, is_own in zip(leaves, along, strict=True) if not is_own]

        def whole(own: list, rest: list) -> Tree:
            mine, shared = iter(own), iter(rest)
            chosen = [next(mine) if is_own else next(shared) for is_own in along]
            return jax.tree.unflatten(structure, chosen)

        @jax.custom_batching.sequential_vmap
        def tile(own: list, rest: list) -> Tree:
            rows = [jnp.moveaxis(leaf, 0, -1) for leaf in own]
            out = together(whole(rows, rest), own_ones)
            return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), out)

        if not in_step(own_ones):
            # Off a CPU by the function itself, or this rule would be asked again.
            each = mapped if _device.on_cpu() else one
            out = _in_turn(lambda some: each(whole(some, rest)), own)
        elif _device.on_cpu():
            lanes, tiles = _shape(size)
            deck = jnp.minimum(jnp.arange(tiles * lanes), size - 1).reshape(tiles, lanes)
            out = jax.lax.map(lambda some: tile(some, rest), [leaf[deck] for leaf in own])
            out = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:size], out)
        else:
            out = tile(own, rest)
        return out, jax.tree.map(lambda _: True, out)

    return mapped


def _in_turn(one: Callable[[list], Tree], own: list[Array]) -> Tree:
    return jax.lax.map(one, own) if _device.on_cpu() else jax.vmap(one)(own)


def _shape(size: int) -> tuple[int, int]:
    """Lanes, and tiles of so many that hold all runs with as few to spare as possible."""
    tiles = -(-size // LANES)
    lanes = -(-size // tiles)
    return (lanes if size < ROUND else -(-lanes // ROUND) * ROUND), tiles


def last_axes(own_ones: Any) -> Any:
    """-1 where an array is a run's own, else None: the axes for `jax.vmap`."""
    return jax.tree.map(lambda is_own: -1 if is_own else None, own_ones)
