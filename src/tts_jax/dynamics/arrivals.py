"""When neurons arrive at the jumps, along the gradient flow at a finite epsilon."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx

from .._errors import argument_error, check_64_bit, check_scalar, check_type
from .._types import Array, Float, Real, Scalar, as_arrays
from ..closed_forms.pairwise import PairwiseState, state_of
from ..closed_forms.pairwise_system import PairwiseGradientSystem
from ..integrators.diffrax.rodas5p import Rodas5P
from ..models.network import Params
from ..models.targets import PiecewiseConstant
from ..problems.population import Problem
from .autodiff_system import step_risk
from .gradient_flow import GradientFlow


def arrival_times(
    problem: Problem, flow: GradientFlow, params: Params, horizon: Real, *, within: Real
) -> Float[Array, " n-1"]:
    """Slow times tau at which the first neuron comes within a distance of each jump.

    **Arguments:** a problem with a target of jumps; the flow, whose tolerances and step limit
    hold; the start; `horizon`, the slow time up to which is looked; `within`, the distance that
    counts as arrived, such as eta/2, where a jump is covered.

    **Returns:** (n-1,): 0 for a jump that is covered at the start, infinity for one that is not
    reached by then, NaN where the flow could not go on. Differentiable, forward and reverse, in the
    start, epsilon, `within`, and the numbers of the problem.

    As epsilon, eta and `within` go to 0 they become `hit_times`.

    **Raises:** `ValueError` for a problem without jumps and numbers that are not positive.
    """
    check_64_bit()
    check_type("problem", problem, Problem)
    check_type("flow", flow, GradientFlow)
    check_scalar("horizon", horizon, minimum=0.0, strict=True)
    check_scalar("within", within, minimum=0.0, strict=True)
    if step_risk(problem) is None:
        raise argument_error(
            "problem", "one of a ShallowNetwork of steps and a PiecewiseConstant target", problem
        )
    problem.check(params)
    start = state_of(jax.tree.map(jnp.asarray, params))
    return _arrivals(*as_arrays((problem, flow, start, horizon, within)))


@eqx.filter_jit
def _arrivals(
    problem: Problem, flow: GradientFlow, start: PairwiseState, horizon: Scalar, within: Scalar
) -> Array:
    risk, target = step_risk(problem), problem.target
    assert risk is not None
    assert isinstance(target, PiecewiseConstant)
    system = PairwiseGradientSystem(risk, jnp.asarray(flow.epsilon), jnp.zeros(()))

    def distance(u: Array, jump: Scalar, within: Scalar) -> Scalar:
        return jnp.min(jnp.abs(u - jump)) - within

    def arrival(jump: Scalar) -> Scalar:
        fixed = jax.lax.stop_gradient((jump, within))
        event = diffrax.Event(
            lambda t, y, args, **kwargs: distance(y.u, *fixed), optx.Newton(1e-12, 1e-12)
        )
        time = _event_time(*jax.lax.stop_gradient((system, flow, start, horizon)), event)
        # The derivative of the time at which a distance is zero, by that of the distance then.
        there = flow.state_at(jnp.where(jnp.isfinite(time), time, horizon), system, start)
        gap, speed = jax.jvp(
            lambda u: distance(u, jump, within), (there.u,), (system.velocity(there).u,)
        )
        speed = jax.lax.stop_gradient(jnp.where(jnp.isfinite(time), speed, 1.0))
        later = (gap - jax.lax.stop_gradient(gap)) / speed
        time = jnp.where(jnp.isfinite(time), time - later, time)
        return jnp.where(distance(start.u, jump, within) <= 0, 0.0, time)

    return jax.lax.map(arrival, jnp.asarray(target.jumps))


def _event_time(
    system: PairwiseGradientSystem,
    flow: GradientFlow,
    start: PairwiseState,
    horizon: Scalar,
    event: diffrax.Event,
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
