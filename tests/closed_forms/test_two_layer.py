"""The gradient and the Hessian of two-layer networks against automatic differentiation."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import tts_jax as tts
from tts_jax.closed_forms import two_layer
from tts_jax.closed_forms.gradient_system import MOST_DENSE
from tts_jax.dynamics.base import RunInputs

KEYS = jax.random.split(jax.random.key(0), 6)
X = jax.random.normal(KEYS[0], (23, 3))
Y = jax.random.normal(KEYS[1], (23, 2))
WEIGHTS = jax.random.uniform(KEYS[2], (23,))


def problem_and_params(outputs=None, activation=None, **options):
    activation = tts.Tanh(0.7) if activation is None else activation
    network = tts.TwoLayerNetwork(activation, **options)
    y = Y[:, 0] if outputs is None else Y[:, :outputs]
    problem = tts.EmpiricalProblem(network, X, y, weights=WEIGHTS, penalty=0.01)
    start = {"outputs": outputs, "bias_scale": 1.0, "outer_scale": 1.0}
    return problem, tts.init_two_layer(KEYS[3], network, 3, 4, **start)


def system_of(problem, epsilon=0.1, ridge=0.0):
    return problem.closed_form(4).system(jnp.asarray(epsilon), jnp.asarray(ridge))


CASES = {
    "as it comes": {},
    "two outputs": {"outputs": 2},
    "no biases": {"bias": False, "outer_bias": False, "scaling": "ntk"},
    "no inner biases": {"bias": False, "outputs": 2, "scaling": "mean-field"},
    "no outer bias": {"outer_bias": False, "outputs": 1},
    "kinks": {"activation": tts.ReLU()},
}


@pytest.mark.parametrize("blocks", [False, True], ids=["at once", "in blocks"])
@pytest.mark.parametrize("case", CASES)
def test_they_are_those_of_automatic_differentiation(case, blocks, monkeypatch):
    if blocks:
        monkeypatch.setattr(two_layer, "_BLOCK", 7)
    problem, params = problem_and_params(**CASES[case])
    form, system = problem.closed_form(4), system_of(problem)
    flat, whole = ravel_pytree(params)

    @jax.jit
    def both(flat):
        state, kept = form.to_state(whole(flat))
        back = ravel_pytree(form.to_params(state, kept))[0]
        found = ravel_pytree(system.gradient(state))[0], system.hessian(state), back
        risk = lambda flat: problem.risk(whole(flat))  # noqa: E731
        return found, (jax.grad(risk)(flat), jax.hessian(risk)(flat), flat)

    for found, wanted in zip(*both(flat), strict=True):
        assert jnp.linalg.norm(wanted) > 0.1
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)


def test_the_damping_is_twice_the_ridge_times_the_mean_square_of_a_feature():
    problem, params = problem_and_params(outputs=2)
    phi = problem.network.features(params.u, X)
    squares = (WEIGHTS / WEIGHTS.sum()) @ phi**2
    found = system_of(problem, ridge=0.3).damping(params)
    np.testing.assert_allclose(found, 0.6 * jnp.stack([squares, squares], axis=1), rtol=1e-13)


TAUS = jnp.asarray([0.0, 0.02, 0.1])


@pytest.mark.thorough
def test_a_flow_is_that_by_another_method():

    problem, params = problem_and_params()
    tight = {"rtol": 1e-9, "atol": 1e-11}
    # By the Rosenbrock method, which the flow no longer takes by itself.
    given = RunInputs(problem, params, TAUS, None, None)
    flow = tts.GradientFlow(1e-4, **tight)
    assert "TwoLayerForm" in flow.method(given)
    run = jax.jit(lambda: flow.run(given))()
    other = tts.GradientFlow(1e-4, solver=diffrax.Tsit5(), **tight)
    wanted = tts.simulate(problem, other, params, TAUS)
    np.testing.assert_allclose(run.risk, wanted.risk, rtol=1e-8)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), run.params, wanted.params
    )


@pytest.mark.parametrize("offset", [pytest.param(0.0, marks=pytest.mark.thorough), 1000.0])
def test_the_reduced_flow_has_the_best_outer_layer_whatever_the_labels_have_in_common(offset):
    problem, params = problem_and_params()
    raised = tts.EmpiricalProblem(problem.network, X, Y[:, 0] + offset, weights=WEIGHTS)
    run = tts.simulate(raised, tts.ReducedFlow(rtol=1e-8, ridge=1e-4), params, TAUS)
    assert run.solver == "Tsit5"
    best = jax.vmap(lambda u: raised.best_outer(u, ridge=1e-4))(run.params.u)
    np.testing.assert_allclose(run.params.a, best, atol=1e-5)
    assert np.all(np.diff(run.risk) < 0)


def test_it_is_there_for_small_networks_of_the_package_alone():
    problem, _ = problem_and_params()
    assert problem.closed_form(4) is not None
    assert problem.closed_form(MOST_DENSE // 4) is None
    norm = tts.EmpiricalProblem(problem.network, X, Y[:, 0], loss="norm")
    assert norm.closed_form(4) is None

    class Mine(tts.TwoLayerNetwork):
        pass

    assert tts.EmpiricalProblem(Mine(tts.Tanh()), X, Y[:, 0]).closed_form(4) is None


def test_a_feature_that_vanishes_has_no_weight_and_stops_no_reduced_flow():
    x = jnp.abs(X[:, :2])
    network = tts.TwoLayerNetwork(tts.ReLU())
    w = jnp.asarray([[1.0, 2.0], [2.0, 1.0], [-1.0, -1.0]])
    u = {"w": w, "b": jnp.asarray([-0.5, -0.2, 0.0])}
    problem = tts.EmpiricalProblem(network, x, Y[:, 0])
    run = tts.simulate(problem, tts.ReducedFlow(rtol=1e-6), tts.Params(jnp.zeros(4), u), TAUS)
    assert run.solver == "Tsit5"
    np.testing.assert_allclose(run.params.a[:, 3], 0.0, atol=1e-12)
    assert np.all(np.diff(run.risk) < 0)
