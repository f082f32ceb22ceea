"""Flows whose leaves of u have rates: against SciPy, against plain flows of other variables, and
what is conserved."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from quick_programs import quickly
from scipy.integrate import solve_ivp
from small_problems import WIDTH, random_problem, slow_times
from small_studies import compilations

import tts_jax as tts

KEYS = jax.random.split(jax.random.key(0), 3)
X = jax.random.normal(KEYS[0], (12, 2))
Y = jnp.tanh(X[:, 0] - 2 * X[:, 1]) + 0.3 * jax.random.normal(KEYS[1], (12,))
NETWORK = tts.TwoLayerNetwork(tts.Tanh())
PROBLEM = tts.EmpiricalProblem(NETWORK, X, Y)
START = tts.Params(
    jnp.asarray([0.1, 0.5, -0.4, 0.3]),
    {
        "w": jnp.asarray([[1.2, 0.1], [-0.6, 1.1], [0.2, -1.4]]),
        "b": jnp.asarray([0.5, -0.3, 0.2]),
    },
)
# Of a leaf as a whole, of inputs, of single neurons, one of which rests.
RATES = {"w": np.asarray([[0.3, 2.0]]), "b": np.asarray([0.5, 0.0, 3.0])}
TAUS = np.linspace(0.0, 0.5, 4)
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
run_of = quickly(lambda flow: tts.simulate(PROBLEM, flow, START, TAUS))
"""By the Rosenbrock method, compiled once for all rates of one shape."""


def gradient(a, w, b):
    """The gradient of the risk, by hand."""
    x, y = np.asarray(X), np.asarray(Y)
    sigma = np.tanh(x @ w.T + b)
    pull = 2 / len(x) * (a[0] + sigma @ a[1:] - y)
    by_z = pull[:, None] * a[1:] * (1 - sigma**2)
    return np.concatenate([[pull.sum()], pull @ sigma]), by_z.T @ x, by_z.sum(axis=0)


def scipy_flow(epsilon, rates, start=START):
    shapes = [(4,), (3, 2), (3,)]
    ends = np.cumsum([np.prod(shape) for shape in shapes])

    def parts(y):
        return [v.reshape(s) for v, s in zip(np.split(y, ends[:-1]), shapes, strict=True)]

    def velocity(tau, y):
        by_a, by_w, by_b = gradient(*parts(y))
        moved = (-by_a / epsilon, -rates["w"] * by_w, -rates["b"] * by_b)
        return np.concatenate([part.ravel() for part in moved])

    y0 = np.concatenate([np.ravel(v) for v in (start.a, start.u["w"], start.u["b"])])
    options = {"rtol": 1e-10, "atol": 1e-12}
    found = solve_ivp(velocity, (0.0, TAUS[-1]), y0, "Radau", TAUS, **options)
    assert found.success
    rows = [parts(y) for y in found.y.T]
    a, w, b = (np.stack([row[k] for row in rows]) for k in range(3))
    return tts.Params(a, {"w": w, "b": b})


def pairs(one, two):
    return zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)


def assert_close(found, expected, atol):
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, rtol=0, atol=atol), found, expected
    )


@pytest.mark.parametrize("epsilon", [1.0, 1e-3])
def test_the_flow_is_that_of_scipy(epsilon):
    run = run_of(tts.GradientFlow(epsilon, rates=RATES, **TIGHT))
    assert run.solver == "exponential collocation"
    assert_close(run.params, scipy_flow(epsilon, RATES), 1e-7)
    np.testing.assert_array_equal(run.params.u["b"][:, 1], np.full(4, START.u["b"][1]))


@pytest.mark.thorough
def test_an_explicit_solver_takes_the_rates_too():
    flow = tts.GradientFlow(1.0, rates=RATES, solver=diffrax.Tsit5(), **TIGHT)
    run = tts.simulate(PROBLEM, flow, START, TAUS)
    assert run.solver == "Tsit5"
    assert_close(run.params, scipy_flow(1.0, RATES), 1e-7)


def test_the_reduced_flow_is_the_limit_of_the_flow():
    reduced = run_of(tts.ReducedFlow(rates=RATES, ridge=1e-12, **TIGHT)).params
    distances = []
    for epsilon in (1e-4, 1e-5):
        params = run_of(tts.GradientFlow(epsilon, rates=RATES, **TIGHT)).params
        # At tau = 0 the outer layer of the flow is that of the start.
        apart = [np.max(np.abs(one[1:] - two[1:])) for one, two in pairs(params, reduced)]
        distances.append(max(apart))
    assert distances[0] < 1e-2
    assert distances[1] == pytest.approx(distances[0] / 10, rel=0.2)


class Waves(tts.SeparableProblem):
    """Features of any u, which here are those of scale * u."""

    scale: float = 1.0

    def features(self, u, x):
        scale = jnp.asarray(self.scale)
        return jnp.cos(scale * u["phase"][None, :] + x @ u["frequency"].T)


@pytest.mark.thorough
def test_rates_are_another_scale_of_the_parameters():
    """With u = sqrt(rate) v: the flow of u with a rate is the plain flow of v."""
    rate = 0.2
    u = {"phase": jnp.asarray([0.1, 0.7]), "frequency": jnp.asarray([[1.0, 0.2], [-0.5, 0.8]])}
    scaled = u | {"phase": u["phase"] / np.sqrt(rate)}
    a = jnp.asarray([0.5, -0.2])
    for flow in (lambda rates: tts.GradientFlow(1e-2, rates=rates, **TIGHT), reduced_explicitly):
        rates = {"phase": rate, "frequency": 1.0}
        found = tts.simulate(Waves(X, Y), flow(rates), tts.Params(a, u), TAUS)
        plain = tts.simulate(Waves(X, Y, np.sqrt(rate)), flow(None), tts.Params(a, scaled), TAUS)
        phase = np.sqrt(rate) * plain.params.u["phase"]
        assert_close(found.params, plain.params._replace(u=plain.params.u | {"phase": phase}), 1e-7)


def reduced_explicitly(rates):
    import diffrax

    return tts.ReducedFlow(rates=rates, solver=diffrax.Tsit5(), **TIGHT)


@pytest.mark.thorough
def test_equal_rates_are_another_clock():
    """For steps of one input: epsilon da/dtau = -grad_a L, du/dtau = -c grad_u L is the plain flow
    to the time c tau at c epsilon."""
    problem, start = random_problem(1)
    taus, c = slow_times(0.2), 0.4
    run = quickly(lambda flow, taus: tts.simulate(problem, flow, start, taus))
    plain = run(tts.GradientFlow(1e-2 * c, **TIGHT), c * taus)
    found = run(tts.GradientFlow(1e-2, rates=np.full(WIDTH, c), **TIGHT), taus)
    assert found.solver == "Rodas5P, PairwiseForm"
    assert_close(found.params, plain.params, 1e-7)
    np.testing.assert_allclose(found.risk, plain.risk, rtol=0, atol=1e-7)


def test_what_is_conserved_for_relu_without_biases():
    """epsilon a_j^2 - |w_j|^2 / rate, since a_j da_j L = w_j . dw_j L."""
    network = tts.TwoLayerNetwork(tts.ReLU(), bias=False, outer_bias=False)
    problem = tts.EmpiricalProblem(network, X, Y)
    start = tts.init_two_layer(KEYS[2], network, 2, 3, outer_scale=1.0)
    epsilon, rate = 0.5, np.asarray([0.2, 1.0, 5.0])
    flow = tts.GradientFlow(epsilon, rates={"w": rate[:, None]}, **TIGHT)
    run = quickly(lambda flow: tts.simulate(problem, flow, start, TAUS))(flow)
    kept = epsilon * run.params.a**2 - jnp.sum(run.params.u["w"] ** 2, axis=2) / rate[None]
    assert float(jnp.max(jnp.abs(run.params.a[-1] - run.params.a[0]))) > 0.1
    np.testing.assert_allclose(kept, jnp.broadcast_to(kept[:1], kept.shape), rtol=0, atol=1e-6)


def test_rates_of_one_change_nothing():
    plain = run_of(tts.GradientFlow(1e-3, **TIGHT))
    ones = {"w": np.ones((1, 2)), "b": np.ones(3)}
    found = run_of(tts.GradientFlow(1e-3, rates=ones, **TIGHT))
    assert_close(found.params, plain.params, 1e-10)
    assert found.stats["steps"] == plain.stats["steps"]


# Under transformations.


def where_it_ends(numbers):
    flow = tts.GradientFlow(numbers["epsilon"], rates=numbers["rates"], **TIGHT)
    end = tts.simulate(PROBLEM, flow, START, TAUS[-1:]).final
    return end.u["b"] @ jnp.asarray([1.0, 2.0, -1.0])


@pytest.mark.thorough
def test_derivatives_by_rates_are_those_of_differences():
    """Also by a rate of 0, from above, and of all numbers beside it."""
    numbers = jax.tree.map(jnp.asarray, {"epsilon": 0.3, "rates": RATES})
    slopes = ravel_pytree(quickly(jax.grad(where_it_ends))(numbers))[0]
    flat, whole = ravel_pytree(numbers)
    end = quickly(lambda flat: where_it_ends(whole(flat)))
    # Differences of second order, from above.
    steps = np.diag(np.maximum(1e-3 * flat, 1e-3))
    differences = [
        (4 * end(flat + d) - end(flat + 2 * d) - 3 * end(flat)) / (2 * d.sum()) for d in steps
    ]
    assert flat[2] == 0
    assert np.abs(differences[2]) > 1e-3
    np.testing.assert_allclose(slopes, differences, rtol=1e-4, atol=0)


@pytest.mark.thorough
def test_many_rates_at_once_are_each_of_them():
    many = jnp.asarray([0.3, 0.0, 2.0])

    def final(rate):
        flow = tts.GradientFlow(1e-2, rates={"w": 1.0, "b": rate}, **TIGHT)
        return tts.simulate(PROBLEM, flow, START, TAUS[-1:]).final

    together = jax.jit(jax.vmap(final))(many)
    for i, rate in enumerate(many):
        alone = jax.jit(final)(rate)
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone, 1e-12)


@pytest.mark.thorough
def test_new_rates_compile_nothing():
    def run(rates):
        return tts.simulate(PROBLEM, tts.GradientFlow(1e-3, rates=rates), START, TAUS).risk

    first = run({"w": 1.0, "b": 0.25})
    with compilations() as found:
        second = run({"w": 0.5, "b": 0.75})
    assert found == []
    assert not np.array_equal(first, second)
