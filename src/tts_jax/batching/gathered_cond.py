"""What only few of many runs need, for these alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._types import Array, Bool, Tree
from . import devices as _device

_SHARE = 8
"""Those that need it are taken in rounds of at most one in so many of all runs: a round takes its
time however few it holds, and a second one is waited for."""


def gathered_cond(needed: Bool[Array, ""], change: Callable[[Tree], Tree], parts: Tree) -> Tree:
    """`change(parts)`, a tree like them, if it is needed, otherwise the parts as they are.

    Side by side with others, where a branch is taken by all or by none, off the CPU: those that
    need it are gathered. `change` may close over floating arrays. Differentiable.
    """

    def choose(needed: Array, change: Callable[[Tree], Tree], parts: Tree) -> Tree:
        # In reverse mode a branch that is not taken still has its intermediate results filled
        # with zeros: with a checkpoint it has none.
        return jax.lax.cond(needed, jax.checkpoint(change), lambda parts: parts, parts)

    if _device.on_cpu():
        return choose(needed, change, parts)
    change, numbers = jax.closure_convert(change, parts)

    def plain(needed: Array, numbers: list[Array], parts: Tree) -> Tree:
        return choose(needed, lambda parts: change(parts, *numbers), parts)

    gathered = jax.custom_batching.custom_vmap(plain)

    @gathered.def_vmap
    def _(size: int, batched: list, needed: Array, numbers: list[Array], parts: Tree) -> tuple:
        leaves, structure = jax.tree.flatten((numbers, parts))
        along = jax.tree.leaves(tuple(batched[1:]))

        def changed(own: list[Array]) -> Tree:
            each = iter(own)
            both = zip(leaves, along, strict=True)
            whole = [next(each) if is_own else leaf for leaf, is_own in both]
            numbers, parts = jax.tree.unflatten(structure, whole)
            return change(parts, *numbers)

        own = [leaf for leaf, is_own in zip(leaves, along, strict=True) if is_own]
        needed = jnp.broadcast_to(needed, size)
        parts = jax.tree.map(
            lambda leaf, is_own: leaf if is_own else jnp.broadcast_to(leaf, (size, *leaf.shape)),
            parts,
            batched[2],
        )
        some = -(-size // _SHARE)
        # As many places as whole rounds have; those that are left over are no run's.
        places = jnp.nonzero(needed, size=-(-size // some) * some, fill_value=size)[0]
        count = jnp.sum(needed)

        def one_round(state: tuple[Array, Tree]) -> tuple[Array, Tree]:
            first, parts = state
            here = jax.lax.dynamic_slice(places, (first,), (some,))
            mine = [leaf[jnp.minimum(here, size - 1)] for leaf in own]
            new = jax.vmap(changed, axis_size=some)(mine)
            put = jax.tree.map(lambda rows, new: rows.at[here].set(new, mode="drop"), parts, new)
            return first + some, put

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
        # Of many runs JAX makes this of a branch too, in a way that it cannot transpose here.
        return differentiable(*primals), jax.jvp(select, primals, tangents)[1]

    return differentiable(needed, numbers, parts)
