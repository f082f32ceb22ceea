"""Arrival times of neurons at the jumps, along the gradient flow at a finite epsilon."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx

from .._errors import argument_error, check_64_bit, check_type
from .._numbers import as_leaves, as_real, check_scalar
from .._types import Array, Float, Real, Scalar, Tree, as_arrays
from ..integrators.diffrax.rodas5p import Rodas5P
from ..integrators.rosenbrock import AbstractSystem
from ..models.network import Params
from ..models.targets import PiecewiseConstant
from ..problems.population import Problem
from .base import only_real
from .gradient_flow import GradientFlow


def arrival_times(
    problem: Problem, flow: GradientFlow, params: Params, horizon: Real, *, within: Real
) -> Float[Array, " n-1"]:
    """Return the slow times tau at which the first neuron comes within a distance of each jump.

    **Arguments:** a problem with a piecewise constant target; the flow, of which the tolerances and
    the limit of steps are used; the start; `horizon`, the slow time at which the search ends;
    `within`, the distance that counts as arrived, such as eta/2, where a jump is covered.

    **Returns:** (n-1,): 0 for a jump that is covered at the start, infinity for one that is not
    reached before the horizon, NaN where the flow could not go on. Differentiable, forward and
    reverse, in the start, epsilon, `within`, and the numbers of the problem.

    As epsilon, eta and `within` go to 0, the times tend to `hit_times`.

    **Raises:** `ValueError` for a problem without jumps and numbers that are not positive.
    """
    check_64_bit()
    check_type("problem", problem, Problem)
    check_type("flow", flow, GradientFlow)
    horizon, within = as_real("horizon", horizon), as_real("within", within)
    check_scalar("horizon", horizon, minimum=0.0, strict=True)
    check_scalar("within", within, minimum=0.0, strict=True)
    check_type("params", params, Params)
    params = Params(as_leaves("params.a", params.a), as_leaves("params.u", params.u))
    problem.check(params)
    only_real(params, "params")
    if problem.closed_form(problem.width(params)) is None:
        raise argument_error(
            "problem", "one of a ShallowNetwork of steps and a PiecewiseConstant target", problem
        )
    return _arrivals(*as_arrays((problem, flow, params, horizon, within)))


@eqx.filter_jit
def _arrivals(
    problem: Problem, flow: GradientFlow, params: Params, horizon: Scalar, within: Scalar
) -> Array:
    form, target = problem.closed_form(problem.width(params)), problem.target
    assert form is not None
    assert isinstance(target, PiecewiseConstant)
    start, kept = form.to_state(params)
    system = form.system(jnp.asarray(flow.epsilon), jnp.zeros(()))

    def distance(y: Tree, jump: Scalar, within: Scalar) -> Scalar:
        return jnp.min(jnp.abs(form.to_params(y, kept).u - jump)) - within

    def arrival(jump: Scalar) -> Scalar:
        fixed = jax.lax.stop_gradient((jump, within))
        event = diffrax.Event(
            lambda t, y, args, **kwargs: distance(y, *fixed), optx.Newton(1e-12, 1e-12)
        )
        time = _event_time(*jax.lax.stop_gradient((system, flow, start, horizon)), event)
        # The derivative of the time at which a distance g is zero: -dg / (dg/dtau) at that time.
        state = flow.state_at(jnp.where(jnp.isfinite(time), time, horizon), system, start)
        gap, speed = jax.jvp(
            lambda y: distance(y, jump, within), (state,), (system.velocity(state),)
        )
        speed = jax.lax.stop_gradient(jnp.where(jnp.isfinite(time), speed, 1.0))
        shift = (gap - jax.lax.stop_gradient(gap)) / speed  # zero, but not its derivative
        time = jnp.where(jnp.isfinite(time), time - shift, time)
        return jnp.where(distance(start, jump, within) <= 0, 0.0, time)

    return jax.lax.map(arrival, jnp.asarray(target.jumps))


def _event_time(
    system: AbstractSystem, flow: GradientFlow, start: Tree, horizon: Scalar, event: diffrax.Event
) -> Scalar:
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: system.velocity(y)),
        Rodas5P(system),
        t0=jnp.zeros_like(horizon),
        t1=horizon,
        dt0=None,
        y0=start,
        stepsize_controller=diffrax.PIDController(rtol=flow.rtol, atol=flow.atol),
        event=event,
        max_steps=flow.max_steps,
        throw=False,
    )
    assert solution.ts is not None
    arrived = solution.result == diffrax.RESULTS.event_occurred
    ended = solution.result == diffrax.RESULTS.successful
    return jnp.where(arrived, solution.ts[-1], jnp.where(ended, jnp.inf, jnp.nan))
