"""A condition that holds for few of many runs, whose branch is computed for these alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._types import Array, Bool, Tree
from . import devices as _device

_SHARE = 8
"""A round holds at most one in so many of all runs: it takes its time however few it holds, and
where more runs meet the condition a second round follows."""


def gathered_cond(needed: Bool[Array, ""], change: Callable[[Tree], Tree], parts: Tree) -> Tree:
    """Return `change(parts)`, a tree like `parts`, if it is needed, otherwise `parts`.

    Under `jax.vmap` a branch is taken by all runs or by none; off the CPU the runs that need the
    change are therefore gathered, and it is computed for them only. `change` may close over
    floating arrays. Differentiable.
    """

    def checkpointed_cond(needed: Array, change: Callable[[Tree], Tree], parts: Tree) -> Tree:
        # In reverse mode a branch that is not taken still has its intermediate results filled
        # with zeros: with a checkpoint it has none.
        return jax.lax.cond(needed, jax.checkpoint(change), lambda parts: parts, parts)

    if _device.on_cpu():
        return checkpointed_cond(needed, change, parts)
    change, numbers = jax.closure_convert(change, parts)

    def single_run(needed: Array, numbers: list[Array], parts: Tree) -> Tree:
        return checkpointed_cond(needed, lambda parts: change(parts, *numbers), parts)

    gathered = jax.custom_batching.custom_vmap(single_run)

    @gathered.def_vmap
    def _(size: int, batched: list, needed: Array, numbers: list[Array], parts: Tree) -> tuple:
        leaves, structure = jax.tree.flatten((numbers, parts))
        flags = jax.tree.leaves(tuple(batched[1:]))

        def changed(batched_leaves: list[Array]) -> Tree:
            remaining = iter(batched_leaves)
            pairs = zip(leaves, flags, strict=True)
            all_leaves = [next(remaining) if is_batched else leaf for leaf, is_batched in pairs]
            numbers, parts = jax.tree.unflatten(structure, all_leaves)
            return change(parts, *numbers)

        batched_leaves = [
            leaf for leaf, is_batched in zip(leaves, flags, strict=True) if is_batched
        ]
        needed = jnp.broadcast_to(needed, size)
        parts = jax.tree.map(
            lambda leaf, is_batched: (
                leaf if is_batched else jnp.broadcast_to(leaf, (size, *leaf.shape))
            ),
            parts,
            batched[2],
        )
        round_size = -(-size // _SHARE)
        # A whole number of rounds; the entries that are left over hold `size`, which is no run.
        runs = jnp.nonzero(needed, size=-(-size // round_size) * round_size, fill_value=size)[0]
        count = jnp.sum(needed)

        def one_round(state: tuple[Array, Tree]) -> tuple[Array, Tree]:
            first, parts = state
            indices = jax.lax.dynamic_slice(runs, (first,), (round_size,))
            gathered_leaves = [leaf[jnp.minimum(indices, size - 1)] for leaf in batched_leaves]
            new = jax.vmap(changed, axis_size=round_size)(gathered_leaves)
            updated = jax.tree.map(
                lambda rows, new: rows.at[indices].set(new, mode="drop"), parts, new
            )
            return first + round_size, updated

        first = jnp.zeros_like(count)
        out = jax.lax.while_loop(lambda state: state[0] < count, one_round, (first, parts))[1]
        return out, jax.tree.map(lambda _: True, out)

    @jax.custom_jvp
    def differentiable(needed: Array, numbers: list[Array], parts: Tree) -> Tree:
        return gathered(needed, numbers, parts)

    def select(needed: Array, numbers: list[Array], parts: Tree) -> Tree:
        new = jax.checkpoint(change)(parts, *numbers)
        return jax.tree.map(lambda new, old: jnp.where(needed, new, old), new, parts)

    @differentiable.defjvp
    def _(primals: tuple, tangents: tuple) -> Any:
        # Under vmap JAX turns a branch into a selection as well, but one that it cannot transpose
        # here.
        return differentiable(*primals), jax.jvp(select, primals, tangents)[1]

    return differentiable(needed, numbers, parts)
