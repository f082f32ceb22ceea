"""The reduced flow as the limit of the gradient flow, and the limit flow as its own."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import quickly
from small_problems import WIDTH, NumpyRisk, random_problem, slow_times, small_problem, spread_start

import tts_jax as tts

# In 0.01 no neuron of `spread_start` arrives at a jump, at any eta below.
LAST = 0.01


def slope(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


@pytest.fixture(scope="module")
def reduced():
    flow = tts.ReducedFlow(rtol=1e-10, atol=1e-12)
    return tts.simulate(small_problem(), flow, spread_start(), slow_times(LAST))


def test_distance_to_the_gradient_flow_is_of_order_epsilon(reduced):
    epsilons = [1e-5, 1e-6, 1e-7]
    risk, u = [], []
    for epsilon in epsilons:
        flow = tts.GradientFlow(epsilon, rtol=1e-10, atol=1e-12)
        run = tts.simulate(small_problem(), flow, spread_start(), slow_times(LAST))
        apart = tts.metrics.distance(run, reduced)
        # At tau = 0 the gradient flow still has a = 0: the first layer of time is not of order eps.
        risk.append(float(jnp.max(apart[0][1:])))
        u.append(float(jnp.max(apart[1][1:])))
    assert slope(epsilons, risk) == pytest.approx(1.0, abs=0.1)
    assert slope(epsilons, u) == pytest.approx(1.0, abs=0.1)


def test_the_record_holds_the_best_outer_layer(reduced):
    """The gradient in a, by an independent formula, is what the ridge leaves: 2 ridge H_ii a_i."""
    risk = NumpyRisk(small_problem())
    for a, u in zip(np.asarray(reduced.params.a), np.asarray(reduced.params.u), strict=True):
        _, by_a, _ = risk(a, u)
        assert np.max(np.abs(by_a)) <= 2 * tts.ReducedFlow().ridge * np.max(np.abs(a)) + 1e-13


def test_the_outer_layer_of_the_start_is_ignored(reduced):
    start = spread_start()._replace(a=jnp.arange(WIDTH + 1.0))
    flow = tts.ReducedFlow(rtol=1e-10, atol=1e-12)
    run = tts.simulate(small_problem(), flow, start, slow_times(LAST))
    np.testing.assert_array_equal(run.risk, reduced.risk)
    np.testing.assert_array_equal(run.at(0).u, start.u)


def test_the_limit_flow_is_its_limit_at_small_eta():
    start, taus = spread_start(), slow_times(LAST)
    limit = tts.simulate(small_problem(), tts.LimitFlow(), start, taus)
    etas = [0.02, 0.01, 0.005]
    risk, u = [], []
    for eta in etas:
        run = tts.simulate(small_problem(eta=eta), tts.ReducedFlow(), start, taus)
        apart = tts.metrics.distance(run, limit)
        risk.append(float(jnp.max(apart[0])))
        u.append(float(jnp.max(apart[1])))
    assert slope(etas, risk) == pytest.approx(1.0, abs=0.15)
    assert slope(etas, u) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    "u",
    [
        [0.07, 0.38, 0.38, 0.49, 0.76, 0.91],
        [0.2, 0.2, 0.2, 0.2, 0.2, 0.2],
        [-0.5, -0.5, 0.4, 0.5, 1.5, 1.5],
        [0.07, 0.19, 0.38, 0.38 + 1e-12, 0.76, 0.91],
    ],
    ids=["a pair", "all", "outside", "nearly"],
)
def test_neurons_that_meet_leave_it_finite(u):
    start = spread_start()._replace(u=jnp.asarray(u))
    run = tts.simulate(small_problem(), tts.ReducedFlow(), start, slow_times(LAST))
    assert run.status == tts.Status.OK
    assert np.all(run.valid)
    assert np.all(np.isfinite(run.risk))
    assert run.risk[-1] <= run.risk[0] + 1e-9


def test_coinciding_neurons_move_as_one():
    """With a ridge above the rounding; with less, rounding parts them, and they stay apart."""
    start = spread_start()._replace(u=jnp.asarray([0.07, 0.19, 0.38, 0.38, 0.76, 0.91]))
    run = tts.simulate(small_problem(), tts.ReducedFlow(ridge=1e-5), start, slow_times(LAST))
    np.testing.assert_allclose(run.params.u[:, 2], run.params.u[:, 3], rtol=0, atol=1e-9)
    np.testing.assert_allclose(run.params.a[:, 3], run.params.a[:, 4], rtol=0, atol=1e-6)


def test_it_follows_the_gradient_of_the_least_risk():
    """du/dtau = -grad L(a*(u), u), by differences of the record and the independent gradient."""
    problem, start = random_problem(11)
    taus = slow_times(1e-4)
    run = tts.simulate(problem, tts.ReducedFlow(rtol=1e-11, atol=1e-13), start, taus)
    u = np.asarray(run.params.u)
    _, _, by_u = NumpyRisk(problem)(np.asarray(run.params.a)[5], u[5])
    speed = (u[6] - u[4]) / float(taus[6] - taus[4])
    np.testing.assert_allclose(speed, -by_u, rtol=1e-4, atol=1e-4 * np.max(np.abs(by_u)))


@pytest.mark.thorough
def test_it_is_differentiable_and_vmaps_over_starts_and_eta():
    """Against central differences; the explicit solver compiles fast and keeps the error smooth."""
    target = tts.PiecewiseConstant([0.4], [0.0, 1.0])
    u = jnp.asarray([0.12, 0.29, 0.55, 0.81])

    def final_risk(eta, height, jump, shift):
        moved = tts.PiecewiseConstant(
            jnp.asarray(target.jumps) + jump, jnp.asarray(target.values) * height
        )
        problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta)), moved)
        start = tts.Params(jnp.zeros(5), u + shift)
        how = tts.ReducedFlow(ridge=1e-12, rtol=1e-10, atol=1e-12, solver=diffrax.Tsit5())
        return tts.simulate(problem, how, start, jnp.asarray([0.01])).risk[-1]

    at = np.asarray([0.05, 1.0, 0.0, 0.0])
    slope = np.asarray(quickly(jax.grad(lambda p: final_risk(*p)))(jnp.asarray(at)))
    steps = 1e-5 * np.concatenate([np.eye(4), -np.eye(4)])
    many = quickly(jax.vmap(lambda p: final_risk(*p)))
    values = np.asarray(many(jnp.asarray(at + steps)))
    np.testing.assert_allclose(slope, (values[:4] - values[4:]) / 2e-5, rtol=1e-5, atol=1e-7)
    alone = [float(many(jnp.asarray(at + step)[None])[0]) for step in steps[:2]]
    np.testing.assert_allclose(values[:2], alone, rtol=1e-9)
