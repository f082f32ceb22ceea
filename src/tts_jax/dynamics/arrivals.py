"""Arrival times of neurons at the jumps, along the gradient flow at a finite epsilon."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_64_bit, check_type
from .._numbers import as_real, check_scalar
from .._programs import compiled
from .._types import Array, Float, Real, Scalar, Times, Tree, as_arrays
from ..integrators.passages import first_passages
from ..integrators.rosenbrock import AbstractStagedSystem, SolverStep, interpolate
from ..integrators.step_size import StepControl
from ..models.network import Params, as_params
from ..models.targets import PiecewiseConstant
from ..numerics.first_root import bernstein_minimum, first_root
from ..problems.population import Problem
from .base import only_real
from .flow import Motion
from .gradient_flow import GradientFlow
from .passages import with_derivatives
from .rates import check_rates_fit


def arrival_times(
    problem: Problem, flow: GradientFlow, params: Params, horizon: Real, *, within: Real
) -> Float[Array, " n-1"]:
    """Return the slow times tau at which the first neuron comes within a distance of each jump.

    **Arguments:** a problem with a piecewise constant target; the flow, of which the tolerances,
    the rates and the limit of steps are used; the start; `horizon`, the slow time at which the
    search ends; `within`, the distance that counts as arrived, such as eta/2, where a jump is
    covered.

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
    params = as_params(params)
    problem.check(params)
    only_real(params, "params")
    check_rates_fit(flow.rates, params.u)
    if problem.closed_form(problem.width(params)) is None:
        raise argument_error(
            "problem", "one of a ShallowNetwork of steps and a PiecewiseConstant target", problem
        )
    return _arrivals(*as_arrays((problem, flow, params, horizon, within)))


@compiled
def _arrivals(
    problem: Problem, flow: GradientFlow, params: Params, horizon: Scalar, within: Scalar
) -> Array:
    form, target = problem.closed_form(problem.width(params)), problem.target
    assert form is not None
    assert isinstance(target, PiecewiseConstant)
    form = form if flow.rates is None else form.with_hessian()
    start, kept = form.to_state(params)
    system = flow.with_rates(form.system(jnp.asarray(flow.epsilon), jnp.zeros(())), params.u)

    def positions(y: Tree) -> Array:
        return form.to_params(y, kept).u

    def distance(y: Tree, jump: Scalar, within: Scalar) -> Scalar:
        return jnp.min(jnp.abs(positions(y) - jump)) - within

    def speeds(y: Tree) -> Times:
        def distances(y: Tree) -> Times:
            return jax.vmap(lambda jump: distance(y, jump, within))(jumps)

        return jax.jvp(distances, (y,), (system.velocity(y),))[1]

    jumps = jnp.asarray(target.jumps)
    control = flow.control(horizon)
    fixed = jax.lax.stop_gradient((system, start, control, jumps, within))
    times = _arrivals_found(positions, *fixed)
    return with_derivatives(
        times,
        flow,
        Motion(system, start, lambda states: form.to_params(states, kept)),
        lambda y, i: distance(y, jumps[i], within),
        speeds,
    )


_NODES = np.linspace(0.0, 1.0, 5)
_FIT = np.linalg.inv(np.vander(_NODES, increasing=True))
"""From the values of a polynomial of degree 4, that of the dense output, to its coefficients."""


def _arrivals_found(
    positions: Callable[[Tree], Array],
    system: AbstractStagedSystem,
    start: Tree,
    control: StepControl,
    jumps: Array,
    within: Scalar,
) -> Array:
    """Return the times (n-1,) at which the first neuron comes near each jump, as `arrival_times`.

    A neuron may pass a jump within a step, there and back, so that the ends of the steps do not
    tell: the roots of the dense output do, which is a polynomial.
    """

    def gaps(before: Tree, step: SolverStep) -> Array:
        """Return the coefficients (5, n-1, m) of the distances to the jumps, less `within`."""
        states = jax.vmap(lambda part: interpolate(before, step, part))(jnp.asarray(_NODES))
        places = positions(states)
        moved = jnp.tensordot(jnp.asarray(_FIT), places - places[:1], 1)
        offset = places[:1] - jumps[:, None]
        side = jnp.where(offset >= 0, 1.0, -1.0)
        return (side[None] * moved[:, None, :]).at[0].add(side * offset - within)

    def find(before: Tree, step: SolverStep, pending: Array) -> Array:
        coefficients = gaps(before, step)
        return jax.lax.cond(
            jnp.any(bernstein_minimum(coefficients) <= 0),
            lambda: jnp.min(first_root(coefficients), axis=1),
            lambda: jnp.full(pending.shape, jnp.inf),
        )

    nearest = jnp.min(jnp.abs(positions(start)[None, :] - jumps[:, None]), axis=1)
    return first_passages(system, start, control, nearest <= within, find)
