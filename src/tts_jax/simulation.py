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
    is_traced,
)
from ._files import as_path
from ._numbers import as_flag, as_leaf, shown
from ._programs import compiled
from ._types import Key, Times, as_arrays
from .configuration import warn_if_slow
from .dynamics.base import AbstractDynamics, Progress, RunInputs, RunOutputs, Samples, as_taus
from .models.network import Params, as_params
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
      was never cut off. So does a call with more `taus` after those recorded: a finished run is
      made longer. One that another process works on is refused. Not under a jax transformation.

    **Returns:** a `Trajectory`. Under jit, vmap and (for the flows) grad it works as any function;
    numbers never cause a recompilation, shapes do. A flow of numbers leaves out at first what few
    runs need, and compiles once more for those that do: for a step of the activation that 0 or 1
    cuts, from 48 neurons on for more neurons that overlap, and for weights so large that digits of
    the risk are lost. So does another method that `GradientFlow` chooses by its numbers.

    Ctrl-C ends a long run of SGD within about a second, and any other call when the flow or the
    compilation under way ends. What a `checkpoint` has is kept.

    **Warns:** `CoarseStepsWarning` where SGD takes steps so large that it does not follow the flow;
    not under a jax transformation. `SlowSettingsWarning`, once in a process, where a call of
    `tts.configure()` would have made simulations several times faster. `CheckpointWarning` where
    the checkpoint cannot be written; the run goes on.

    **Raises:** `ValueError` for bad arguments, before anything is traced; `SimulationError`, with
    the data so far as `.trajectory`, when a run cannot go on.
    """
    _check(problem, dynamics)
    params = as_params(params)
    taus = as_taus(taus)
    samples = None if samples is None else _as_samples(samples)
    as_flag("throw", throw)
    if progress is not None and not callable(progress):
        raise argument_error("progress", "a function of a fraction, or None", shown(progress))
    everything = (problem, dynamics, params, taus, key, samples)
    file = None if checkpoint is None else _checkpoint(checkpoint, everything)
    if progress is not None and (not is_concrete(everything) or is_traced()):
        raise argument_error("progress", "None under a jax transformation", shown(progress))
    # Through the classes: bound, a method of an equinox module costs more than it does here.
    type(problem).check(problem, params)
    check_finite("params", params)
    # Under a transformation there is no second try, with all that the first one leaves out.
    given = RunInputs(problem, params, taus, key, samples, only_known=is_concrete(everything))
    type(dynamics).check(dynamics, given)
    if not dynamics.draws:
        given = given._replace(key=None)  # a loop over all dynamics compiles the flows once
    dynamics, given = type(dynamics).prepared(dynamics, given)
    warn_if_slow()
    if progress is None and file is None and not type(dynamics).is_long(dynamics, given):
        trajectory = _run(dynamics, given)
    else:
        trajectory = _run_in_pieces(dynamics, given, progress, file)
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
    everything = jax.tree.leaves((records.params, records.risk))
    is_finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in everything]))
    # No run ends well whose records are not finite, whatever its dynamics says.
    is_lost = (records.status == Status.OK) & ~is_finite
    return Trajectory(
        given.taus,
        records.params,
        records.risk,
        jnp.where(is_lost, jnp.int32(Status.NON_FINITE), records.status),
        records.stats,
        method=type(dynamics).__name__,
        solver=type(dynamics).method(dynamics, given),
    )


def _run_in_pieces(
    dynamics: AbstractDynamics, given: RunInputs, progress: Progress | None, file: Path | None
) -> Trajectory:
    """Run in pieces on the host. A dynamics that does not run in pieces runs as a whole."""
    params, taus, samples = jax.tree.map(jnp.asarray, (given.params, given.taus, given.samples))
    arrays = given._replace(params=params, taus=taus, samples=samples)
    records = as_arrays(dynamics).run_in_pieces(as_arrays(arrays), progress, file)
    if records is not None:
        return _trajectory(dynamics, arrays, records)
    if file is not None:
        expected = "None for a flow, which takes seconds"
        raise argument_error("checkpoint", expected, repr(str(file)))
    return _run(dynamics, given)


def _run(dynamics: AbstractDynamics, given: RunInputs) -> Trajectory:
    """Run once, and once more where the dynamics knows that another try can end better."""
    trajectory = _run_once(dynamics, given)
    if given.only_known and not is_concrete(trajectory):  # inside `jax.jit`, of numbers
        return _run_once(dynamics, given._replace(only_known=False, limit=None))
    while (more := type(dynamics).again(dynamics, given, trajectory)) is not None:
        given = more
        trajectory = _run_once(dynamics, given)
    return trajectory


def _traced(dynamics: AbstractDynamics, given: RunInputs) -> Trajectory:
    # Put together here, since what a compiled function returns costs no call of Python.
    return _trajectory(dynamics, given, dynamics.run(given))


_run_once = compiled(_traced)


def _as_samples(samples: Any) -> Samples:
    if not isinstance(samples, tuple | list) or len(samples) != 2:
        raise argument_error("samples", "a pair (x, noise) of arrays", shown(samples))
    # The numbers of samples stay whole numbers, also in a list.
    x = np.asarray(samples[0]) if isinstance(samples[0], list | tuple) else samples[0]
    return as_leaf("samples[0]", x), as_leaf("samples[1]", samples[1])


def _check(problem: Any, dynamics: Any) -> None:
    check_64_bit()
    for name, value, kind in (
        ("problem", problem, AbstractProblem),
        ("dynamics", dynamics, AbstractDynamics),
    ):
        check_type(name, value, kind)


def _checkpoint(given: Any, everything: Any) -> Path:
    """The file of a checkpoint, which can be written."""
    file = as_path("checkpoint", given)
    if not is_concrete(everything) or is_traced():
        raise argument_error("checkpoint", "None under a jax transformation", repr(given))
    try:
        is_there, can_be = file.parent.is_dir(), not file.is_dir()
        file.exists()  # raises for a name that is too long
    except OSError as error:
        raise argument_error("checkpoint", "a file that can be", f"{given!r}: {error}") from error
    if not is_there or not can_be:
        raise argument_error("checkpoint", "a file in a folder that exists", repr(given))
    return file


def _failure(trajectory: Trajectory, status: Status) -> SimulationError:
    return SimulationError(
        f"{trajectory.method} ended with {status.name}: {status.message}. The data up to there "
        "is in `.trajectory` of this exception; `throw=False` returns it instead.",
        trajectory,
    )
