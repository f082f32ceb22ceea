"""`simulate`: the one driver of all dynamics."""

import os
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._errors import (
    SimulationError,
    Status,
    argument_error,
    check_64_bit,
    check_finite,
    check_type,
    is_concrete,
)
from ._numbers import as_flag, as_leaf, as_leaves, check_path, shown
from ._types import Key, Times, as_array, as_arrays
from .configuration import warn_if_slow
from .dynamics.base import AbstractDynamics, Progress, RunInputs, RunOutputs, Samples, as_taus
from .models.network import Params
from .problems.base import AbstractProblem
from .trajectory import Trajectory


def simulate(
    problem: AbstractProblem,
    dynamics: AbstractDynamics,
    params: Params,
    taus: Times,
    *,
    key: Key | None = None,
    samples: Samples | None = None,
    throw: bool = True,
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Trajectory:
    """Move parameters from slow time 0 on, and record them at the slow times `taus`.

    **Arguments:**

    - `problem`: an `AbstractProblem`.
    - `dynamics`: `GradientFlow`, `ReducedFlow`, `LimitFlow` or `SGD`.
    - `params`: where to start, at tau = 0.
    - `taus` (T,): slow times, at least 0 and increasing.
    - `key`: a `jax.random.key` for SGD; the flows do not look at it.
    - `samples`: for SGD, a stream (x, noise) to replay instead of drawing.
    - `throw`: whether a run that cannot go on raises (True) or returns with its status. Under a
      jax transformation nothing can be raised: look at `status` there.
    - `progress`: called with the fraction of the work done, from time to time for SGD and at the
      end for the flows, which take seconds. Not under a jax transformation.
    - `checkpoint`: a file for a long run of SGD, written from time to time and at the end. A call
      with the same arguments goes on from it, and returns the same to the last bit as a run that
      was never cut off. Not under a jax transformation.

    **Returns:** a `Trajectory`. Under jit, vmap and (for the flows) grad it works as any function;
    numbers never cause a recompilation, shapes do. Two choices that look at numbers compile once
    each: of another method by `GradientFlow`, and, from 48 neurons on, of room for more neurons
    that overlap.

    **Warns:** `CoarseStepsWarning` where SGD takes steps so large that it does not follow the flow;
    not under a jax transformation. `SlowSettingsWarning`, once in a process, where a call of
    `tts.configure()` would have made simulations several times faster.

    **Raises:** `ValueError` for bad arguments, before anything is traced; `SimulationError`, with
    the data so far as `.trajectory`, when a run cannot go on.
    """
    _check(problem, dynamics, params)
    taus = as_taus(taus)
    params = Params(as_leaves("params.a", params.a), as_leaves("params.u", params.u))
    samples = None if samples is None else _as_samples(samples)
    as_flag("throw", throw)
    if progress is not None and not callable(progress):
        raise argument_error("progress", "a function of a fraction, or None", shown(progress))
    everything = (problem, dynamics, params, taus, key, samples)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, everything)
    if progress is not None and not is_concrete(everything):
        raise argument_error("progress", "None under a jax transformation", repr(progress))
    # Through the classes: bound, a method of an equinox module costs more than it does here.
    type(problem).check(problem, params)
    check_finite("params", params)
    given = RunInputs(problem, params, taus, key, samples)
    type(dynamics).check(dynamics, given)
    if not dynamics.draws:
        given = given._replace(key=None)  # a loop over all dynamics compiles the flows once
    dynamics, given = type(dynamics).prepared(dynamics, given)
    warn_if_slow()
    if progress is None and checkpoint is None:
        trajectory = _run(dynamics, given)
    else:
        trajectory = _run_in_pieces(dynamics, given, progress, checkpoint)
    if progress is not None:
        progress(1.0)
    if is_concrete(trajectory):
        status = Status(int(trajectory.status))
        if throw and status != Status.OK:
            raise _failure(trajectory, status)
        if status == Status.OK:
            for caution in type(dynamics).cautions(dynamics, trajectory.stats):
                warnings.warn(caution, stacklevel=2)
    return trajectory


