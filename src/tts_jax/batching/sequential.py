"""What `jax.vmap` does with runs that take different times: on a CPU one follows the other."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._types import Array, Tree
from . import devices as _device

Together = Callable[[Callable[[list[Array]], Any], list[Array]], Tree]
"""A function of many runs: of a function from what one run has of its own to its arguments, and of
what all runs have of their own, with a leading axis."""


def in_turn(function: Callable[..., Tree]) -> Callable[..., Tree]:
    """A function of trees of floating arrays, which under vmap on a CPU takes one run after the
    other: together, all of them would go through what only few need, and need memory for it.
    Differentiable; derivatives of many runs are taken together."""
    mapped = one_by_one(function)

    @jax.custom_jvp
    def run(*arguments: Tree) -> Tree:
        return mapped(*arguments)

    @run.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Tree, Tree]:
        return run(*primals), jax.jvp(function, primals, tangents)[1]

    return run


def one_by_one(function: Callable, together: Together | None = None) -> Callable:
    """`function`, which under vmap on a CPU takes one run after the other.

    Side by side, all runs would make as many steps as the slowest of them. Elsewhere `together`
    takes them, if it is there.
    """
    mapped = jax.custom_batching.custom_vmap(function)

    @mapped.def_vmap
    def _(size: int, batched: list, *arguments: Any) -> tuple[Any, Any]:
        leaves, structure = jax.tree.flatten(arguments)
        along = jax.tree.leaves(batched)

        if together is not None and not _device.on_cpu():
            out = _one_batch(together, structure, along)(leaves)
        else:
            given, own = _apart(leaves, structure, along)

            def one(each: list[Array]) -> Tree:
                return function(*given(each))

            out = jax.lax.map(one, own) if _device.on_cpu() else jax.vmap(one)(own)
        return out, jax.tree.map(lambda _: True, out)

    return mapped


def _one_batch(
    together: Together, structure: Any, along: Sequence[bool]
) -> Callable[[list[Array]], Tree]:
    """`together` as a function of the leaves of all arguments, with an axis of runs where `along`.

    Under vmap, a batch of batches becomes one batch.
    """

    @jax.custom_batching.custom_vmap
    def mapped(leaves: list[Array]) -> Tree:
        return together(*_apart(leaves, structure, along))

    @mapped.def_vmap
    def _(size: int, batched: list, leaves: list[Array]) -> tuple[Tree, Tree]:
        kinds = list(zip(leaves, along, batched[0], strict=True))
        inner = next(leaf.shape[is_outer] for leaf, is_own, is_outer in kinds if is_own)

        def flat(leaf: Array, is_own: bool, is_outer: bool) -> Array:
            if not is_own and not is_outer:
                return leaf
            leaf = leaf if is_outer else leaf[None]
            leaf = leaf if is_own else leaf[:, None]
            rest = leaf.shape[2:]
            return jnp.broadcast_to(leaf, (size, inner, *rest)).reshape(size * inner, *rest)

        either = [is_own or is_outer for _, is_own, is_outer in kinds]
        out = _one_batch(together, structure, either)([flat(*one) for one in kinds])
        out = jax.tree.map(lambda leaf: leaf.reshape(size, inner, *leaf.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return mapped


def _apart(
    leaves: list[Array], structure: Any, along: Sequence[bool]
) -> tuple[Callable[[list[Array]], Any], list[Array]]:
    """A function from those leaves of one run that are its own to its arguments, and these leaves
    of all runs."""

    def given(each: list[Array]) -> Any:
        own = iter(each)
        whole = [next(own) if is_own else leaf for leaf, is_own in zip(leaves, along, strict=True)]
        return jax.tree.unflatten(structure, whole)

    return given, [leaf for leaf, is_own in zip(leaves, along, strict=True) if is_own]
