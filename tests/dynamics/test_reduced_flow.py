"""The reduced flow as the limit of the gradient flow, and the limit flow as its own."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from jax.flatten_util import ravel_pytree
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


SAMPLE_X = jax.random.normal(jax.random.key(3), (25, 2))
SAMPLE_Y = jnp.sin(SAMPLE_X[:, 0]) - 0.5 * SAMPLE_X[:, 1]


def of_sample(activation):
    network = tts.TwoLayerNetwork(activation)
    start = tts.init_two_layer(jax.random.key(4), network, 2, 4, bias_scale=0.5)
    return tts.EmpiricalProblem(network, SAMPLE_X, SAMPLE_Y), start


def test_on_a_sample_an_explicit_method_follows_what_scipy_does():
    problem, start = of_sample(tts.Tanh())
    taus = jnp.asarray([0.0, 0.4, 1.5])
    run = tts.simulate(problem, tts.ReducedFlow(rtol=1e-9, atol=1e-11, ridge=1e-12), start, taus)
    assert run.solver == "Tsit5"
    flat, whole = ravel_pytree(start.u)

    @jax.jit
    def velocity(flat):
        def residual(flat):
            u = whole(flat)
            hidden = jnp.tanh(SAMPLE_X @ u["w"].T + u["b"][None])
            features = jnp.concatenate([jnp.ones((25, 1)), hidden], axis=1)
            best = jnp.linalg.lstsq(features, SAMPLE_Y)[0]
            return features @ jax.lax.stop_gradient(best) - SAMPLE_Y

        return -jax.grad(lambda flat: jnp.mean(residual(flat) ** 2))(flat)

    found = scipy.integrate.solve_ivp(
        lambda _, flat: np.asarray(velocity(flat)),
        *((0.0, 1.5), np.asarray(flat), "DOP853", taus),
        rtol=1e-11,
        atol=1e-12,
    )
    ours = jax.vmap(lambda u: ravel_pytree(u)[0])(run.params.u)
    np.testing.assert_allclose(ours, found.y.T, atol=1e-6)


@pytest.mark.thorough
def test_its_derivatives_go_in_both_directions():
    problem, start = of_sample(tts.Erf())

    def risk(scale, rtol=1e-8):
        u = jax.tree.map(lambda leaf: scale * leaf, start.u)
        flow = tts.ReducedFlow(rtol=rtol, atol=1e-2 * rtol)
        return tts.simulate(problem, flow, tts.Params(start.a, u), [0.0, 1.0]).risk[-1]

    at, by = jnp.asarray(1.1), 1e-4
    wanted = (risk(at + by, 1e-11) - risk(at - by, 1e-11)) / (2 * by)
    np.testing.assert_allclose(jax.grad(risk)(at), wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(risk, (at,), (jnp.ones(()),))[1], wanted, rtol=1e-6)
    both = jax.vmap(jax.grad(risk))(jnp.stack([at, at]))
    np.testing.assert_allclose(both, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("activation", "is_stiff"),
    [(tts.CubicStep(eta=0.05), True), (tts.Tanh(), False), (tts.ReLU(), False)],
)
def test_steps_are_stiff(activation, is_stiff):
    problem, _ = of_sample(activation)
    assert problem.has_stiff_reduction() == is_stiff
