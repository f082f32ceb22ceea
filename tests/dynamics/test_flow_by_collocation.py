"""Gradient flows by collocation against the Rosenbrock method, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import quickly

import tts_jax as tts
from tts_jax.dynamics.base import RunInputs
from tts_jax.dynamics.gradient_flow import COLLOCATION

KEYS = jax.random.split(jax.random.key(0), 6)
X = jax.random.normal(KEYS[0], (20, 2))
Y = jnp.stack([jnp.tanh(X[:, 0] - 2 * X[:, 1]), 0.5 * X[:, 0] ** 2], axis=1)
WEIGHTS = jax.random.uniform(KEYS[1], (20,))
TAUS = jnp.asarray([0.0, 2e-4, 1e-3, 1e-2, 0.1, 0.5])


class Waves(tts.SeparableProblem):
    def features(self, u, x):
        phase = x @ u["w"].T
        return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=1)


def of_sample(activation, outputs=None, *, weights=None, penalty=0.0, **options):
    network = tts.TwoLayerNetwork(activation, **options)
    y = Y[:, 0] if outputs is None else Y[:, :outputs]
    problem = tts.EmpiricalProblem(network, X, y, weights=weights, penalty=penalty)
    start = {"outputs": outputs, "bias_scale": 0.5, "outer_scale": 0.3}
    return problem, tts.init_two_layer(KEYS[2], network, 2, 3, **start)


def of_population():
    network = tts.TwoLayerNetwork(tts.Erf(), bias=False)
    teacher = tts.init_two_layer(KEYS[3], network, 2, 2, outer_scale=1.0)
    problem = tts.GaussianProblem(network, tts.Teacher(network, teacher))
    return problem, tts.init_two_layer(KEYS[2], network, 2, 3, outer_scale=0.3)


def of_waves():
    return Waves(X, Y[:, 0]), tts.Params(0.1 * jnp.ones(4), {"w": jnp.eye(2) + 0.3})


CASES = {
    "tanh": lambda: of_sample(tts.Tanh()),
    "erf, two outputs": lambda: of_sample(tts.Erf(), 2, weights=WEIGHTS, penalty=1e-2),
    "no biases": lambda: of_sample(tts.Tanh(), bias=False, outer_bias=False, scaling="ntk"),
    "features of one's own": of_waves,
    "a population": of_population,
}


def rosenbrock(problem, flow, start, taus):
    """A flow by the Rosenbrock method, which such problems take no longer by themselves."""
    return quickly(lambda: flow.run(RunInputs(problem, start, taus, None, None)))()


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES)
def test_it_is_the_flow_of_the_rosenbrock_method(case, monkeypatch):
    # A population takes it by itself only where there are many parameters.
    monkeypatch.setattr("tts_jax.dynamics.gradient_flow.by_collocation", lambda *_: True)
    problem, start = CASES[case]()
    run = tts.simulate(problem, tts.GradientFlow(1e-3, rtol=1e-9, atol=1e-11), start, TAUS)
    assert run.solver == COLLOCATION
    wanted = rosenbrock(problem, tts.GradientFlow(1e-3, rtol=1e-10, atol=1e-12), start, TAUS)
    np.testing.assert_allclose(run.risk, wanted.risk, rtol=1e-7)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), run.params, wanted.params
    )


@pytest.mark.thorough
def test_kinks_cost_steps_and_not_the_error(monkeypatch):
    problem, start = of_sample(tts.ReLU())
    assert tts.simulate(problem, FLOW, start, TAUS).solver != COLLOCATION  # by itself
    monkeypatch.setattr("tts_jax.dynamics.gradient_flow.by_collocation", lambda *_: True)
    flow = tts.GradientFlow(1e-2, rtol=1e-5, atol=1e-7)
    run = tts.simulate(problem, flow, start, TAUS)
    wanted = rosenbrock(problem, tts.GradientFlow(1e-2, rtol=1e-8), start, TAUS)
    np.testing.assert_allclose(run.risk, wanted.risk, rtol=5e-4)
    # epsilon a^2 - |(w, b)|^2 of every neuron is conserved.
    a, w, b = run.params.a[:, 1:], run.params.u["w"], run.params.u["b"]
    conserved = 1e-2 * a**2 - jnp.sum(w**2, axis=2) - b**2
    np.testing.assert_allclose(conserved, jnp.broadcast_to(conserved[0], (6, 3)), atol=1e-4)


PROBLEM, START = of_sample(tts.Tanh())
FLOW = tts.GradientFlow(1e-2, rtol=1e-6, atol=1e-8)


@pytest.fixture(scope="module")
def run():
    return tts.simulate(PROBLEM, FLOW, START, TAUS)


def test_it_says_what_it_took(run):
    assert run.status == tts.Status.OK
    assert run.solver == COLLOCATION
    assert run.stats["steps"] == run.stats["accepted"] + run.stats["rejected"]
    assert 4 * run.stats["steps"] < run.stats["gradients"] < 200
    assert 0 < run.stats["eigenvectors"] <= run.stats["steps"]
    np.testing.assert_array_equal(run.at(0).a, START.a)


def test_a_new_epsilon_and_many_runs_are_the_same_flow(run):
    def risks(epsilon):
        flow = tts.GradientFlow(epsilon, rtol=1e-6, atol=1e-8)
        return tts.simulate(PROBLEM, flow, START, TAUS).risk

    found = jax.jit(jax.vmap(risks))(jnp.asarray([1e-2, 1.0]))
    np.testing.assert_allclose(found[0], run.risk, rtol=1e-10)
    np.testing.assert_allclose(found[1], risks(1.0), rtol=1e-10)


def test_a_run_that_cannot_go_on_says_so():
    few = tts.GradientFlow(1e-2, rtol=1e-6, max_steps=5)
    run = tts.simulate(PROBLEM, few, START, TAUS, throw=False)
    assert run.status == tts.Status.MAX_STEPS
    assert np.all(np.isnan(run.risk[-1:]))


class Edge(tts.SeparableProblem):
    """Features that are no numbers beyond u = 1."""

    def features(self, u, x):
        return jnp.where(u < 1.0, jnp.sin(u * x), jnp.nan)[:, None]


@pytest.mark.parametrize(("at", "status"), [(0.99, "STAGNATION"), (1.0, "NON_FINITE")])
def test_it_stops_where_features_are_no_numbers(at, status):
    x = X[:, 0]
    problem, start = Edge(x, jnp.sin(2 * x)), tts.Params(jnp.ones(1), jnp.asarray(at))
    run = tts.simulate(problem, tts.GradientFlow(0.1), start, TAUS, throw=False)
    assert tts.Status(int(run.status)).name == status


def last_risk(numbers):
    start = tts.Params(numbers["a"], numbers["u"])
    network = tts.TwoLayerNetwork(tts.Tanh(numbers["eta"]))
    problem = tts.EmpiricalProblem(network, X, numbers["y"], penalty=1e-3)
    flow = tts.GradientFlow(numbers["epsilon"], rtol=1e-9, atol=1e-11, max_steps=500)
    return tts.simulate(problem, flow, start, TAUS).risk[3:].sum()


NUMBERS = {
    "epsilon": jnp.asarray(1e-2),
    "a": START.a,
    "u": START.u,
    "y": Y[:, 0],
    "eta": jnp.asarray(1.0),
}


@pytest.mark.thorough
def test_derivatives_in_both_directions_agree_with_differences():
    """Each number moves in proportion to its size."""
    keys = iter(jax.random.split(KEYS[4], 10))
    direction = jax.tree.map(lambda v: v * jax.random.normal(next(keys), v.shape), NUMBERS)
    along = quickly(lambda n: jax.jvp(last_risk, (n,), (direction,)))
    step = 1e-4
    moved = [
        along(jax.tree.map(lambda v, d, s=s: v + s * step * d, NUMBERS, direction))[0]
        for s in (1, -1)
    ]
    difference = (moved[0] - moved[1]) / (2 * step)
    tangent = along(NUMBERS)[1]
    np.testing.assert_allclose(tangent, difference, rtol=1e-5)
    slopes = quickly(jax.grad(last_risk))(NUMBERS)
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), slopes, direction)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), tangent, rtol=1e-9)
