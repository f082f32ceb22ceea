"""Adaptive steps of a method, with records on the way, as one loop.

The loop is small enough for XLA on a CPU to compile it into one kernel. `Rodas5P` offers the step
as a solver of diffrax.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Bool, Scalar, Times, Tree, pick, put, varying_as
from .rosenbrock import AbstractSystem
from .step_size import StepControl, all_finite, resized


class LoopState(NamedTuple):
    """Where a run stands: time, state, next step size, error norm of the last accepted step, and
    counts. `lost`: whether the vector field was infinite or NaN where the last step began."""

    t: Scalar
    y: Tree
    h: Scalar
    error: Scalar
    steps: Array
    accepted: Array
    lost: Bool[Array, ""]


class RecordedStates(NamedTuple):
    """States at the recorded times, with a leading axis (T,), and how many times are reached."""

    ys: Tree
    reached: Array


def initial_state(system: AbstractSystem, y: Tree, control: StepControl) -> LoopState:
    """Return the state of a run at time 0, with a guess of its first step size."""
    zero = varying_as((y, control), jnp.zeros((), jnp.int32))
    guess, velocity = system.first_step(y, control.rtol, control.atol)
    h = jnp.minimum(guess, control.horizon)
    lost = ~all_finite(velocity)
    return LoopState(jnp.zeros_like(control.horizon), y, h, jnp.ones_like(h), zero, zero, lost)


def is_running(now: LoopState, control: StepControl) -> Array:
    """Return whether a run goes on: time and steps are left, and the clock would advance."""
    # Adding a smaller step to the time would round to the time itself.
    moving = now.h > 2.0**-50 * control.horizon
    return (now.t < control.horizon) & (now.steps < control.max_steps) & moving


def next_size(now: LoopState, control: StepControl) -> tuple[Scalar, Scalar]:
    """Return the size of the next step to try, and the time at its end, the horizon at latest."""
    last = now.t + now.h >= control.horizon
    h = jnp.where(last, control.horizon - now.t, now.h)
    return h, jnp.where(last, control.horizon, now.t + h)


def try_step(
    system: AbstractSystem, now: LoopState, control: StepControl
) -> tuple[Array, Scalar, Any, LoopState]:
    """Try one step. Return whether it is accepted, its size, the step, and the state after it.

    After a rejected step that is the state before it, with a smaller step size.
    """
    h, end = next_size(now, control)
    step = system.step(now.y, h)
    error = system.step_error(step, now.y, control.rtol, control.atol)
    # Step sizes count as constants: derivatives are those of the solution, for these steps.
    error = jax.lax.stop_gradient(error)
    error = jnp.where(jnp.isfinite(error), jnp.maximum(error, 1e-6), 1e6)
    lost = ~all_finite(system.field_at_start(step))
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
    y = system.after_rejection(now.y, step)
    back = now._replace(y=y, h=next_h, steps=now.steps + 1, lost=lost)
    return good, h, step, jax.tree.map(lambda a, b: jnp.where(good, a, b), ahead, back)


def record(
    system: AbstractSystem,
    records: RecordedStates,
    taus: Times,
    before: LoopState,
    after: LoopState,
    h: Scalar,
    step: Any,
) -> RecordedStates:
    """Return the records with the times that a step has passed, none if it was rejected.

    The step, of size h, leads from `before` to `after`.
    """

    def due(records: RecordedStates) -> Array:
        i = jnp.minimum(records.reached, taus.size - 1)
        return (records.reached < taus.size) & (pick(taus, i) <= after.t)

    def add(records: RecordedStates) -> RecordedStates:
        part = (pick(taus, records.reached) - before.t) / h
        y = system.interpolate(before.y, step, part)
        ys = jax.tree.map(lambda rows, row: put(rows, records.reached, row), records.ys, y)
        return RecordedStates(ys, records.reached + 1)

    return jax.lax.while_loop(due, add, records)


def empty_records(system: AbstractSystem, y: Tree, taus: Times) -> RecordedStates:
    """Return records that are NaN, except for the start y if the first of `taus` is 0."""
    y = system.recorded(y)
    ys = jax.tree.map(lambda leaf: jnp.full((taus.size, *leaf.shape), jnp.nan, leaf.dtype), y)
    at_start = taus[0] <= 0
    ys = jax.tree.map(lambda rows, row: put(rows, 0, jnp.where(at_start, row, jnp.nan)), ys, y)
    return RecordedStates(ys, at_start.astype(jnp.int32))


def run(
    system: AbstractSystem, y: Tree, taus: Times, control: StepControl
) -> tuple[RecordedStates, LoopState]:
    """Run from y at time 0 to the last of `taus`. Return the records at `taus` and the end.

    Records of times that the run did not reach are NaN.
    """

    def body(state: tuple[LoopState, RecordedStates]) -> tuple[LoopState, RecordedStates]:
        before, records = state
        _, h, step, after = try_step(system, before, control)
        return after, record(system, records, taus, before, after, h, step)

    start = (initial_state(system, y, control), empty_records(system, y, taus))
    now, records = jax.lax.while_loop(lambda state: is_running(state[0], control), body, start)
    return records, now
