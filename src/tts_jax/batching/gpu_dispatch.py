"""The one hook that sends a function of many runs to a GPU kernel.

A kernel computes many runs in one launch, has no derivative, and exists on some GPUs only. Beside
every kernel there is a plain function of a single run; the functions here choose between the two.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._types import Array, Tree


def by_device(kernel: Callable[..., Tree], plain: Callable[..., Tree], *arguments: Tree) -> Tree:
    """Return `kernel(*arguments)` on a GPU, and `plain(*arguments)` on other devices.

    The device is the one that the program is compiled for: arrays may have been put on a CPU.
    """
    return jax.lax.platform_dependent(*arguments, cuda=kernel, default=plain)


def kernel_or_plain(kernel: Callable[..., Tree], plain: Callable[..., Tree]) -> Callable[..., Tree]:
    """Return a function that is `kernel` on a GPU and `plain` elsewhere.

    Its derivatives are those of `plain`.
    """

    @jax.custom_jvp
    def run(*arguments: Tree) -> Tree:
        return by_device(kernel, plain, *arguments)

    @run.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Tree, Tree]:
        return run(*primals), jax.jvp(plain, primals, tangents)[1]

    return run


def vmap_to_kernel(alone: Callable[..., Tree], kernel: Callable[..., Tree]) -> Callable[..., Tree]:
    """Return a function that is `alone` for one run, and `kernel` under `jax.vmap` on a GPU.

    **Arguments:** `alone`, from trees of arrays to a tree of arrays; `kernel(is_batched, *trees)`,
    which computes `alone` for all runs at once. The runs are on the last axis of every array,
    except for arrays of the first tree that all runs share: `is_batched`, a tree of truth values
    like the first tree, is False for these.

    Derivatives are those of `alone`.
    """

    @jax.custom_jvp
    def run(*arguments: Tree) -> Tree:
        return vmapped(*arguments)

    @run.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Tree, Tree]:
        return run(*primals), jax.jvp(alone, primals, tangents)[1]

    vmapped = jax.custom_batching.custom_vmap(alone)

    @vmapped.def_vmap
    def _(size: int, batched: list, *arguments: Tree) -> tuple[Tree, Tree]:
        def to_last_axis(leaf: Array, is_batched: bool) -> Array:
            return jnp.moveaxis(leaf, 0, -1) if is_batched else leaf

        def broadcast_to_last_axis(leaf: Array, is_batched: bool) -> Array:
            rows = leaf if is_batched else jnp.broadcast_to(leaf, (size, *leaf.shape))
            return jnp.moveaxis(rows, 0, -1)

        def in_kernel(*arguments: Tree) -> Tree:
            first = jax.tree.map(to_last_axis, arguments[0], batched[0])
            others = jax.tree.map(broadcast_to_last_axis, arguments[1:], tuple(batched[1:]))
            out = kernel(batched[0], first, *others)
            return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), out)

        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched))
        out = by_device(in_kernel, jax.vmap(alone, axes), *arguments)
        return out, jax.tree.map(lambda _: True, out)

    return run
