"""Derivatives of a run, forward and reverse, from the steps that it took.

In forward mode the tangents go through the loop beside the state. In reverse mode the run is made
once more and keeps checkpoints, whose number is fixed however many steps there are. From the last
checkpoint to the first, the steps of the segment behind it are repeated and stored, and the
cotangents go back through them one by one: by `step_adjoint` for a symmetric system, else by
autodiff.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero, zero_from_primal

from .._types import Array, Scalar, Times, Tree, pick, put, varying_as
from ..batching.sequential import one_by_one
from .lane_queue import run_queued
from .loop import (
    LoopState,
    empty_records,
    initial_state,
    is_running,
    next_size,
    record,
    run,
    try_step,
)
from .rosenbrock import AbstractSystem
from .step_adjoint import AbstractSymmetricSystem, pull_step
from .step_size import StepControl

_CHECKPOINTS = 1024
"""How many checkpoints of a run are kept at most; an even number."""


def differentiable_run(
    system: AbstractSystem, y: Tree, taus: Times, control: StepControl, max_steps: int
) -> tuple[Tree, LoopState]:
    """Return the states at `taus` and the end of `loop.run`, differentiable in y and the system.

    The recorded times and the tolerances count as fixed, and so does the end (where a failed run
    stopped). Under `jax.vmap` every run has its own steps: on a CPU one run follows the other, on
    other devices runs wait in a queue for lanes side by side.
    """
    numbers, static = eqx.partition(system, eqx.is_inexact_array)

    def system_of(numbers: Tree) -> AbstractSystem:
        return eqx.combine(numbers, static)

    def plain(
        inputs: tuple[Tree, Tree], taus: Times, control: StepControl
    ) -> tuple[Tree, LoopState]:
        records, now = run(system_of(inputs[0]), inputs[1], taus, control)
        return records.ys, now

    def queued(arguments_of: Callable, batched_leaves: list[Array]) -> tuple[Tree, LoopState]:
        def loop_arguments(
            leaves_of_run: list[Array],
        ) -> tuple[AbstractSystem, Tree, Times, StepControl]:
            (numbers, y), taus, control = arguments_of(leaves_of_run)
            return system_of(numbers), y, taus, control

        return run_queued(loop_arguments, batched_leaves)

    @jax.custom_jvp
    def runner(
        inputs: tuple[Tree, Tree], taus: Times, control: StepControl
    ) -> tuple[Tree, LoopState]:
        return one_by_one(plain, queued)(inputs, taus, control)

    def rule(primals: tuple, tangents: tuple) -> tuple:
        # Only by the numbers that have a tangent: `derivative` in benchmarks/flows.py measures what
        # that saves.
        has_tangent = jax.tree.map(lambda leaf: not isinstance(leaf, SymbolicZero), tangents[0][0])

        def forward(inputs: Tree, taus: Times, control: StepControl, tangents: Tree) -> Tree:
            varied, fixed = eqx.partition(inputs[0], has_tangent)

            def run_from(varied: Tree, y: Tree) -> Tree:
                return plain((eqx.combine(varied, fixed), y), taus, control)[0]

            return jax.jvp(run_from, (varied, inputs[1]), tangents)[1]

        def reverse(inputs: Tree, taus: Times, control: StepControl, cotangents: Tree) -> Tree:
            varied, fixed = eqx.partition(inputs[0], has_tangent)

            def varied_system(varied: Tree) -> AbstractSystem:
                return system_of(eqx.combine(varied, fixed))

            return _pull_back(
                varied_system, (varied, inputs[1]), taus, control, cotangents, max_steps
            )

        def as_array(tangent: Any, leaf: Array) -> Array:
            return jnp.zeros_like(leaf) if isinstance(tangent, SymbolicZero) else tangent

        start_tangent = jax.tree.map(as_array, tangents[0][1], primals[0][1])
        ys, now = runner(*primals)
        arguments = _differentiable_once(primals)
        ys_tangent = _linear(
            lambda d: one_by_one(forward)(*arguments, d),
            lambda d: one_by_one(reverse)(*arguments, d),
            (eqx.filter(tangents[0][0], has_tangent), start_tangent),
            jax.tree.map(jnp.zeros_like, ys),
        )
        return (ys, now), (ys_tangent, jax.tree.map(_no_tangent, now))

    runner.defjvp(rule, symbolic_zeros=True)
    return runner((numbers, y), taus, control)


def _no_tangent(leaf: Array) -> Any:
    return zero_from_primal(leaf, symbolic_zeros=True)


def _linear(forward: Callable, reverse: Callable, tangents: Tree, zeros: Tree) -> Tree:
    """Return `forward(tangents)` for a linear function whose transpose is `reverse`.

    JAX has no rule for both directions of a function, but one for a linear solve, which also works
    under vmap: so the result is the `out` of the solution (d, out) of d = tangents,
    out - forward(d) = 0. `zeros` is a tree like the result.
    """
    # To be transposed, all of the right-hand side must depend on the tangents, if only by a zero.
    zero = sum(0.0 * jnp.sum(leaf) for leaf in jax.tree.leaves(tangents))
    right = jax.tree.map(lambda leaf: leaf + zero, (tangents, zeros))
    return jax.lax.custom_linear_solve(
        lambda pair: pair,
        right,
        lambda _, pair: (pair[0], jax.tree.map(jnp.add, pair[1], forward(pair[0]))),
        lambda _, pair: (jax.tree.map(jnp.add, pair[0], reverse(pair[1])), pair[1]),
    )[1]


@jax.custom_jvp
def _differentiable_once(primals: Tree) -> Tree:
    """Return the primals; to differentiate them raises the error about second derivatives."""
    return primals


@_differentiable_once.defjvp
def _(primals: Any, tangents: Any) -> Any:
    raise NotImplementedError(
        "Second derivatives of a run are not there. Differentiate a first derivative by finite "
        "differences, or name a diffrax solver with an adjoint that has them."
    )


class _Checkpoints(NamedTuple):
    """States of a run, on the leading axis, `stride` accepted steps apart; `size` of them exist.

    `recorded`: how many times had been recorded before each.
    """

    now: LoopState
    recorded: Array
    size: Array
    stride: Array


class _Segment(NamedTuple):
    """The accepted steps from one checkpoint to the next, on the leading axis.

    Where and from which state each starts, its size, and how many times had been recorded before.
    """

    t: Array
    h: Array
    y: Tree
    recorded: Array


def _run_with_checkpoints(
    system: AbstractSystem, y: Tree, taus: Times, control: StepControl
) -> tuple[_Checkpoints, Array, Array]:
    """Run, and return checkpoints, the number of accepted steps, and that of recorded times."""
    zero = jnp.zeros((), jnp.int32)
    first = initial_state(system, y, control)
    rows = jax.tree.map(lambda leaf: jnp.zeros((_CHECKPOINTS, *leaf.shape), leaf.dtype), first)
    saved = _Checkpoints(rows, jnp.zeros(_CHECKPOINTS, jnp.int32), zero, zero + 1)
    saved = varying_as(first, saved)

    def save(saved: _Checkpoints, now: LoopState, recorded: Array) -> _Checkpoints:
        rows = jax.tree.map(lambda rows, row: put(rows, saved.size, row), saved.now, now)
        counts = put(saved.recorded, saved.size, recorded)
        return _Checkpoints(rows, counts, saved.size + 1, saved.stride)

    def drop_every_second(saved: _Checkpoints) -> _Checkpoints:
        half = _CHECKPOINTS // 2
        now, recorded = jax.tree.map(
            lambda leaf: jnp.concatenate([leaf[::2], jnp.zeros_like(leaf[half:])]),
            (saved.now, saved.recorded),
        )
        return _Checkpoints(now, recorded, saved.size // 2, 2 * saved.stride)

    def body(state: tuple) -> tuple:
        before, records, saved = state
        good, h, step, after = try_step(system, before, control)
        saved = jax.lax.cond(saved.size == _CHECKPOINTS, drop_every_second, lambda s: s, saved)
        # A checkpoint is a state from which a step was accepted: its `h` is the size of that step.
        due = good & (before.accepted >= saved.size * saved.stride)
        saved = jax.lax.cond(due, lambda s: save(s, before, records.reached), lambda s: s, saved)
        return after, record(system, records, taus, before, after, h, step), saved

    now, records, saved = jax.lax.while_loop(
        lambda state: is_running(state[0], control),
        body,
        (first, empty_records(system, y, taus), saved),
    )
    return saved, now.accepted, records.reached


def _pull_back(
    system_of: Callable,
    inputs: Tree,
    taus: Times,
    control: StepControl,
    cotangents: Tree,
    max_steps: int,
) -> Tree:
    """Return the cotangents of the numbers and of the start, from those of the states at `taus`."""
    numbers, y = inputs
    system = system_of(numbers)
    saved, accepted, recorded = _run_with_checkpoints(system, y, taus, control)
    # A stride is a power of two, and at most twice as long as would fill all checkpoints.
    longest = 2 ** max(0, int(np.ceil(np.log2(2 * max_steps / _CHECKPOINTS))))

    def segment_back(turn: Array, state: tuple) -> tuple:
        """Repeat the steps from one checkpoint to the next, and take the cotangents back."""
        # Under vmap, runs that have no segment left repeat their first one without effect: a
        # negative index would read a state from which the repetition never ends.
        place = jnp.maximum(saved.size - 1 - turn, 0)
        start = jax.tree.map(lambda rows: pick(rows, place), saved.now)
        end = jnp.minimum(start.accepted + saved.stride, accepted)
        steps = end - start.accepted

        def times_until(time: Scalar) -> Array:
            return jnp.sum(taus <= time).astype(jnp.int32)

        def repeat(state: tuple) -> tuple:
            before, segment, recorded = state
            good, h, _, after = try_step(system, before, control)
            i = jnp.minimum(before.accepted - start.accepted, longest - 1)
            # A rejected step is overwritten by the accepted one that follows it.
            segment = _Segment(
                put(segment.t, i, before.t),
                put(segment.h, i, h),
                jax.tree.map(lambda rows, row: put(rows, i, row), segment.y, before.y),
                put(segment.recorded, i, recorded),
            )
            return after, segment, jnp.where(good, times_until(after.t), recorded)

        # A segment of one step is known without repeating it.
        h, step_end = next_size(start, control)
        single = _Segment(start.t, h, start.y, pick(saved.recorded, place))
        recorded = jnp.where(steps > 1, single.recorded, times_until(step_end))
        _, segment, recorded = jax.lax.while_loop(
            lambda s: (s[0].accepted < end) & (steps > 1), repeat, (start, state[3], recorded)
        )

        def step_back(i: Array, state: tuple) -> tuple:
            by_numbers, by_y, recorded_after = state
            at = jax.tree.map(
                lambda leaf, rows: jnp.where(steps > 1, pick(rows, steps - 1 - i), leaf),
                single,
                segment,
            )
            if isinstance(system, AbstractSymmetricSystem):
                step, pull = pull_step(system_of, numbers, at.y, at.h)
            else:
                step, pull = jax.vjp(
                    lambda n, y: system_of(n).reversible().step(y, at.h), numbers, at.y
                )

            def record_back(j: Array, by_record: tuple) -> tuple:
                part = (pick(taus, j) - at.t) / at.h
                _, pull_record = jax.vjp(lambda y, s: system.interpolate(y, s, part), at.y, step)
                cotangent = jax.tree.map(lambda rows: pick(rows, j), cotangents)
                return jax.tree.map(jnp.add, by_record, pull_record(cotangent))

            zeros = jax.tree.map(jnp.zeros_like, (at.y, step))
            by_record = (zeros[0], zeros[1]._replace(after=by_y))
            by_record = jax.lax.fori_loop(at.recorded, recorded_after, record_back, by_record)
            step_numbers, step_y = pull(by_record[1])
            total = jax.tree.map(jnp.add, by_numbers, step_numbers)
            return total, jax.tree.map(jnp.add, by_record[0], step_y), at.recorded

        return *jax.lax.fori_loop(0, steps, step_back, (*state[:2], recorded)), segment

    zeros = jax.tree.map(jnp.zeros_like, (numbers, y))
    # One buffer, which every segment overwrites.
    rows = jax.tree.map(lambda leaf: jnp.zeros((longest, *leaf.shape), leaf.dtype), y)
    sizes = jnp.zeros(longest)
    segment = _Segment(sizes, sizes, rows, jnp.zeros(longest, jnp.int32))
    segment = varying_as((y, control), segment)
    state = jax.lax.fori_loop(0, saved.size, segment_back, (*zeros, recorded, segment))
    at_start = jax.tree.map(lambda rows: jnp.where(taus[0] <= 0, rows[0], 0.0), cotangents)
    (at_start,) = jax.vjp(system.recorded, y)[1](at_start)
    return state[0], jax.tree.map(jnp.add, state[1], at_start)
