"""The one hook that sends a function of many runs to a GPU kernel.

A kernel computes many runs in one launch, has no derivative, and exists on some GPUs only. Whoever
has one writes what a single run does as well; what is here chooses between the two.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._types import Array, Tree


def by_device(kernel: Callable[..., Tree], plain: Callable[..., Tree], *given: Tree) -> Tree:
    """Return `kernel(*given)` on a GPU, and `plain(*given)` where the program is compiled for
    another device, such as for arrays that were put on a CPU."""
    return jax.lax.platform_dependent(*given, cuda=kernel, default=plain)


def kernel_or_plain(kernel: Callable[..., Tree], plain: Callable[..., Tree]) -> Callable[..., Tree]:
    """A function that is `kernel` on a GPU and `plain` elsewhere, with the derivative of `plain`."""

    @jax.custom_jvp
    def run(*given: Tree) -> Tree:
        return by_device(kernel, plain, *given)

    @run.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Tree, Tree]:
        return run(*primals), jax.jvp(plain, primals, tangents)[1]

    return run


def vmap_to_kernel(alone: Callable[..., Tree], kernel: Callable[..., Tree]) -> Callable[..., Tree]:
    """A function that is `alone` for one run, and under `jax.vmap` on a GPU `kernel` for all.

    **Arguments:** `alone`, from trees of arrays to a tree of arrays; `kernel(is_batched, *given)`,
    the same for runs on the last axis of every array, but for those of the first tree where
    `is_batched`, a tree of truth values like it, says that all runs share them.

    Derivatives are those of `alone`.
    """

    @jax.custom_jvp
    def run(*given: Tree) -> Tree:
        return together(*given)

    @run.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Tree, Tree]:
        return run(*primals), jax.jvp(alone, primals, tangents)[1]

    together = jax.custom_batching.custom_vmap(alone)

    @together.def_vmap
    def _(size: int, batched: list, *given: Tree) -> tuple[Tree, Tree]:
        def to_last_axis(leaf: Array, is_batched: bool) -> Array:
            return jnp.moveaxis(leaf, 0, -1) if is_batched else leaf

        def spread(leaf: Array, is_batched: bool) -> Array:
            whole = leaf if is_batched else jnp.broadcast_to(leaf, (size, *leaf.shape))
            return jnp.moveaxis(whole, 0, -1)

        def in_kernel(*given: Tree) -> Tree:
            first = jax.tree.map(to_last_axis, given[0], batched[0])
            rest = jax.tree.map(spread, given[1:], tuple(batched[1:]))
            out = kernel(batched[0], first, *rest)
            return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), out)

        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched))
        out = by_device(in_kernel, jax.vmap(alone, axes), *given)
        return out, jax.tree.map(lambda _: True, out)

    return run
