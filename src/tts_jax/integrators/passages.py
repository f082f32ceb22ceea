"""When the run of a system first passes something, found step by step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._types import Array, Bool, Float, Tree
from .loop import LoopState, initial_state, is_running, try_step
from .rosenbrock import AbstractSystem
from .step_size import StepControl

FindPassages = Callable[[Tree, Any, Bool[Array, " k"]], Float[Array, " k"]]
"""From a state, the step from there, and which of k passages have not happened yet, to the part of
the step after which each happens: infinity where it does not, NaN where nobody can tell."""


def first_passages(
    system: AbstractSystem,
    y: Tree,
    control: StepControl,
    passed: Bool[Array, " k"],
    find: FindPassages,
) -> Float[Array, " k"]:
    """Return the times of the first passages on the way from y at time 0 to the horizon.

    `passed`: those that have happened at the start, at time 0. One that does not happen before the
    horizon has infinity, and NaN if the run does not get there. One run finds all, and ends with
    the last of them.
    """

    def body(state: tuple[LoopState, Array]) -> tuple[LoopState, Array]:
        before, times = state
        good, h, step, after = try_step(system, before, control)
        pending = jnp.isinf(times)
        parts = jax.lax.cond(
            good,
            lambda: find(before.y, step, pending),
            lambda: jnp.full_like(times, jnp.inf),
        )
        return after, jnp.where(pending, before.t + h * parts, times)

    def goes_on(state: tuple[LoopState, Array]) -> Array:
        now, times = state
        return is_running(now, control) & jnp.any(jnp.isinf(times))

    times = jnp.where(passed, jnp.zeros_like(control.horizon), jnp.inf)
    now, times = jax.lax.while_loop(goes_on, body, (initial_state(system, y, control), times))
    ended = now.t >= control.horizon
    return jnp.where(jnp.isinf(times) & ~ended, jnp.nan, times)
