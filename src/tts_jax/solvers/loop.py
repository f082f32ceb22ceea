"""Adaptive steps of the Rosenbrock method, recorded on the way, as one loop.

In a loop small enough for XLA on a CPU to compile as one piece; `Rodas5P` is the same step for
diffrax.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Bool, Scalar, Times, Tree, put
from .rosenbrock import (
    ORDER,
    AbstractMotion,
    Step,
    interpolate,
    last_stage,
)

_SAFETY, _SMALLEST, _LARGEST = 0.85, 0.2, 6.0
_PROPORTIONAL, _INTEGRAL = 0.4 / ORDER, 1.0 / ORDER


class Control(NamedTuple):
    """What an adaptive run is asked: where it ends, its tolerances and its patience."""

    horizon: Scalar
    rtol: Scalar
    atol: Scalar
    max_steps: Array


class Now(NamedTuple):
    """Where a run stands: time, state, next step size, last error, and counts; whether it is lost,
    the force being infinite or NaN where the last step began."""

    t: Scalar
    y: Tree
    h: Scalar
    error: Scalar
    steps: Array
    accepted: Array
    lost: Bool[Array, ""]


class Records(NamedTuple):
    """States at the recorded times, with a leading axis, and how many of them are reached."""

    ys: Tree
    reached: Array


def begin(system: AbstractMotion, y: Tree, control: Control) -> Now:
    none = jnp.zeros((), jnp.int32)
    guess, velocity = _first_step(system, y, control)
    h = jnp.minimum(guess, control.horizon)
    lost = ~all_finite(velocity)
    return Now(jnp.zeros_like(control.horizon), y, h, jnp.ones_like(h), none, none, lost)


def going(now: Now, control: Control) -> Array:
    # Steps under the resolution of the clock would leave it standing still.
    moving = now.h > 2.0**-50 * control.horizon
    return (now.t < control.horizon) & (now.steps < control.max_steps) & moving


def next_size(now: Now, control: Control) -> tuple[Scalar, Scalar]:
    """The size of the step to be tried from here, and when it ends: at the horizon at latest."""
    last = now.t + now.h >= control.horizon
    h = jnp.where(last, control.horizon - now.t, now.h)
    return h, jnp.where(last, control.horizon, now.t + h)


def attempt(system: AbstractMotion, now: Now, control: Control) -> tuple[Array, Scalar, Step, Now]:
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
    # A proportional-integral controller; after a rejection only the new error counts. With less
    # weight on the new error steps grow too late behind a kink, and more of them are needed for the
    # same achieved error; the safety factor keeps that error near the tolerance.
    grown = _SAFETY * error ** (-_INTEGRAL) * now.error**_PROPORTIONAL
    shrunk = _SAFETY * error ** (-1.0 / ORDER)
    factor = jnp.where(
        good, jnp.clip(grown, _SMALLEST, _LARGEST), jnp.clip(shrunk, 0.5 * _SMALLEST, 1.0)
    )
    ahead = Now(
        t=end,
        y=step.after,
        h=h * factor,
        error=jnp.maximum(error, 1e-4),
        steps=now.steps + 1,
        accepted=now.accepted + 1,
        lost=lost,
    )
    back = now._replace(h=h * factor, steps=now.steps + 1, lost=lost)
    return good, h, step, jax.tree.map(lambda a, b: jnp.where(good, a, b), ahead, back)


def record(
    records: Records, taus: Times, before: Now, after: Now, h: Scalar, step: Step
) -> Records:
    """Add the times that a step from `before` to `after` has passed (none if it was rejected)."""

    def due(records: Records) -> Array:
        i = jnp.minimum(records.reached, taus.size - 1)
        return (records.reached < taus.size) & (pick(taus, i) <= after.t)

    def add(records: Records) -> Records:
        part = (pick(taus, records.reached) - before.t) / h
        y = interpolate(before.y, step, part)
        ys = jax.tree.map(lambda all_, one: put(all_, records.reached, one), records.ys, y)
        return Records(ys, records.reached + 1)

    return jax.lax.while_loop(due, add, records)


def begin_records(y: Tree, taus: Times) -> Records:
    """Nothing recorded but the start, if it is asked for."""
    ys = jax.tree.map(lambda leaf: jnp.full((taus.size, *leaf.shape), jnp.nan, leaf.dtype), y)
    at_start = taus[0] <= 0
    ys = jax.tree.map(lambda all_, one: put(all_, 0, jnp.where(at_start, one, jnp.nan)), ys, y)
    return Records(ys, at_start.astype(jnp.int32))


def run(system: AbstractMotion, y: Tree, taus: Times, control: Control) -> tuple[Records, Now]:
    """From y at time 0 to the last of `taus`, recorded at `taus`; NaN where it did not get to."""

    def body(state: tuple[Now, Records]) -> tuple[Now, Records]:
        before, records = state
        _, h, step, after = attempt(system, before, control)
        return after, record(records, taus, before, after, h, step)

    start = (begin(system, y, control), begin_records(y, taus))
    now, records = jax.lax.while_loop(lambda state: going(state[0], control), body, start)
    return records, now


def pick(rows: Array, i: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(rows, i, 0, False)


def all_finite(tree: Tree) -> Bool[Array, ""]:
    """Whether no number in the tree is infinite or NaN."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _first_step(system: AbstractMotion, y: Tree, control: Control) -> tuple[Scalar, Tree]:
    """A guess of the first step size, and the velocity at y.

    Source: E. Hairer, S. P. Norsett, G. Wanner, Solving Ordinary Differential Equations I, II.4.
    """

    def size(leaf: Tree) -> Scalar:
        return system.error(leaf, y, y, control.rtol, control.atol)

    def look(turn: Array, found: tuple[Tree, Tree, Scalar]) -> tuple[Tree, Tree, Scalar]:
        del turn  # twice, in a loop: what is written twice is compiled twice
        velocity, _, short = found
        ahead = jax.tree.map(lambda a, b: a + short * b, y, velocity)
        now = system.velocity(ahead)
        speed = jnp.maximum(size(now), 1e-15)
        return now, velocity, jnp.where(short > 0, short, 0.01 * jnp.maximum(size(y), 1.0) / speed)

    still = jax.tree.map(jnp.zeros_like, y)
    ahead, velocity, short = jax.lax.fori_loop(
        0, 2, look, (still, still, jnp.zeros_like(control.rtol))
    )
    speed = jnp.maximum(size(velocity), 1e-15)
    bend = size(jax.tree.map(jnp.subtract, ahead, velocity)) / short
    guess = (0.01 / jnp.maximum(speed, bend)) ** (1.0 / (ORDER + 1))
    return jax.lax.stop_gradient(jnp.minimum(100.0 * short, guess)), velocity
