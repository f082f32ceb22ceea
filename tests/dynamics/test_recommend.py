"""Which solver is recommended."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import tts_jax as tts
from tts_jax.dynamics.base import RunInputs
from tts_jax.dynamics.recommend import MOST_DENSE, largest_rate

TARGET = tts.PiecewiseConstant([0.4], [0.0, 1.0])
STEPS = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=0.05)), TARGET)
SMOOTH = tts.Problem(tts.ShallowNetwork(tts.Tanh(eta=0.05)), TARGET)


@pytest.mark.parametrize("epsilon", [1.0, 1e-6])
@pytest.mark.parametrize("width", [3, 1000])
def test_with_a_closed_form_the_method_of_the_package(epsilon, width):
    assert tts.recommended_solver(epsilon, width, STEPS) is None


@pytest.mark.parametrize("width", [3, 1000])
def test_without_one_an_explicit_method_until_epsilon_is_small(width):
    assert isinstance(tts.recommended_solver(1e-2, width, SMOOTH), diffrax.Tsit5)
    assert tts.recommended_solver(1e-5, width, SMOOTH) is None


@pytest.mark.thorough
def test_what_is_recommended_runs():
    start = tts.Params(np.zeros(3), np.asarray([0.2, 0.6]))
    solver = tts.recommended_solver(1e-2, 2, SMOOTH)
    run = tts.simulate(SMOOTH, tts.GradientFlow(1e-2, solver=solver), start, [0.1])
    assert run.status == tts.Status.OK


def test_the_horizon_and_the_number_of_parameters_count():
    # An explicit method would need 400 000 steps to tau = 6.
    assert isinstance(tts.recommended_solver(1e-4, 20, SMOOTH, horizon=0.01), diffrax.Tsit5)
    assert tts.recommended_solver(1e-4, 20, SMOOTH, horizon=6.0) is None
    long = {"horizon": 3.0}
    assert tts.recommended_solver(1e-3, 20, SMOOTH, **long) is None
    many = tts.recommended_solver(1e-3, 20, SMOOTH, parameters=5000, **long)
    assert isinstance(many, diffrax.Tsit5)


def start_of(width):
    return tts.Params(jnp.full(width + 1, 0.1), jnp.linspace(0.05, 0.95, width))


@pytest.mark.parametrize("epsilon", [1.0, 1e-3])
def test_the_largest_rate_is_that_of_the_linear_flow(epsilon):
    start = start_of(4)
    flat, whole = ravel_pytree(start)
    hessian = np.asarray(jax.jit(jax.hessian(lambda v: SMOOTH.risk(whole(v))))(flat))
    masses = np.asarray([*[epsilon] * 5, *[1.0] * 4])
    rates = np.linalg.eigvals(hessian / masses[:, None])
    found = float(largest_rate(SMOOTH, start, jnp.asarray(epsilon)))
    np.testing.assert_allclose(found, np.max(np.abs(rates)), rtol=1e-2)
    of_leaves = np.asarray([0.0, 30.0, 1.0, 2.0])  # rates of the positions
    rates = np.linalg.eigvals(np.asarray([*[1 / epsilon] * 5, *of_leaves])[:, None] * hessian)
    found = float(largest_rate(SMOOTH, start, jnp.asarray(epsilon), jnp.asarray(of_leaves)))
    np.testing.assert_allclose(found, np.max(np.abs(rates)), rtol=1e-2)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("epsilon", "horizon", "solver"), [(1e-2, 0.3, "Tsit5"), (1e-5, 0.3, "Rodas5P")]
)
def test_a_flow_takes_the_method_that_costs_less_by_itself(epsilon, horizon, solver):
    start, taus = start_of(4), np.asarray([0.5 * horizon, horizon])
    run = tts.simulate(SMOOTH, tts.GradientFlow(epsilon, rtol=1e-7), start, taus)
    assert run.solver.startswith(solver)
    other = tts.stiff_solver() if solver == "Tsit5" else tts.Rodas5P()
    same = tts.simulate(SMOOTH, tts.GradientFlow(epsilon, rtol=1e-7, solver=other), start, taus)
    assert same.solver == type(other).__name__
    np.testing.assert_allclose(run.risk, same.risk, rtol=1e-5)


class ManyWeights(tts.AbstractProblem):
    """A quadratic risk of any number of parameters."""

    def risk(self, params):
        return jnp.sum(params.a**2) + jnp.sum(params.u**2)


def prepared(flow, params, last):
    taus = jnp.asarray([last])
    return flow.prepared(RunInputs(ManyWeights(), params, taus, None, None))[0]


def test_a_stiff_flow_of_many_parameters_is_told_and_one_that_is_not_stiff_is_explicit():
    params = tts.Params(jnp.ones(300), jnp.ones(300))
    with pytest.warns(tts.CostlyRunWarning, match="600 parameters"):
        assert prepared(tts.GradientFlow(1e-7), params, 100.0).solver is None
    assert isinstance(prepared(tts.GradientFlow(1e-2), params, 1.0).solver, diffrax.Tsit5)


@pytest.mark.parametrize(("count", "explicit"), [(2, False), (MOST_DENSE, True)])
def test_where_numbers_are_unknown_the_number_of_parameters_decides(count, explicit):
    found = []

    def traced(epsilon):
        flow = prepared(tts.GradientFlow(epsilon), tts.Params(jnp.ones(count), jnp.ones(1)), 1.0)
        found.append(flow.solver is not None)
        return epsilon

    jax.eval_shape(traced, 1.0)
    assert found == [explicit]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((0.0, 3, SMOOTH), "epsilon"), ((1.0, 0, SMOOTH), "width"), ((1.0, 3, TARGET), "problem")],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises((ValueError, TypeError), match=named):
        tts.recommended_solver(*arguments)
