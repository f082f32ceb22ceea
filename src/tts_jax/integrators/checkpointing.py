"""Derivatives of a run, forward and reverse, from the steps that it took.

Forward, the derivative goes through the loop beside the state. In reverse the run is made once more
for checkpoints, of which there is a fixed number however many steps there are. Where several steps
lie between two of them, these are repeated and stored; then steps are pulled back one by one: those
of a symmetric system as `adjoint` says, others by autodiff.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from .._types import Array, Scalar, Times, Tree, put
from ..batching.sequential import one_by_one
from .lane_queue import run_queued
from .loop import (
    LoopState,
    empty_records,
    initial_state,
    is_running,
    next_size,
    pick,
    record,
    run,
    try_step,
)
from .rosenbrock import AbstractSystem, interpolate
from .step_adjoint import AbstractSymmetricSystem, pull_step
from .step_size import StepControl

_CHECKPOINTS = 1024


def differentiable_run(
    system: AbstractSystem, y: Tree, taus: Times, control: StepControl, max_steps: int
) -> tuple[Tree, LoopState]:
    """`loop.run`, differentiable in y and the numbers of the system: states at `taus`, and the end.

    The recorded times and the tolerances count as fixed, and so does the end (where a failed run
    stopped). Under `jax.vmap` every run has its own steps: on a CPU one run follows the other,
    elsewhere they stand in a queue for lanes side by side.
    """
    numbers, rest = eqx.partition(system, eqx.is_inexact_array)

    def whole(numbers: Tree) -> AbstractSystem:
        return eqx.combine(numbers, rest)

    def plain(
        inputs: tuple[Tree, Tree], taus: Times, control: StepControl
    ) -> tuple[Tree, LoopState]:
        records, now = run(whole(inputs[0]), inputs[1], taus, control)
        return records.ys, now

    def queued(given: Callable, own: list[Array]) -> tuple[Tree, LoopState]:
        def start(each: list[Array]) -> tuple[AbstractSystem, Tree, Times, StepControl]:
            (numbers, y), taus, control = given(each)
            return whole(numbers), y, taus, control

        return run_queued(start, own)

    @jax.custom_jvp
    def runner(
        inputs: tuple[Tree, Tree], taus: Times, control: StepControl
    ) -> tuple[Tree, LoopState]:
        return one_by_one(plain, queued)(inputs, taus, control)

    def rule(primals: tuple, tangents: tuple) -> tuple:
        # Only by the numbers that are asked for: `derivative` in benchmarks/flows.py has the gain.
        asked = jax.tree.map(lambda leaf: not isinstance(leaf, SymbolicZero), tangents[0][0])

        def forward(inputs: Tree, taus: Times, control: StepControl, tangents: Tree) -> Tree:
            some, fixed = eqx.partition(inputs[0], asked)

            def run_from(some: Tree, y: Tree) -> Tree:
                return plain((eqx.combine(some, fixed), y), taus, control)[0]

            return jax.jvp(run_from, (some, inputs[1]), tangents)[1]

        def reverse(inputs: Tree, taus: Times, control: StepControl, cotangents: Tree) -> Tree:
            some, fixed = eqx.partition(inputs[0], asked)

            def system_of(some: Tree) -> AbstractSystem:
                return whole(eqx.combine(some, fixed))

            return _pull_back(system_of, (some, inputs[1]), taus, control, cotangents, max_steps)

        def as_array(tangent: Any, leaf: Array) -> Array:
            return jnp.zeros_like(leaf) if isinstance(tangent, SymbolicZero) else tangent

        by_start = jax.tree.map(as_array, tangents[0][1], primals[0][1])
        ys, now = runner(*primals)
        given = _once(primals)
        moved = _linear(
            lambda d: one_by_one(forward)(*given, d),
            lambda d: one_by_one(reverse)(*given, d),
            (eqx.filter(tangents[0][0], asked), by_start),
            jax.tree.map(jnp.zeros_like, ys),
        )
        return (ys, now), (moved, jax.tree.map(_no_tangent, now))

    runner.defjvp(rule, symbolic_zeros=True)
    return runner((numbers, y), taus, control)


def _no_tangent(leaf: Array) -> Any:
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return np.zeros(leaf.shape, jax.dtypes.float0)


def _linear(forward: Callable, reverse: Callable, tangents: Tree, nothing: Tree) -> Tree:
    """`forward(tangents)` for a linear function whose transpose is `reverse`.

    As the solution (d, out) of d = tangents, out - forward(d) = 0: what JAX has for linear solves
    knows both directions, and vmap.
    """
    # To be transposed, all of the right-hand side must depend on the tangents, if only by a zero.
    zero = sum(0.0 * jnp.sum(leaf) for leaf in jax.tree.leaves(tangents))
    right = jax.tree.map(lambda leaf: leaf + zero, (tangents, nothing))
    return jax.lax.custom_linear_solve(
        lambda both: both,
        right,
        lambda _, both: (both[0], jax.tree.map(jnp.add, both[1], forward(both[0]))),
        lambda _, both: (jax.tree.map(jnp.add, both[0], reverse(both[1])), both[1]),
    )[1]


@jax.custom_jvp
def _once(primals: Tree) -> Tree:
    return primals


@_once.defjvp
def _(primals: Any, tangents: Any) -> Any:
    raise NotImplementedError(
        "Second derivatives of a run are not there. Differentiate a first derivative by finite "
        "differences, or name a diffrax solver with an adjoint that has them."
    )


class _Saved(NamedTuple):
    """Checkpoints: `stride` accepted steps apart, `kept` of them, with records made before."""

    now: LoopState
    recorded: Array
    kept: Array
    stride: Array


class _Taken(NamedTuple):
    """Steps between two checkpoints: their start, size, and the records made before them."""

    t: Array
    h: Array
    y: Tree
    recorded: Array


def _checkpoints(system: AbstractSystem, y: Tree, taus: Times, control: StepControl) -> tuple:
    """Run, and keep states on the way."""
    none = jnp.zeros((), jnp.int32)
    first = initial_state(system, y, control)
    rows = jax.tree.map(lambda leaf: jnp.zeros((_CHECKPOINTS, *leaf.shape), leaf.dtype), first)
    saved = _Saved(rows, jnp.zeros(_CHECKPOINTS, jnp.int32), none, none + 1)

    def save(saved: _Saved, now: LoopState, recorded: Array) -> _Saved:
        rows = jax.tree.map(lambda all_, one: put(all_, saved.kept, one), saved.now, now)
        marks = put(saved.recorded, saved.kept, recorded)
        return _Saved(rows, marks, saved.kept + 1, saved.stride)

    def thin(saved: _Saved) -> _Saved:
        half = _CHECKPOINTS // 2
        now, recorded = jax.tree.map(
            lambda leaf: jnp.concatenate([leaf[::2], jnp.zeros_like(leaf[half:])]),
            (saved.now, saved.recorded),
        )
        return _Saved(now, recorded, saved.kept // 2, 2 * saved.stride)

    def body(state: tuple) -> tuple:
        before, records, saved = state
        good, h, step, after = try_step(system, before, control)
        saved = jax.lax.cond(saved.kept == _CHECKPOINTS, thin, lambda s: s, saved)
        # Only from where a step is accepted: its size stands there, too.
        due = good & (before.accepted >= saved.kept * saved.stride)
        saved = jax.lax.cond(due, lambda s: save(s, before, records.reached), lambda s: s, saved)
        return after, record(records, taus, before, after, h, step), saved

    now, records, saved = jax.lax.while_loop(
        lambda state: is_running(state[0], control), body, (first, empty_records(y, taus), saved)
    )
    return saved, now.accepted, records.reached


def _pull_back(
    whole: Callable,
    inputs: Tree,
    taus: Times,
    control: StepControl,
    cotangents: Tree,
    max_steps: int,
) -> Tree:
    """Cotangents of the numbers and of the start, from those of the states at `taus`."""
    numbers, y = inputs
    system = whole(numbers)
    saved, accepted, recorded = _checkpoints(system, y, taus, control)
    # A stride is a power of two, and at most twice what would fill all checkpoints.
    longest = 2 ** max(0, int(np.ceil(np.log2(2 * max_steps / _CHECKPOINTS))))

    def stretch(back: Array, state: tuple) -> tuple:
        """Repeat the steps from one checkpoint to the next, and pull them back."""
        # Side by side, runs that have no stretch left repeat their first one, for nothing: what
        # stands at a negative place is no start, and would never come to an end.
        place = jnp.maximum(saved.kept - 1 - back, 0)
        start = jax.tree.map(lambda rows: pick(rows, place), saved.now)
        end = jnp.minimum(start.accepted + saved.stride, accepted)
        steps = end - start.accepted

        def passed(time: Scalar) -> Array:
            return jnp.sum(taus <= time).astype(jnp.int32)

        def repeat(inner: tuple) -> tuple:
            before, taken, marks = inner
            good, h, _, after = try_step(system, before, control)
            i = jnp.minimum(before.accepted - start.accepted, longest - 1)
            # A rejected step writes where the accepted one after it will.
            taken = _Taken(
                put(taken.t, i, before.t),
                put(taken.h, i, h),
                jax.tree.map(lambda all_, one: put(all_, i, one), taken.y, before.y),
                put(taken.recorded, i, marks),
            )
            return after, taken, jnp.where(good, passed(after.t), marks)

        # A step alone need not be repeated to be known.
        h, there = next_size(start, control)
        alone = _Taken(start.t, h, start.y, pick(saved.recorded, place))
        marks = jnp.where(steps > 1, alone.recorded, passed(there))
        _, taken, marks = jax.lax.while_loop(
            lambda s: (s[0].accepted < end) & (steps > 1), repeat, (start, state[3], marks)
        )

        def step_back(i: Array, state: tuple) -> tuple:
            by_numbers, by_y, later = state
            at = jax.tree.map(
                lambda one, rows: jnp.where(steps > 1, pick(rows, steps - 1 - i), one), alone, taken
            )
            if isinstance(system, AbstractSymmetricSystem):
                step, pull = pull_step(whole, numbers, at.y, at.h)
            else:
                step, pull = jax.vjp(lambda n, y: whole(n).step(y, at.h), numbers, at.y)

            def one_record(j: Array, ct: tuple) -> tuple:
                part = (pick(taus, j) - at.t) / at.h
                _, pull_record = jax.vjp(lambda y, s: interpolate(y, s, part), at.y, step)
                given = jax.tree.map(lambda rows: pick(rows, j), cotangents)
                return jax.tree.map(jnp.add, ct, pull_record(given))

            none = jax.tree.map(jnp.zeros_like, (at.y, step))
            ct = (none[0], none[1]._replace(after=by_y))
            ct = jax.lax.fori_loop(at.recorded, later, one_record, ct)
            more, through = pull(ct[1])
            total = jax.tree.map(jnp.add, by_numbers, more)
            return total, jax.tree.map(jnp.add, ct[0], through), at.recorded

        return *jax.lax.fori_loop(0, steps, step_back, (*state[:2], marks)), taken

    nothing = jax.tree.map(jnp.zeros_like, (numbers, y))
    # Filled anew in every stretch, but made only once.
    rows = jax.tree.map(lambda leaf: jnp.zeros((longest, *leaf.shape), leaf.dtype), y)
    sizes = jnp.zeros(longest)
    taken = _Taken(sizes, sizes, rows, jnp.zeros(longest, jnp.int32))
    state = jax.lax.fori_loop(0, saved.kept, stretch, (*nothing, recorded, taken))
    at_start = jax.tree.map(lambda rows: jnp.where(taus[0] <= 0, rows[0], 0.0), cotangents)
    return state[0], jax.tree.map(jnp.add, state[1], at_start)
