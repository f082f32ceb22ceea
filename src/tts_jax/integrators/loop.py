"""Adaptive steps of the Rosenbrock method, recorded on the way, as one loop.

In a loop small enough for XLA on a CPU to compile as one piece; `Rodas5P` is the same step for
diffrax.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Bool, Scalar, Times, Tree, put
from .rosenbrock import AbstractSystem, SolverStep, interpolate, last_stage
from .step_size import StepControl, all_finite, first_step, resized


class LoopState(NamedTuple):
    """Where a run stands: time, state, next step size, last error, and counts; whether it is lost,
    the force being infinite or NaN where the last step began."""

    t: Scalar
    y: Tree
    h: Scalar
    error: Scalar
    steps: Array
    accepted: Array
    lost: Bool[Array, ""]


class RecordedStates(NamedTuple):
    """States at the recorded times, with a leading axis, and how many of them are reached."""

    ys: Tree
    reached: Array


def initial_state(system: AbstractSystem, y: Tree, control: StepControl) -> LoopState:
    none = jnp.zeros((), jnp.int32)
    guess, velocity = first_step(system, y, control)
    h = jnp.minimum(guess, control.horizon)
    lost = ~all_finite(velocity)
    return LoopState(jnp.zeros_like(control.horizon), y, h, jnp.ones_like(h), none, none, lost)


def is_running(now: LoopState, control: StepControl) -> Array:
    # Steps under the resolution of the clock would leave it standing still.
    moving = now.h > 2.0**-50 * control.horizon
    return (now.t < control.horizon) & (now.steps < control.max_steps) & moving


def next_size(now: LoopState, control: StepControl) -> tuple[Scalar, Scalar]:
    """The size of the step to be tried from here, and when it ends: at the horizon at latest."""
    last = now.t + now.h >= control.horizon
    h = jnp.where(last, control.horizon - now.t, now.h)
    return h, jnp.where(last, control.horizon, now.t + h)


def try_step(
    system: AbstractSystem, now: LoopState, control: StepControl
) -> tuple[Array, Scalar, SolverStep, LoopState]:
    """Try one step: whether it is accepted, its size, the step, and where that leads."""
    h, end = next_size(now, control)
    step = system.step(now.y, h)
    error = system.error(last_stage(step), now.y, step.after, control.rtol, control.atol)
    # The steps are chosen, not computed: derivatives are those of the solution, at these steps.
    error = jax.lax.stop_gradient(error)
    error = jnp.where(jnp.isfinite(error), jnp.maximum(error, 1e-6), 1e6)
    # The first stage is the force where the step begins, divided by its matrix.
    lost = ~all_finite(jax.tree.map(lambda leaf: leaf[0], step.stages))
    good = error <= 1.0
    next_h = resized(h, error, now.error, good)
    ahead = LoopState(
        t=end,
        y=step.after,
        h=next_h,
        error=jnp.maximum(error, 1e-4),
        steps=now.steps + 1,
        accepted=now.accepted + 1,
        lost=lost,
    )
    back = now._replace(h=next_h, steps=now.steps + 1, lost=lost)
    return good, h, step, jax.tree.map(lambda a, b: jnp.where(good, a, b), ahead, back)


def record(
    records: RecordedStates,
    taus: Times,
    before: LoopState,
    after: LoopState,
    h: Scalar,
    step: SolverStep,
) -> RecordedStates:
    """Add the times that a step from `before` to `after` has passed (none if it was rejected)."""

    def due(records: RecordedStates) -> Array:
        i = jnp.minimum(records.reached, taus.size - 1)
        return (records.reached < taus.size) & (pick(taus, i) <= after.t)

    def add(records: RecordedStates) -> RecordedStates:
        part = (pick(taus, records.reached) - before.t) / h
        y = interpolate(before.y, step, part)
        ys = jax.tree.map(lambda all_, one: put(all_, records.reached, one), records.ys, y)
        return RecordedStates(ys, records.reached + 1)

    return jax.lax.while_loop(due, add, records)


def empty_records(y: Tree, taus: Times) -> RecordedStates:
    """Nothing recorded but the start, if it is asked for."""
    ys = jax.tree.map(lambda leaf: jnp.full((taus.size, *leaf.shape), jnp.nan, leaf.dtype), y)
    at_start = taus[0] <= 0
    ys = jax.tree.map(lambda all_, one: put(all_, 0, jnp.where(at_start, one, jnp.nan)), ys, y)
    return RecordedStates(ys, at_start.astype(jnp.int32))


def run(
    system: AbstractSystem, y: Tree, taus: Times, control: StepControl
) -> tuple[RecordedStates, LoopState]:
    """From y at time 0 to the last of `taus`, recorded at `taus`; NaN where it did not get to."""

    def body(state: tuple[LoopState, RecordedStates]) -> tuple[LoopState, RecordedStates]:
        before, records = state
        _, h, step, after = try_step(system, before, control)
        return after, record(records, taus, before, after, h, step)

    start = (initial_state(system, y, control), empty_records(y, taus))
    now, records = jax.lax.while_loop(lambda state: is_running(state[0], control), body, start)
    return records, now


def pick(rows: Array, i: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(rows, i, 0, False)