def _trajectory(dynamics: AbstractDynamics, given: RunInputs, records: RunOutputs) -> Trajectory:
    return Trajectory(
        given.taus,
        records.params,
        records.risk,
        records.status,
        records.stats,
        method=type(dynamics).__name__,
        solver=type(dynamics).method(dynamics, given),
    )


def _run_in_pieces(
    dynamics: AbstractDynamics, given: RunInputs, progress: Progress | None, checkpoint: Any
) -> Trajectory:
    """Run with progress or a checkpoint. A dynamics that does not run in pieces runs as a whole."""
    file = None if checkpoint is None else Path(checkpoint)
    params, taus, samples = jax.tree.map(jnp.asarray, (given.params, given.taus, given.samples))
    arrays = given._replace(params=params, taus=taus, samples=samples)
    records = as_arrays(dynamics).run_in_pieces(as_arrays(arrays), progress, file)
    if records is not None:
        return _trajectory(dynamics, arrays, records)
    if checkpoint is not None:
        expected = "None for a flow, which takes seconds"
        raise argument_error("checkpoint", expected, repr(checkpoint))
    return _run(dynamics, given)


def _run(dynamics: AbstractDynamics, given: RunInputs) -> Trajectory:
    """Run once, and once more where the dynamics knows that another try can end better."""
    trajectory = _run_once(dynamics, given)
    while (more := type(dynamics).again(dynamics, given, trajectory.status)) is not None:
        given = more
        trajectory = _run_once(dynamics, given)
    return trajectory


def _run_once(dynamics: AbstractDynamics, given: RunInputs) -> Trajectory:
    """`dynamics.run`, compiled once for all numbers.

    Numbers become arrays: as Python floats each new value would recompile. By hand, in one pass
    over the leaves, since a call of `eqx.filter_jit` does more than a short flow can hide.
    """
    leaves, structure = jax.tree.flatten((dynamics, given))
    numbers, fixed = [], []
    for leaf in map(as_array, leaves):
        is_number = isinstance(leaf, np.ndarray | np.generic | jax.Array)
        numbers.append(leaf if is_number else None)
        fixed.append(None if is_number else leaf)
    return _compiled(numbers, structure, tuple(fixed))


def _traced(numbers: list, structure: Any, fixed: tuple) -> Trajectory:
    whole = [
        leaf if number is None else number for leaf, number in zip(fixed, numbers, strict=True)
    ]
    dynamics, given = jax.tree.unflatten(structure, whole)
    # Put together here, since what a compiled function returns costs no call of Python.
    return _trajectory(dynamics, given, dynamics.run(given))


_compiled = jax.jit(_traced, static_argnums=(1, 2))


def _as_samples(samples: Any) -> Samples:
    if not isinstance(samples, tuple | list) or len(samples) != 2:
        raise argument_error("samples", "a pair (x, noise) of arrays", shown(samples))
    return as_leaf("samples[0]", samples[0]), as_leaf("samples[1]", samples[1])


def _check(problem: Any, dynamics: Any, params: Any) -> None:
    check_64_bit()
    for name, value, kind in (
        ("problem", problem, AbstractProblem),
        ("dynamics", dynamics, AbstractDynamics),
        ("params", params, Params),
    ):
        check_type(name, value, kind)


def _check_checkpoint(checkpoint: Any, given: Any) -> None:
    check_path("checkpoint", checkpoint)
    if not is_concrete(given):
        raise argument_error("checkpoint", "None under a jax transformation", repr(checkpoint))
    folder = Path(checkpoint).parent
    if not folder.is_dir():
        raise argument_error("checkpoint", "a file in a folder that exists", repr(checkpoint))


def _failure(trajectory: Trajectory, status: Status) -> SimulationError:
    return SimulationError(
        f"{trajectory.method} ended with {status.name}: {status.message}. The data up to there "
        "is in `.trajectory` of this exception; `throw=False` returns it instead.",
        trajectory,
    )
