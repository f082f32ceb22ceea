"""`simulate`: the one driver of all dynamics."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ._errors import (
    SimulationError,
    Status,
    check_64_bit,
    check_finite,
    check_type,
    is_concrete,
)
from ._types import Key, Times, as_arrays
from .dynamics import SGD, AbstractDynamics, Records
from .dynamics.base import Given, Progress, Samples, check_taus
from .networks import Params
from .problem import AbstractProblem
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

    **Returns:** a `Trajectory`. Under jit, vmap and (for the flows) grad it works as any function;
    numbers never cause a recompilation, shapes do.

    **Raises:** `ValueError` for bad arguments, before anything is traced; `SimulationError`, with
    the data so far as `.trajectory`, when a run cannot go on.
    """
    _check(problem, dynamics, params, taus)
    taus, params = jnp.asarray(taus, jnp.float64), jax.tree.map(jnp.asarray, params)
    samples = None if samples is None else (jnp.asarray(samples[0]), jnp.asarray(samples[1]))
    problem.check(params)
    check_finite("params", params)
    given = Given(problem, params, taus, key, samples)
    dynamics.check(given)
    if not dynamics.draws:
        given = given._replace(key=None)  # a loop over all dynamics compiles the flows once
    # Numbers become arrays at the edge: as Python floats each new value would recompile.
    dynamics, given = as_arrays((dynamics, given))
    if progress is not None and isinstance(dynamics, SGD):
        records = dynamics.run_in_pieces(given, progress)
    else:
        records = _run(dynamics, given)
    trajectory = Trajectory(
        taus,
        records.params,
        records.risk,
        records.status,
        records.stats,
        method=type(dynamics).__name__,
    )
    if progress is not None:
        progress(1.0)
    if throw and is_concrete(trajectory):
        _raise_unless_ok(trajectory)
    return trajectory


@eqx.filter_jit
def _run(dynamics: AbstractDynamics, given: Given) -> Records:
    return dynamics.run(given)


def _check(problem: Any, dynamics: Any, params: Any, taus: Any) -> None:
    check_64_bit()
    for name, value, kind in (
        ("problem", problem, AbstractProblem),
        ("dynamics", dynamics, AbstractDynamics),
        ("params", params, Params),
    ):
        check_type(name, value, kind)
    check_taus(taus)


def _raise_unless_ok(trajectory: Trajectory) -> None:
    codes = jnp.atleast_1d(trajectory.status)
    failed = [int(code) for code in codes.ravel() if int(code) != Status.OK]
    if failed:
        status = Status(failed[0])
        raise SimulationError(
            f"{trajectory.method} ended with {status.name}: {status.message}. The data up to there "
            "is in `.trajectory` of this exception; `throw=False` returns it instead.",
            trajectory,
        )
