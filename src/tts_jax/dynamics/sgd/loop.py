"""The loop of SGD: for one run, and for many side by side in the vector lanes.

Both are the same loop over the same samples. In the second every array has a last axis, the runs,
and the neurons are rows: so each instruction does a step of several runs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._types import Array, Count, Tree
from ...models.network import Params
from ...problems.base import AbstractProblem
from .samples import AbstractSource, Hashed, Whole

Update = Callable[[Params, Params, Any], tuple[Params, Any]]
"""From a gradient, parameters and the state of the optimiser to what it adds to the parameters."""


Train = Callable[[AbstractProblem], AbstractProblem]
"""From the problem to what gradients are taken of: another precision, another derivative."""


class Carry(NamedTuple):
    """Where a run is.

    In float32 a step of u can be less than half a unit in the last place of u, and would be lost.
    So `moved` adds up the steps of a chunk, and u is moved between the chunks; u + moved counts.
    """

    params: Params
    moved: Tree | None
    optimiser: Any
    step: Count


class Way(NamedTuple):
    """How steps are taken: chunks of `length`, and what goes through a part of one.

    `walk`: from the number of the chunk, the steps in it from which and up to which to go, u where
    `Carry.moved` adds up (else None), what moves, and the state of the optimiser, to the last two.
    """

    length: int
    walk: Callable[[Count, Count, Count, Tree, Params, Any], tuple[Params, Any]]


def gradient_of(
    problem: AbstractProblem, source: AbstractSource, train: Train
) -> Callable[..., Params]:
    """The gradient that a step of one run goes down, of parameters and a sample."""
    trained = train(problem)
    return jax.grad(trained.risk if isinstance(source, Whole) else trained.sample_loss)


def one_way(problem: AbstractProblem, source: AbstractSource, train: Train, update: Update) -> Way:
    """The way of one run."""
    gradient = gradient_of(problem, source, train)
    return _by_loop(source.length, lambda number: source.chunk(problem, number), gradient, update)


def chunks(
    problem: AbstractProblem, source: AbstractSource, axes: tuple[Tree, Tree]
) -> Callable[[Count], tuple[Array, ...]]:
    """The chunks of samples of many runs, which are on the last axis if any samples differ.

    `axes` of problem and source, as for `jax.vmap`: -1 where an array is a run's own.
    """

    def chunk(number: Count) -> tuple[Array, ...]:
        elementwise = isinstance(source, Hashed) and source.noise.ndim == 0
        if not jax.tree.leaves(axes) or (elementwise and not jax.tree.leaves(axes[0])):
            return source.chunk(problem, number)
        together = jax.vmap(lambda p, s: s.chunk(p, number), in_axes=axes, out_axes=-1)
        return together(problem, source)

    return chunk


def side_by_side(
    problem: AbstractProblem,
    source: AbstractSource,
    train: Train,
    update: Update,
    axes: tuple[Tree, Tree],
) -> Way:
    """The way of many runs, on the last axis of params, state of the optimiser, and samples.

    `axes`: see `chunks`.
    """
    shared = not jax.tree.leaves(axes)  # None is no leaf

    def one(p: AbstractProblem, params: Params, *sample: Array) -> Params:
        return gradient_of(p, source, train)(params, *sample)

    def gradient(params: Params, *sample: Array) -> Params:
        if shared:
            lanes = jax.tree.leaves(params)[0].shape[-1]
            sample = tuple(jnp.broadcast_to(v[..., None], (*v.shape, lanes)) for v in sample)
        if jax.tree.leaves(axes[0]):
            in_axes = (axes[0], -1, *(-1 for _ in sample))
            return jax.vmap(one, in_axes=in_axes, out_axes=-1)(problem, params, *sample)
        # A run's loss depends on its own parameters only: the sum has all the gradients.
        losses = train(problem).sample_losses
        return jax.grad(lambda p: jnp.sum(losses(p, *sample)))(params)

    return _by_loop(source.length, chunks(problem, source, axes), gradient, update)


def _by_loop(
    length: int,
    chunk: Callable[[Count], tuple[Array, ...]],
    gradient: Callable[..., Params],
    update: Update,
) -> Way:
    """Samples of a whole chunk, and a loop over them."""

    def walk(
        number: Count, first: Count, end: Count, base: Tree, moving: Params, optimiser: Any
    ) -> tuple[Params, Any]:
        samples = chunk(number)

        def one_step(i: Count, state: tuple[Params, Any]) -> tuple[Params, Any]:
            params, optimiser = state
            at = place(base, params)
            change, optimiser = update(gradient(at, *(v[i] for v in samples)), at, optimiser)
            return jax.tree.map(jnp.add, params, change), optimiser

        return jax.lax.fori_loop(first, end, one_step, (moving, optimiser))

    return Way(length, walk)


def place(base: Tree, moving: Params) -> Params:
    """The parameters, where `moving` is what moves."""
    if base is None:
        return moving
    return Params(moving.a, jax.tree.map(jnp.add, base, moving.u))


def begin(params: Params, optimiser: Any) -> Carry:
    moved = None if _is_double(params.u) else jax.tree.map(jnp.zeros_like, params.u)
    return Carry(params, moved, optimiser, jnp.zeros((), jnp.int64))


def reached(carry: Carry) -> Params:
    """The parameters now."""
    return carry.params if carry.moved is None else Params(carry.params.a, _absorb(carry)[0])


def advance(way: Way, carry: Carry, stop: Count) -> Carry:
    """Steps up to number `stop`, by chunks of samples: the same chunks for every `stop`.

    For runs side by side `stop` and `carry.step` may be (R,).
    """

    def one_chunk(carry: Carry) -> Carry:
        number = carry.step // way.length
        first = number * way.length
        end = jnp.minimum(stop, first + way.length)
        a, u = carry.params
        part = (number, carry.step - first, end - first)
        if carry.moved is None:
            params, optimiser = way.walk(*part, None, carry.params, carry.optimiser)
            return Carry(params, None, optimiser, end)
        fresh = carry.step == first
        old = (u, carry.moved)
        u, moved = jax.tree.map(lambda v, w: jnp.where(fresh, v, w), _absorb(carry), old)
        moving, optimiser = way.walk(*part, u, Params(a, moved), carry.optimiser)
        return Carry(Params(moving.a, u), moving.u, optimiser, end)

    return jax.lax.while_loop(lambda c: jnp.any(c.step < stop), one_chunk, carry)


def _is_double(u: Tree) -> bool:
    return jnp.result_type(*jax.tree.leaves(u)) == jnp.float64


def _absorb(carry: Carry) -> tuple[Tree, Tree]:
    """u + moved, rounded, and what the rounding left."""

    def total(u: Array, moved: Array) -> Array:
        return u.astype(jnp.float64) + moved.astype(jnp.float64)

    def left(u: Array, moved: Array) -> Array:
        exact = total(u, moved)
        return (exact - exact.astype(u.dtype).astype(jnp.float64)).astype(u.dtype)

    u, moved = carry.params.u, carry.moved
    rounded = jax.tree.map(lambda u, moved: total(u, moved).astype(u.dtype), u, moved)
    return rounded, jax.tree.map(left, u, moved)
