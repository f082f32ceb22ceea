"""The loop of SGD: what advances a run from stop to stop, in chunks of samples."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._types import Array, Count, Int, Tree, varying_as
from ...models.network import Params


class RunState(NamedTuple):
    """Where a run is, or where many are, on the last axis of every array.

    In float32 a training step of u can be less than half a unit in the last place of u, and would
    be lost. So `moved` adds up the steps of a chunk, and u is moved between the chunks; u + moved
    counts. In float64 it is None. `optimiser`: the state of the optimiser; `step`: the number of
    training steps taken.
    """

    params: Params
    moved: Tree | None
    optimiser: Any
    step: Count

    @classmethod
    def at_start(cls, params: Params, optimiser: Any) -> "RunState":
        is_double = jnp.result_type(*jax.tree.leaves(params.u)) == jnp.float64
        moved = None if is_double else jax.tree.map(jnp.zeros_like, params.u)
        return cls(params, moved, optimiser, varying_as(params, jnp.zeros((), jnp.int64)))


class AbstractRun(eqx.Module):
    """What advances a run of SGD, or many side by side on the last axis of every array.

    An instance says how it begins and how it takes training steps on the samples of one chunk. What
    stands here takes them from stop to stop, through the same chunks whatever the stops are, and
    keeps float32 from losing them.
    """

    @property
    @abc.abstractmethod
    def chunk_length(self) -> int:
        """Training steps in a chunk of samples."""

    @abc.abstractmethod
    def begin(self) -> RunState:
        """Return the state before the first training step."""

    @abc.abstractmethod
    def advance_in_chunk(
        self, number: Count, first: Count, end: Count, base: Tree, moving: Params, optimiser: Any
    ) -> tuple[Params, Any]:
        """Take the training steps from `first` up to `end` on the samples of chunk `number`.

        The parameters are `position(base, moving)`. Returns `moving` and the state of the optimiser
        as they are then.
        """

    @abc.abstractmethod
    def to_user(self, params: Params) -> Params:
        """Return the parameters of a state in the shapes that the user knows."""

    def record(self, stops: Int[Array, " T"]) -> tuple[Params, Count]:
        """Return the parameters (T, ...) after so many training steps, and the steps taken."""

        def to_stop(state: RunState, stop: Count) -> tuple[RunState, Params]:
            state = self.advance(state, stop)
            return state, self.parameters(state)

        state, ys = jax.lax.scan(to_stop, self.begin(), stops)
        return ys, state.step

    def advance(self, state: RunState, stop: Count) -> RunState:
        """Take training steps up to number `stop`. Side by side, `stop` and `state.step` may have
        an axis of runs."""

        def one_chunk(state: RunState) -> RunState:
            number = state.step // self.chunk_length
            start = number * self.chunk_length
            end = jnp.minimum(stop, start + self.chunk_length)
            part = (number, state.step - start, end - start)
            if state.moved is None:
                params, optimiser = self.advance_in_chunk(
                    *part, None, state.params, state.optimiser
                )
                return RunState(params, None, optimiser, end)
            base, moving = _begun(state, state.step == start)
            moving, optimiser = self.advance_in_chunk(*part, base, moving, state.optimiser)
            return RunState(Params(moving.a, base), moving.u, optimiser, end)

        return jax.lax.while_loop(lambda s: jnp.any(s.step < stop), one_chunk, state)

    def parameters(self, state: RunState) -> Params:
        """Return the parameters that a state stands for, as the user knows them."""
        params = state.params
        if state.moved is not None:
            params = Params(params.a, _absorbed(state)[0])
        return self.to_user(params)


class AbstractLoopedRun(AbstractRun):
    """What advances a run, or many, by a loop of XLA over the samples of a chunk."""

    @abc.abstractmethod
    def samples(self, number: Count) -> tuple[Array, ...]:
        """Return what the loss is given at each step of a chunk, (chunk_length, ...) each."""

    @abc.abstractmethod
    def gradient(self) -> Callable[..., Any]:
        """Return what `update` needs of the loss, as a function of parameters and a sample."""

    @abc.abstractmethod
    def update(self, gradient: Any, params: Params, optimiser: Any) -> tuple[Params, Any]:
        """Return what is added to the parameters, and the next state of the optimiser."""

    def advance_in_chunk(
        self, number: Count, first: Count, end: Count, base: Tree, moving: Params, optimiser: Any
    ) -> tuple[Params, Any]:
        samples, gradient = self.samples(number), self.gradient()

        def one_step(i: Count, state: tuple[Params, Any]) -> tuple[Params, Any]:
            return self.training_step(gradient, base, *state, *(v[i] for v in samples))

        return jax.lax.fori_loop(first, end, one_step, (moving, optimiser))

    def training_step(
        self,
        gradient: Callable[..., Any],
        base: Tree,
        moving: Params,
        optimiser: Any,
        *sample: Array,
    ) -> tuple[Params, Any]:
        """Return what moves, and the state of the optimiser, after a training step."""
        params = position(base, moving)
        change, optimiser = self.update(gradient(params, *sample), params, optimiser)
        return jax.tree.map(jnp.add, moving, change), optimiser


def position(base: Tree, moving: Params) -> Params:
    """Return the parameters inside a chunk: `moving`, and in float32 `base` for u, from which
    `moving.u` counts."""
    if base is None:
        return moving
    return Params(moving.a, jax.tree.map(jnp.add, base, moving.u))


def _begun(state: RunState, is_new_chunk: Array) -> tuple[Tree, Params]:
    """Return base and what moves inside a chunk: a new one begins with u moved by what was added
    up."""
    (a, u), moved = state.params, state.moved
    base, moved = jax.tree.map(
        lambda new, old: jnp.where(is_new_chunk, new, old), _absorbed(state), (u, moved)
    )
    return base, Params(a, moved)


def _absorbed(state: RunState) -> tuple[Tree, Tree]:
    """Return u + moved, rounded, and what the rounding left."""

    def total(u: Array, moved: Array) -> Array:
        return u.astype(jnp.float64) + moved.astype(jnp.float64)

    def left(u: Array, moved: Array) -> Array:
        exact = total(u, moved)
        return (exact - exact.astype(u.dtype).astype(jnp.float64)).astype(u.dtype)

    u, moved = state.params.u, state.moved
    rounded = jax.tree.map(lambda u, moved: total(u, moved).astype(u.dtype), u, moved)
    return rounded, jax.tree.map(left, u, moved)
