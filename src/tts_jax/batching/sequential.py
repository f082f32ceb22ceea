"""Functions that `jax.vmap` applies to one run after the other on a CPU.

Runs take different numbers of steps: side by side, all would go on until the slowest has ended.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._types import Array, Tree
from . import devices as _device

BatchFunction = Callable[[Callable[[list[Array]], Any], list[Array]], Tree]
"""A function of many runs, `f(arguments_of, batched_leaves)`: `batched_leaves` are the arrays that
differ between runs, with a leading axis; `arguments_of` makes a run's arguments out of its own."""


def in_turn(function: Callable[..., Tree]) -> Callable[..., Tree]:
    """Return a function of trees of floating arrays that under vmap on a CPU takes runs in turn.

    Side by side, every run would compute what only few of them need, and need memory for it.
    Differentiable; derivatives of many runs are taken side by side.
    """
    mapped = one_by_one(function)

    @jax.custom_jvp
    def run(*arguments: Tree) -> Tree:
        return mapped(*arguments)

    @run.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Tree, Tree]:
        return run(*primals), jax.jvp(function, primals, tangents)[1]

    return run


def one_by_one(function: Callable, together: BatchFunction | None = None) -> Callable:
    """Return `function` so that under vmap on a CPU it takes runs in turn.

    On other devices `together` takes all runs at once; without it, `jax.vmap` does.
    """
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def _(size: int, batched: list, *arguments: Any) -> tuple[Any, Any]:
        leaves, structure = jax.tree.flatten(arguments)
        flags = jax.tree.leaves(batched)

        if together is not None and not _device.on_cpu():
            out = _single_batch(together, structure, flags)(leaves)
        else:
            arguments_of, batched_leaves = _split_batched(leaves, structure, flags)

            def single_run(leaves_of_run: list[Array]) -> Tree:
                return function(*arguments_of(leaves_of_run))

            if _device.on_cpu():
                out = jax.lax.map(single_run, batched_leaves)
            else:
                out = jax.vmap(single_run)(batched_leaves)
        return out, jax.tree.map(lambda _: True, out)

    return mapped


def _single_batch(
    together: BatchFunction, structure: Any, flags: Sequence[bool]
) -> Callable[[list[Array]], Tree]:
    """Return `together` as a function of the leaves of all arguments.

    Leaves whose flag is True have a leading axis of runs. Under vmap, a batch of batches becomes a
    single batch.
    """

    @jax.custom_batching.custom_vmap
    def mapped(leaves: list[Array]) -> Tree:
        return together(*_split_batched(leaves, structure, flags))

    @mapped.def_vmap
    def _(size: int, batched: list, leaves: list[Array]) -> tuple[Tree, Tree]:
        kinds = list(zip(leaves, flags, batched[0], strict=True))
        inner = next(leaf.shape[is_outer] for leaf, is_inner, is_outer in kinds if is_inner)

        def flattened(leaf: Array, is_inner: bool, is_outer: bool) -> Array:
            if not is_inner and not is_outer:
                return leaf
            leaf = leaf if is_outer else leaf[None]
            leaf = leaf if is_inner else leaf[:, None]
            shape = leaf.shape[2:]
            return jnp.broadcast_to(leaf, (size, inner, *shape)).reshape(size * inner, *shape)

        either = [is_inner or is_outer for _, is_inner, is_outer in kinds]
        out = _single_batch(together, structure, either)([flattened(*kind) for kind in kinds])
        out = jax.tree.map(lambda leaf: leaf.reshape(size, inner, *leaf.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return mapped


def _split_batched(
    leaves: list[Array], structure: Any, flags: Sequence[bool]
) -> tuple[Callable[[list[Array]], Any], list[Array]]:
    """Return the two arguments of a `BatchFunction`: `arguments_of` and the leaves with a flag."""
    pairs = list(zip(leaves, flags, strict=True))

    def arguments_of(leaves_of_run: list[Array]) -> Any:
        remaining = iter(leaves_of_run)
        all_leaves = [next(remaining) if is_batched else leaf for leaf, is_batched in pairs]
        return jax.tree.unflatten(structure, all_leaves)

    return arguments_of, [leaf for leaf, is_batched in pairs if is_batched]
