"""Error and status messages: what was expected, what came, and what to change."""

import enum
from typing import Any

import jax.core
import jax.numpy as jnp
import numpy as np


class Status(enum.IntEnum):
    """How a simulation ended. `Status(code).message` says what to change."""

    OK = 0
    MAX_STEPS = 1
    STAGNATION = 2
    SOLVER = 3
    NON_FINITE = 4
    TOO_FEW_NEURONS = 5
    TOO_FEW_SAMPLES = 6
    CROWDED = 7
    DIVERGED = 8

    @property
    def message(self) -> str:
        return _MESSAGES[self]


_MESSAGES = {
    Status.OK: "reached the last recorded time",
    Status.MAX_STEPS: "the step limit was reached before the last recorded time; raise "
    "`max_steps`, loosen `rtol` and `atol`, ask for earlier `taus`, or name another `solver`: an "
    "implicit one such as `tts.stiff_solver()` where the flow is stiff",
    Status.STAGNATION: "the step size fell to the resolution of the clock; the tolerance cannot "
    "be met: loosen `rtol` and `atol`, or check that the risk is finite and differentiable there",
    Status.SOLVER: "the nonlinear solves of the implicit method failed; loosen `rtol` and `atol` "
    "or choose another `solver`",
    Status.NON_FINITE: "the parameters or the risk became infinite or NaN; lower `step_size` "
    "(SGD), or check that the risk is finite near the last valid parameters",
    Status.TOO_FEW_NEURONS: "the limit flow needs two neurons in every piece of the target; start "
    "from other positions or a larger width",
    Status.TOO_FEW_SAMPLES: "`samples` end before the last recorded time; give a longer stream or "
    "ask for earlier `taus`",
    Status.CROWDED: "more than 512 neurons overlap, which is more than wide networks are made for; "
    "take a smaller `eta`, a smaller width, or start further apart",
    Status.DIVERGED: "the risk grew to more than a hundred million times that of the start; lower "
    "`step_size`, or the rates of the `optimiser`",
}

SMALLEST = float(np.finfo(np.float64).tiny)
"""The smallest number that is not computed with as zero."""


class SimulationError(RuntimeError):
    """A simulation that could not go on. `trajectory` holds its data up to that time."""

    def __init__(self, message: str, trajectory: Any):
        super().__init__(message)
        self.trajectory = trajectory

    def __reduce__(self) -> tuple:
        # A pool of processes that cannot make an exception again waits for it without an end.
        return type(self), (*self.args, self.trajectory), self.__dict__


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written. The run goes on, and is returned."""


class CoarseStepsWarning(UserWarning):
    """The training steps of SGD are so large that it does not follow the flow."""


class CostlyRunWarning(UserWarning):
    """A flow is about to take long, since its risk is not known in closed form."""


class NotAffineWarning(UserWarning):
    """A model is not affine in its fast leaves: there is no reduced flow of it."""


class OffScaleWarning(UserWarning):
    """Inputs lie outside [0, 1], where all neurons start: most of them are never fitted."""


class QuadratureWarning(UserWarning):
    """The quadrature rule of the risk is not exact enough for a target."""


class SlowSettingsWarning(UserWarning):
    """Simulations take several times as long as they need, for want of `tts.configure()`."""


def is_concrete(*values: Any) -> bool:
    """Return whether no leaf of the values is being traced, so that numbers can be looked at."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def is_traced() -> bool:
    """Return whether this is called while a function is traced, such as inside `jax.jit`: then the
    results of computations are unknown even where all that they are made of is known."""
    return isinstance(jnp.zeros(()) + 0.0, jax.core.Tracer)


def has_started() -> bool:
    """Return whether JAX computes already: then it refuses another number of CPU devices."""
    now = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    try:
        jax.config.update("jax_num_cpu_devices", now + 1)
    except RuntimeError:
        return True
    jax.config.update("jax_num_cpu_devices", now)
    return False


def argument_error(name: str, expected: str, got: Any) -> ValueError:
    """Return the error for an argument: every such message has this form."""
    return ValueError(f"Argument `{name}` must be {expected}, but is {got}.")


def told_by(error: Exception) -> str:
    """Return the class of an error and the first line of what it says, for the message of another:
    a function of the user's may fail in any way."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def check_type(name: str, value: Any, kind: type | tuple[type, ...], *, hint: str = "") -> None:
    """Raise unless `value` is an instance of `kind`; a class says that it was not called."""
    if isinstance(value, kind):
        return
    got = f"of type {type(value).__name__}"
    if isinstance(value, type):
        got = f"the class {value.__name__} itself: call it to make an instance"
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = " or ".join(one.__name__.split(".")[-1] for one in kinds)
    raise argument_error(name, f"of type {names}{hint}", got)


def check_64_bit() -> None:
    """Raise unless JAX is in 64-bit mode."""
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            "Simulations need 64-bit numbers, but JAX is in 32-bit mode. Before the first "
            "computation call `tts.configure()`, or set JAX_ENABLE_X64=1."
        )


def check_finite(name: str, tree: Any) -> None:
    """Raise if a number anywhere in the pytree is infinite or NaN; traced leaves are skipped."""
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.core.Tracer) or np.isfinite(np.asarray(leaf)).all():
            continue
        places = places_in(~np.isfinite(np.asarray(leaf)))
        raise argument_error(name, "finite", f"infinite or NaN in {places}")


def places_in(bad: np.ndarray) -> str:
    """Return in words how many places of an array are bad, and in which rows they are."""
    places = np.argwhere(bad)
    words = f"{len(places)} place(s)"
    if np.ndim(bad) == 0:
        return words
    rows = np.unique(places[:, 0]).tolist()
    more = ", ..." if len(rows) > _ROWS else ""
    return f"{words}, row(s) {', '.join(map(str, rows[:_ROWS]))}{more}"


_ROWS = 5
"""Rows that a message names, at most."""


def check_increasing(name: str, values: Any, *, low: float, high: float, what: str) -> None:
    """Raise unless a 1-d array increases strictly within (low, high)."""
    if np.ndim(values) != 1:
        raise argument_error(name, "one-dimensional", f"of shape {np.shape(values)}")
    check_finite(name, values)
    if not is_concrete(values):
        return
    numbers = np.asarray(values)
    if np.any(np.diff(numbers) <= 0):
        raise argument_error(name, f"{what} in increasing order, each once", numbers.tolist())
    if np.any(numbers <= low) or np.any(numbers >= high):
        raise argument_error(name, f"{what} inside ({low:g}, {high:g})", numbers.tolist())
