"""What `simulate` asks of a dynamics, and what it gets back."""

import abc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from .._errors import SMALLEST, argument_error, check_finite, is_concrete
from .._named import NamedArguments
from .._numbers import as_floats
from .._types import Array, Key, Times, Tree
from ..models.network import Params
from ..problems.base import AbstractProblem
from ..trajectory import Trajectory

Samples = tuple[Array, Array]
Progress = Callable[[float], object]


class RunInputs(NamedTuple):
    """What `simulate` was asked for, beside the dynamics.

    `limit`: what the closed form of the problem is limited to, see `AbstractClosedForm.limit_for`.
    `only_known`: whether a flow records risks in closed form alone, see `recorded_risks`. Both are
    for the first try of a run whose numbers are known. `by_collocation`: whether a flow has chosen
    the collocation method.
    """

    problem: AbstractProblem
    params: Params
    taus: Times
    key: Key | None
    samples: Samples | None
    limit: Any = None
    only_known: bool = False
    by_collocation: bool = False


class RunOutputs(NamedTuple):
    """What a run leaves: params with leading axis T, risk (T,), a status code, and counts."""

    params: Params
    risk: Times
    status: Array
    stats: dict[str, Array]


_STEP_SECONDS = 10e-6
"""Of one core of a machine of 2026 with wide vectors, for a step of a flow at width 20. From
benchmarks/flows.py."""


class AbstractDynamics(NamedArguments):
    """A way for parameters to move in slow time. Subclasses are final.

    `draws` says whether `run` looks at the key. For sweeps, `sweepable` names the fields that may
    vary, `precisions` the dtypes of parameters that it runs in, and `even_steps` says whether all
    steps of a run are equally long in slow time, so that runs of as many steps go in step.
    """

    draws: ClassVar[bool] = False
    sweepable: ClassVar[tuple[str, ...]] = ()
    precisions: ClassVar[tuple[str, ...]] = ("float64",)
    even_steps: ClassVar[bool] = False

    @abc.abstractmethod
    def check(self, given: RunInputs) -> None:
        """Raise `ValueError` for arguments that this dynamics cannot run with."""

    def prepared(self, given: RunInputs) -> tuple["AbstractDynamics", RunInputs]:
        """Return the dynamics and what it is given, with all choices made that need numbers.

        Called before anything is traced. Under a transformation the numbers may be unknown. By
        default there is nothing to choose.
        """
        return self, given

    def again(self, given: RunInputs, run: Trajectory) -> RunInputs | None:
        """Return what a run that ended so is to be given for another try, or None, the default, if
        that would change nothing."""
        del given, run
        return None

    def method(self, given: RunInputs) -> str:
        """Return how it runs, in a few words for people: by default nothing beside its name."""
        del given
        return ""

    @abc.abstractmethod
    def run(self, given: RunInputs) -> RunOutputs:
        """The run itself, traced: from `given.params` at tau = 0, recorded at `given.taus`."""

    def is_long(self, given: RunInputs) -> bool:
        """Return whether a run goes in pieces even if nobody asks for its progress, so that Ctrl-C
        ends it soon. False under a transformation, and by default."""
        del given
        return False

    def run_in_pieces(
        self, given: RunInputs, progress: Progress | None, checkpoint: Path | None
    ) -> RunOutputs | None:
        """Return what `run` returns, bit for bit, from a loop on the host; not traceable.

        Called where the user asks for `progress` on the way, or for a `checkpoint`, and where
        `is_long`. None, the default, says that a run takes seconds and has neither.
        """
        del given, progress, checkpoint
        return None

    def cautions(self, stats: Mapping[str, Any]) -> list[Warning]:
        """Return what a user should know of a run that ended well: by default, nothing.

        `stats` may also hold arrays of many runs, NaN for those that did not.
        """
        del stats
        return []

    def expected_steps(self, horizon: float) -> float:
        """Return about how many steps a run to the slow time `horizon` takes.

        The plan of a sweep asks for it: an order of magnitude is enough.
        """
        del horizon
        return 200.0

    def expected_seconds(
        self, problem: AbstractProblem, width: int, taus: Sequence[float]
    ) -> float:
        """Return about how many seconds of one core a run takes, out of many side by side."""
        form = problem.closed_form(width)
        work = (width / 20) ** 2 if form is None else form.relative_work(width)
        return _STEP_SECONDS * self.expected_steps(taus[-1]) * work


def as_taus(taus: Any) -> Any:
    """Return slow times as float64 numbers; those of NumPy go to the device with the others.

    **Raises:** `ValueError` unless they are finite, at least 0, and increase strictly.
    """
    times = as_floats("taus", taus)
    if times.ndim != 1 or times.size == 0:
        raise argument_error("taus", "of shape (T,) with T >= 1", f"of shape {times.shape}")
    if times.dtype != np.float64:
        times = times.astype(np.float64)
    if is_concrete(times):
        _check_times(np.asarray(times))
    return times


def _check_times(times: np.ndarray) -> None:
    # For all at once: what is at fault is looked for only if something is.
    if times[0] >= 0 and (times[1:] > times[:-1]).all() and np.isfinite(times[-1]):
        least = np.diff(times[int(times[0] == 0) :], prepend=0.0).min(initial=np.inf)
        if least < SMALLEST:
            expected = f"0 or at least {SMALLEST:.3g}, and as far apart: less computes as 0"
            raise argument_error("taus", expected, f"{least} apart")
        return
    check_finite("taus", times)
    if times[0] < 0:
        raise argument_error("taus", "slow times of at least 0", f"{times[0]} at position 0")
    i = int(np.flatnonzero(times[1:] <= times[:-1])[0])
    raise argument_error(
        "taus", "strictly increasing", f"{times[i]} then {times[i + 1]} at position {i + 1}"
    )


def check_no_samples(samples: Samples | None, dynamics: str) -> None:
    if samples is not None:
        raise argument_error("samples", f"None for {dynamics}, which draws none", "given")


def only_real(tree: Tree, what: str) -> None:
    """Raise unless every leaf is a float64 array: the flows need it."""
    for leaf in jax.tree.leaves(tree):
        if leaf.dtype != np.float64:
            raise argument_error(what, "of dtype float64 for a flow", f"of dtype {leaf.dtype}")
