"""First-passage times: when a function of the parameters first falls to zero along a flow."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import (
    argument_error,
    check_64_bit,
    check_finite,
    check_type,
    is_concrete,
    is_traced,
    told_by,
)
from .._numbers import as_real, check_scalar, shown
from .._programs import compiled
from .._types import Array, Bool, Float, Real, Scalar, Times, Tree, as_arrays
from ..batching.sequential import one_by_one
from ..integrators.passages import first_passages
from ..models.network import Params, as_params
from ..numerics.first_crossing import first_crossings
from ..problems.base import AbstractProblem
from .base import RunInputs
from .flow import AbstractFlow, Motion
from .gradient_flow import GradientFlow
from .reduced_flow import ReducedFlow

Event = Callable[[Params], Array]


def passage_times(
    problem: AbstractProblem,
    flow: GradientFlow | ReducedFlow,
    params: Params,
    horizon: Real,
    event: Event,
) -> Float[Array, "*k"]:
    """Return the first slow times tau at which functions of the parameters are at most 0.

    **Arguments:**

    - `problem`: any problem that the flow runs on.
    - `flow`: a `GradientFlow` or `ReducedFlow`. It takes the method that it takes in `simulate`,
      with its tolerances, rates and limit of steps.
    - `params`: where to start, at tau = 0.
    - `horizon`: the slow time at which the search ends.
    - `event(params)`: a number (), or several (k,), in float64. A passage is a fall from above 0
      to 0 or below, also if it comes back within a step of the solver. For a rise, give minus the
      function; for whichever comes first of several, their minimum. Any function of JAX, such as
      `lambda p: problem.risk(p) - 0.1`. Numbers in an event that is an Equinox module may change
      without another compilation; those that a function closes over compile it anew.

    **Returns:** () or (k,), as `event` does: 0 for one that is at most 0 at the start, infinity for
    one that stays above 0 up to the horizon, and NaN where the flow could not go on, of which
    `simulate` tells the status, or the event became NaN. A fall that lasts less than 1/4096 of a
    step may be missed. The start of a `ReducedFlow` is with its best outer layer, and the outer
    layer of `params` is ignored.

    Works under jit and vmap. Differentiable in the start, the numbers of the problem, the flow and
    the event, as `simulate` is.

    **Raises:** `ValueError` for a horizon that is not positive, for an event that is no function of
    parameters or does not return numbers in float64, and as `simulate` does.
    """
    check_64_bit()
    check_type("problem", problem, AbstractProblem)
    check_type("flow", flow, (GradientFlow, ReducedFlow))
    horizon = as_real("horizon", horizon)
    check_scalar("horizon", horizon, minimum=0.0, strict=True)
    if not callable(event) or isinstance(event, type):
        raise argument_error("event", "a function of parameters", shown(event))
    params = as_params(params)
    problem.check(params)
    check_finite("params", params)
    taus: Any = horizon[None] if isinstance(horizon, jax.Array) else np.asarray([horizon])
    given = RunInputs(problem, params, taus, None, None)
    flow.check(given)
    shape = _shape_of(event, params)
    # What an event closes over, if it is being traced, is told apart: it may have derivatives.
    numbers, rest = eqx.partition(event, eqx.is_array)
    free, traced = jax.closure_convert(
        lambda numbers, params: eqx.combine(numbers, rest)(params),
        numbers,
        jax.tree.map(jnp.asarray, params),
    )
    event = jax.tree_util.Partial(free, numbers) if traced else event
    flow, given = flow.prepared(given)
    given = given._replace(limit=None)  # nobody tries again with more
    inputs = as_arrays((flow, given, event, list(traced)))
    differentiated = not is_concrete(inputs) or is_traced()
    times = _passage_times(*inputs, differentiated)
    return times[0] if shape == () else times


def _shape_of(event: Event, params: Params) -> tuple[int, ...]:
    """Return the shape of what an event returns, which is traced, and not computed."""
    expected = "a function of parameters that returns float64 numbers of shape () or (k,)"
    try:
        found: Any = jax.eval_shape(event, params)
    except Exception as error:  # of the user's function
        got = f"one that fails with {told_by(error)}"
        raise argument_error("event", expected, got) from error
    if not isinstance(found, jax.ShapeDtypeStruct):
        raise argument_error("event", expected, f"one that returns a {type(found).__name__}")
    if found.dtype != np.float64:
        raise argument_error("event", expected, f"one that returns {found.dtype}")
    if len(found.shape) > 1 or 0 in found.shape:
        raise argument_error("event", expected, f"one that returns the shape {found.shape}")
    return found.shape


@compiled
def _passage_times(
    flow: AbstractFlow, given: RunInputs, event: Event, traced: list[Array], differentiated: bool
) -> Float[Array, " k"]:
    numbers, static = eqx.partition((flow, given, event, traced), eqx.is_array)

    def parts(numbers: Tree) -> tuple[AbstractFlow, RunInputs, Event]:
        flow, given, event, traced = eqx.combine(numbers, static)
        return flow, given, lambda params: jnp.reshape(event(params, *traced), -1)

    def find(numbers: Tree) -> Times:
        flow, given, event = parts(numbers)
        return _found(flow, flow.motion(given), given.taus[-1], event)

    times = one_by_one(find)(jax.lax.stop_gradient(numbers))
    if not differentiated:
        return times
    flow, given, event = parts(numbers)
    motion = flow.motion(given)

    def params_of(state: Tree) -> Params:
        return _single(motion.params, state)

    def speed(state: Tree) -> Times:
        params = params_of(state)
        return jax.jvp(event, (params,), (flow.velocity(given.problem, params),))[1]

    return with_derivatives(times, flow, motion, lambda state, i: event(params_of(state))[i], speed)


def _single(params: Callable[[Tree], Params], state: Tree) -> Params:
    """Return the parameters of what is recorded of one state."""
    rows = params(jax.tree.map(lambda leaf: leaf[None], state))
    return jax.tree.map(lambda leaf: leaf[0], rows)


def _found(flow: AbstractFlow, motion: Motion, horizon: Scalar, event: Event) -> Times:
    """Return the times (k,), which have no derivatives."""
    system = motion.system

    def find(y: Tree, step: Any, pending: Bool[Array, " k"]) -> Times:
        def values(part: Scalar) -> Array:
            return event(_single(motion.params, system.interpolate(y, step, part)))

        return first_crossings(values, pending)

    at_start = event(_single(motion.params, system.recorded(motion.start)))
    times = first_passages(system, motion.start, flow.control(horizon), at_start <= 0, find)
    return jnp.where(jnp.isnan(at_start), jnp.nan, times)


def with_derivatives(
    times: Float[Array, " k"],
    flow: AbstractFlow,
    motion: Motion,
    value: Callable[[Tree, Array], Scalar],
    speeds: Callable[[Tree], Float[Array, " k"]],
) -> Float[Array, " k"]:
    """Return times of first passages with their derivatives: at the time at which a function g of
    the state is zero, that by anything else is -dg / (dg/dtau).

    `value(state, i)`: the i-th function of what is recorded of a state; `speeds(state)`: dg/dtau of
    all (k,).
    """
    passed = jnp.isfinite(times) & (times > 0)
    at = jnp.where(passed, times, 0.0)
    order = jnp.argsort(at)
    states = flow.states_at(at[order], motion)

    def shift(entry: tuple[Array, Tree]) -> Scalar:
        i, state = entry
        gap = value(state, i)
        speed = jax.lax.stop_gradient(speeds(state)[i])
        # Zero, but not its derivative.
        return (gap - jax.lax.stop_gradient(gap)) / jnp.where(passed[i], speed, 1.0)

    shifts = jnp.zeros_like(times).at[order].set(jax.lax.map(shift, (order, states)))
    return jnp.where(passed, times - shifts, times)
