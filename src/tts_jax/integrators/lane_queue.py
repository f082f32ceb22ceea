"""Many runs in a fixed number of lanes, which take their steps together.

A lane whose run has ended takes the next one. Otherwise there would be a lane for every run, and
all would go on until the slowest run has ended, most of them idle. Runs that begin with the
smallest steps are expected to take the most, and come first: at the end lanes are idle while the
last runs go on, which should then be short.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Scalar, Times, Tree, varying_as
from .loop import LoopState, empty_records, initial_state, is_running, try_step
from .rosenbrock import AbstractSystem
from .step_size import StepControl

LANES = 65536
"""Lanes at most. Enough to fill an accelerator: more would only need more memory, and more of them
would be idle at the end, when no run is left to begin."""

TURNS = 16
"""Steps that all lanes take before free lanes are filled again: on average a lane is idle for half
of them after its run. Filling costs two evaluations of the vector field in every lane, a step at
least eight."""

LoopArguments = tuple[AbstractSystem, Tree, Times, StepControl]
"""The arguments of `loop.run`."""


class _Lanes(NamedTuple):
    """The lanes (W,), and how many of the R runs have begun.

    `run` is the index of a lane's run. A lane that is not active does not change: its run has
    ended, or it has none, and then `run` is R.
    """

    run: Array
    active: Array
    now: LoopState
    reached: Array
    begun: Array


class _Results(NamedTuple):
    """The results of the R runs: states at the recorded times (R, T), and the ends (R,) of those
    that have left their lanes."""

    ys: Tree
    ends: LoopState


def run_queued(
    arguments_of: Callable[[list[Array]], LoopArguments], batched_leaves: list[Array]
) -> tuple[Tree, LoopState]:
    """Return what `loop.run` returns for R runs: states at the recorded times, and the ends.

    Both have a leading axis (R,).

    **Arguments:** `batched_leaves`: the arrays that differ between runs, with a leading axis (R,);
    `arguments_of`: from those of one run to the arguments of `loop.run`. It closes over what all
    runs share, which is thus in memory only once.
    """
    runs = batched_leaves[0].shape[0]
    lanes = min(LANES, runs)

    def vmapped(function: Callable[..., Tree], leaves: list[Array], *others: Tree) -> Tree:
        return jax.vmap(lambda leaves, *others: function(*arguments_of(leaves), *others))(
            leaves, *others
        )

    def leaves_of(run: Array) -> list[Array]:
        return [leaf[jnp.minimum(run, runs - 1)] for leaf in batched_leaves]

    def first_size(run: Array) -> Array:
        return vmapped(_begin, leaves_of(run))[1].h

    order = _smallest_steps_first(first_size, runs, lanes)

    def fill(queue: _Lanes) -> _Lanes:
        run, begun = _next_runs(queue, order)
        active, now, reached = _where(
            queue.active, (queue.active, queue.now, queue.reached), vmapped(_begin, leaves_of(run))
        )
        return _Lanes(run, active & (run < runs), now, reached, begun)

    def turns(state: tuple[_Lanes, _Results]) -> tuple[_Lanes, _Results]:
        queue, results = state
        ends = _leave(queue, results.ends)
        queue = fill(queue)
        leaves = leaves_of(queue.run)

        def turn(_: Array, state: tuple[_Lanes, Tree]) -> tuple[_Lanes, Tree]:
            queue, ys = state
            running, after, passed, h, step = vmapped(_step, leaves, queue.now)
            due = jnp.where(queue.active, jnp.maximum(passed - queue.reached, 0), 0)

            def write(lane: Array, place: Array, run: Array, ys: Tree) -> Tree:
                at = jax.tree.map(lambda leaf: leaf[lane], (leaves, queue.now, h, step))
                new = vmapped(_record, at[0], place, *at[1:])
                return jax.tree.map(
                    lambda rows, y: rows.at[run, place].set(y, mode="drop"), ys, new
                )

            ys = _in_rounds(write, queue, due, runs, ys)
            now = _where(queue.active, after, queue.now)
            active, reached = queue.active & running, queue.reached + due
            return queue._replace(active=active, now=now, reached=reached), ys

        queue, ys = jax.lax.fori_loop(0, TURNS, turn, (queue, results.ys))
        return queue, _Results(ys, ends)

    like = jax.eval_shape(lambda: vmapped(_begin, batched_leaves)[1])
    zeros = jnp.zeros(lanes, jnp.int32)
    queue = _Lanes(zeros + runs, zeros > 0, _zeros(like, lanes), zeros, zeros[0])
    queue = varying_as(batched_leaves, queue)
    results = _Results(
        vmapped(lambda system, y, taus, _: empty_records(system, y, taus).ys, batched_leaves),
        varying_as(batched_leaves, _zeros(like, runs)),
    )
    queue, results = jax.lax.while_loop(
        lambda state: (state[0].begun < runs) | jnp.any(state[0].active), turns, (queue, results)
    )
    return results.ys, _leave(queue, results.ends)


def _begin(
    system: AbstractSystem, y: Tree, taus: Times, control: StepControl
) -> tuple[Array, LoopState, Array]:
    """Return whether a run goes on from its start, the start, and how many times it records."""
    now = initial_state(system, y, control)
    return is_running(now, control), now, (taus[0] <= 0).astype(jnp.int32)


def _step(
    system: AbstractSystem, y: Tree, taus: Times, control: StepControl, now: LoopState
) -> tuple[Array, LoopState, Array, Scalar, Any]:
    """Try a step of a run. Return whether the run goes on after it, the state there, how many of
    the recorded times are passed, the size of the step, and the step."""
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
    step: Any,
) -> Tree:
    """Return the state at recorded time number `place`, inside a step of size h from `now`."""
    del y, control
    return system.interpolate(now.y, step, (taus[place] - now.t) / h)


def _smallest_steps_first(first_size: Callable[[Array], Array], runs: int, lanes: int) -> Array:
    """Return the order (R + 1,) in which the runs are to begin, with R, no run, at the end."""
    order = jnp.arange(runs + 1, dtype=jnp.int32)
    if runs <= lanes:
        return order
    # As many at a time as there are lanes: all at once would need more memory than the queue.
    chunks = jnp.arange(lanes * -(-runs // lanes), dtype=jnp.int32).reshape(-1, lanes)
    sizes = jax.lax.map(first_size, chunks).reshape(-1)[:runs]
    return order.at[:runs].set(jnp.argsort(sizes).astype(jnp.int32))


def _next_runs(queue: _Lanes, order: Array) -> tuple[Array, Array]:
    """Return the index of each lane's run after free lanes have taken the next runs, and how many
    runs have begun then."""
    runs = order.size - 1
    free_until = jnp.cumsum(~queue.active, dtype=jnp.int32)
    next_run = order[jnp.minimum(queue.begun + free_until - 1, runs)]
    run = jnp.where(queue.active, queue.run, next_run)
    return run, jnp.minimum(queue.begun + free_until[-1], runs)


def _leave(queue: _Lanes, ends: LoopState) -> LoopState:
    """Return the ends with those of the ended runs that are still in a lane."""
    run = jnp.where(queue.active, jax.tree.leaves(ends)[0].shape[0], queue.run)
    return jax.tree.map(lambda rows, end: rows.at[run].set(end, mode="drop"), ends, queue.now)


def _in_rounds(
    write: Callable[[Array, Array, Array, Tree], Tree],
    queue: _Lanes,
    due: Array,
    runs: int,
    ys: Tree,
) -> Tree:
    """Return `ys` after `write(lane, place, run, ys)` for all records that are due.

    `due` (W,): how many records each lane has. A round writes as many records as there are lanes:
    after a step most lanes have none, and one may have many.
    """
    ends = jnp.cumsum(due, dtype=jnp.int32)

    def one_round(state: tuple[Array, Tree]) -> tuple[Array, Tree]:
        first, ys = state
        number = first + jnp.arange(due.size, dtype=jnp.int32)
        lane = jnp.searchsorted(ends, number, side="right", method="scan_unrolled")
        lane = jnp.minimum(lane, due.size - 1)
        place = queue.reached[lane] + number - (ends - due)[lane]
        run = jnp.where(number < ends[-1], queue.run[lane], runs)
        return first + due.size, write(lane, place, run, ys)

    first = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(lambda state: state[0] < ends[-1], one_round, (first, ys))[1]


def _zeros(like: Tree, count: int) -> Tree:
    return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), like)


def _where(mask: Array, yes: Tree, no: Tree) -> Tree:
    """Return `yes` in the lanes where `mask` (W,) is True, and `no` in the others."""

    def chosen(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(chosen, yes, no)
