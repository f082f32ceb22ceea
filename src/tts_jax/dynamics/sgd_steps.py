"""The loop of SGD: for one run, and for many side by side in the vector lanes.

Both are the same loop over the same samples. In the second every array has a last axis, the runs,
and the neurons are rows: so each instruction does a step of several runs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Count, Tree
from ..networks import Params
from ..problem import AbstractProblem
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
    """What a loop needs to know."""

    length: int
    chunk: Callable[[Count], tuple[Array, ...]]
    gradient: Callable[..., Params]
    update: Update


def one_way(problem: AbstractProblem, source: AbstractSource, train: Train, update: Update) -> Way:
    """The way of one run."""
    trained = train(problem)
    loss = trained.risk if isinstance(source, Whole) else trained.sample_loss
    return Way(source.length, lambda number: source.chunk(problem, number), jax.grad(loss), update)


def side_by_side(
    problem: AbstractProblem,
    source: AbstractSource,
    train: Train,
    update: Update,
    axes: tuple[Tree, Tree],
) -> Way:
    """The way of many runs, on the last axis of params, state of the optimiser, and samples.

    `axes` of problem and source, as for `jax.vmap`: -1 where an array is a run's own.
    """

    shared = not jax.tree.leaves(axes)  # None is no leaf

    def chunk(number: Count) -> tuple[Array, ...]:
        elementwise = isinstance(source, Hashed) and source.noise.ndim == 0
        if shared or (elementwise and not jax.tree.leaves(axes[0])):
            return source.chunk(problem, number)
        together = jax.vmap(lambda p, s: s.chunk(p, number), in_axes=axes, out_axes=-1)
        return together(problem, source)

    def one(p: AbstractProblem, params: Params, *sample: Array) -> Params:
        return one_way(p, source, train, update).gradient(params, *sample)

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

    return Way(source.length, chunk, gradient, update)


def begin(params: Params, optimiser: Any) -> Carry:
    moved = None if _is_double(params.u) else jax.tree.map(jnp.zeros_like, params.u)
    return Carry(params, moved, optimiser, jnp.zeros((), jnp.int64))


def reached(carry: Carry) -> Params:
    """The parameters now."""
    return carry.params if carry.moved is None else Params(carry.params.a, _absorb(carry)[0])


def advance(way: Way, carry: Carry, stop: Count) -> Carry:
    """Steps up to number `stop`, by chunks of samples: the same chunks for every `stop`."""

    def one_chunk(carry: Carry) -> Carry:
        number = carry.step // way.length
        first = number * way.length
        end = jnp.minimum(stop, first + way.length)
        samples = way.chunk(number)
        if carry.moved is not None:
            fresh = carry.step == first
            old = (carry.params.u, carry.moved)
            u, moved = jax.tree.map(lambda v, w: jnp.where(fresh, v, w), _absorb(carry), old)
            carry = carry._replace(params=Params(carry.params.a, u), moved=moved)
        base = carry.params.u

        def one_step(i: Count, state: tuple[Params, Any]) -> tuple[Params, Any]:
            params, optimiser = state
            at = params
            if carry.moved is not None:
                at = Params(params.a, jax.tree.map(jnp.add, base, params.u))
            gradient = way.gradient(at, *(v[i] for v in samples))
            change, optimiser = way.update(gradient, at, optimiser)
            return jax.tree.map(jnp.add, params, change), optimiser

        moving = carry.params if carry.moved is None else Params(carry.params.a, carry.moved)
        moving, optimiser = jax.lax.fori_loop(
            carry.step - first, end - first, one_step, (moving, carry.optimiser)
        )
        if carry.moved is None:
            return Carry(moving, None, optimiser, end)
        return Carry(Params(moving.a, base), moving.u, optimiser, end)

    return jax.lax.while_loop(lambda c: c.step < stop, one_chunk, carry)


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
