"""Many runs in a fixed number of lanes, which step together.

A lane whose run has ended takes the next one. Without that, all lanes would go on until the slowest
run of all has ended, most of them idle, and there would be a lane for every run. Runs that begin
with the shortest steps come first, since they take the most: lanes are idle at the end, while the
last runs go on, and those should be short.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Scalar, Times, Tree
from .loop import LoopState, empty_records, initial_state, is_running, try_step
from .rosenbrock import AbstractSystem, SolverStep, interpolate
from .step_size import StepControl

LANES = 65536
"""Runs at a time. Enough to fill an accelerator, so that more would only need more memory; the
fewer there are, the fewer are idle at the end, when no run is left to begin."""

TURNS = 16
"""Steps between two looks for lanes to fill: on average a run wastes half of them. A look costs two
evaluations of the force in every lane, a step eight and more."""

LoopArguments = tuple[AbstractSystem, Tree, Times, StepControl]
"""What `loop.run` takes."""


class _Lanes(NamedTuple):
    """Lanes (W,), and how many of the R runs have begun.

    A lane that is not active stays as it is: its run, whose index is `run`, has ended, or there is
    none, and `run` is R.
    """

    run: Array
    active: Array
    now: LoopState
    reached: Array
    begun: Array


class _Written(NamedTuple):
    """Of each run: states at the recorded times (R, T), and ends (R,) if it has left its lane."""

    ys: Tree
    ends: LoopState


def run_queued(
    given: Callable[[list[Array]], LoopArguments], own: list[Array]
) -> tuple[Tree, LoopState]:
    """`loop.run` for R runs: states at the recorded times, and the ends, with a leading axis (R,).

    **Arguments:** `given`: what a run is given, from a list of arrays; `own`: these, each with a
    leading axis (R,). What all runs share is not among them, and there only once.
    """
    runs = own[0].shape[0]
    lanes = min(LANES, runs)

    def each(function: Callable[..., Tree], own: list[Array], *more: Tree) -> Tree:
        return jax.vmap(lambda own, *more: function(*given(own), *more))(own, *more)

    def own_of(run: Array) -> list[Array]:
        return [leaf[jnp.minimum(run, runs - 1)] for leaf in own]

    def first_size(run: Array) -> Array:
        return each(_begin, own_of(run))[1].h

    order = _shortest_steps_first(first_size, runs, lanes)

    def fill(held: _Lanes) -> _Lanes:
        run, begun = _next_runs(held, order)
        active, now, reached = _where(
            held.active, (held.active, held.now, held.reached), each(_begin, own_of(run))
        )
        return _Lanes(run, active & (run < runs), now, reached, begun)

    def turns(state: tuple[_Lanes, _Written]) -> tuple[_Lanes, _Written]:
        held, written = state
        ends = _leave(held, written.ends)
        held = fill(held)
        mine = own_of(held.run)

        def turn(_: Array, state: tuple[_Lanes, Tree]) -> tuple[_Lanes, Tree]:
            held, ys = state
            more, after, passed, h, step = each(_step, mine, held.now)
            due = jnp.where(held.active, jnp.maximum(passed - held.reached, 0), 0)

            def write(lane: Array, place: Array, run: Array, ys: Tree) -> Tree:
                at = jax.tree.map(lambda leaf: leaf[lane], (mine, held.now, h, step))
                new = each(_record, at[0], place, *at[1:])
                return jax.tree.map(
                    lambda rows, y: rows.at[run, place].set(y, mode="drop"), ys, new
                )

            ys = _in_rounds(write, held, due, runs, ys)
            now = _where(held.active, after, held.now)
            active, reached = held.active & more, held.reached + due
            return held._replace(active=active, now=now, reached=reached), ys

        held, ys = jax.lax.fori_loop(0, TURNS, turn, (held, written.ys))
        return held, _Written(ys, ends)

    nothing = jax.eval_shape(lambda: each(_begin, own)[1])
    none = jnp.zeros(lanes, jnp.int32)
    held = _Lanes(none + runs, none > 0, _zeros(nothing, lanes), none, none[0])
    written = _Written(
        each(lambda _, y, taus, __: empty_records(y, taus).ys, own), _zeros(nothing, runs)
    )
    held, written = jax.lax.while_loop(
        lambda state: (state[0].begun < runs) | jnp.any(state[0].active), turns, (held, written)
    )
    return written.ys, _leave(held, written.ends)


def _begin(
    system: AbstractSystem, y: Tree, taus: Times, control: StepControl
) -> tuple[Array, LoopState, Array]:
    """Whether a run goes on from its start, the start, and how many records are made there."""
    now = initial_state(system, y, control)
    return is_running(now, control), now, (taus[0] <= 0).astype(jnp.int32)


def _step(
    system: AbstractSystem, y: Tree, taus: Times, control: StepControl, now: LoopState
) -> tuple[Array, LoopState, Array, Scalar, SolverStep]:
    """Whether a run goes on after the next attempt of a step, where it stands then, how many of the
    recorded times it has passed, and the size of the step and the step."""
    del y
    _, h, step, after = try_step(system, now, control)
    passed = jnp.sum(taus <= after.t).astype(jnp.int32)
    return is_running(after, control), after, passed, h, step


def _record(
    system: AbstractSystem,
    y: Tree,
    taus: Times,
    control: StepControl,
    place: Array,
    now: LoopState,
    h: Scalar,
    step: SolverStep,
) -> Tree:
    """The state at a recorded time in a step of size h from `now`."""
    del system, y, control
    return interpolate(now.y, step, (taus[place] - now.t) / h)


def _shortest_steps_first(first_size: Callable[[Array], Array], runs: int, lanes: int) -> Array:
    """(R + 1,) the runs in the order in which they are to begin, and R for none."""
    order = jnp.arange(runs + 1, dtype=jnp.int32)
    if runs <= lanes:
        return order
    # As many at a time as go side by side later: all at once would need memory of their own.
    chunks = jnp.arange(lanes * -(-runs // lanes), dtype=jnp.int32).reshape(-1, lanes)
    sizes = jax.lax.map(first_size, chunks).reshape(-1)[:runs]
    return order.at[:runs].set(jnp.argsort(sizes).astype(jnp.int32))


def _next_runs(held: _Lanes, order: Array) -> tuple[Array, Array]:
    """The index of each lane's run once those that are free have taken the next ones, and how many
    have begun then."""
    runs = order.size - 1
    turn = jnp.cumsum(~held.active, dtype=jnp.int32)
    run = jnp.where(held.active, held.run, order[jnp.minimum(held.begun + turn - 1, runs)])
    return run, jnp.minimum(held.begun + turn[-1], runs)


def _leave(held: _Lanes, ends: LoopState) -> LoopState:
    """The ends, with those of the runs that have ended and are still in a lane."""
    run = jnp.where(held.active, jax.tree.leaves(ends)[0].shape[0], held.run)
    return jax.tree.map(lambda rows, end: rows.at[run].set(end, mode="drop"), ends, held.now)


def _in_rounds(
    write: Callable[[Array, Array, Array, Tree], Tree],
    held: _Lanes,
    due: Array,
    runs: int,
    ys: Tree,
) -> Tree:
    """`write(lane, place, run, ys)` for all records that are due (W,), as many as there are lanes
    at a time: most lanes have none in a step, one may have many."""
    ends = jnp.cumsum(due, dtype=jnp.int32)

    def one_round(state: tuple[Array, Tree]) -> tuple[Array, Tree]:
        first, ys = state
        number = first + jnp.arange(due.size, dtype=jnp.int32)
        lane = jnp.searchsorted(ends, number, side="right", method="scan_unrolled")
        lane = jnp.minimum(lane, due.size - 1)
        place = held.reached[lane] + number - (ends - due)[lane]
        run = jnp.where(number < ends[-1], held.run[lane], runs)
        return first + due.size, write(lane, place, run, ys)

    first = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(lambda state: state[0] < ends[-1], one_round, (first, ys))[1]


def _zeros(like: Tree, count: int) -> Tree:
    return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), like)


def _where(mask: Array, yes: Tree, no: Tree) -> Tree:
    """Lane by lane."""

    def leaf(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(leaf, yes, no)
