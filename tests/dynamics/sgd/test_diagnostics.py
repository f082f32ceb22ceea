"""The scales of SGD against what SGD does."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import random_problem

import tts_jax as tts

PROBLEM = tts.Problem(
    tts.ShallowNetwork(tts.CubicStep(eta=0.1)), tts.PiecewiseConstant([0.4], [1.0, 3.0])
)
U = jnp.array([0.15, 0.38, 0.7])


@pytest.fixture(scope="module")
def best():
    return tts.Params(jax.jit(lambda u: PROBLEM.best_outer(u))(U), U)


@pytest.mark.thorough
def test_the_noise_floor_is_the_risk_that_noise_adds(best):
    """With positions at rest, so that the outer layer is stationary around its optimum."""
    sgd = tts.SGD(1e-12, 0.01, noise=0.6)
    # Ten relaxation times of the slowest direction, then as many as make the mean good.
    steps = np.linspace(20_000, 120_000, 51)

    @jax.jit
    def risks(keys):
        return jax.vmap(lambda key: tts.simulate(PROBLEM, sgd, best, steps * 1e-14, key=key))(keys)

    runs = risks(jax.random.split(jax.random.key(0), 256))
    added = runs.risk - PROBLEM.risk(best)
    floor = float(jnp.mean(runs.stats["noise_floor"]))
    # 13 000 risks with a relative deviation of about one, neighbours correlated: good to some
    # percent; the formula neglects terms of relative order h max eig H, 2 percent.
    assert float(jnp.mean(added)) == pytest.approx(floor, rel=0.05)


@pytest.mark.thorough
@pytest.mark.parametrize("batch", [1, 4])
def test_the_noise_floor_falls_with_the_batch(best, batch):
    sgd = tts.SGD(1e-3, 1e-3, noise=0.6, batch_size=batch)
    run = tts.simulate(PROBLEM, sgd, best, jnp.zeros(1), key=jax.random.key(0))
    nodes = (np.arange(200_000) + 0.5) / 200_000

    @jax.jit
    def energy(x):
        features = PROBLEM.network.features(U, x)
        residual = PROBLEM.predict(best, x) - PROBLEM.label(x)
        return jnp.mean((residual**2 + 0.36 / 3) * jnp.sum(features**2, axis=1))

    expected = 1e-3 / batch * energy(nodes)
    assert float(run.stats["noise_floor"]) == pytest.approx(float(expected), rel=1e-4)


def test_the_fast_rate_is_the_largest_of_the_hessian(best):
    sgd = tts.SGD(1e-3, 2e-3)
    run = tts.simulate(PROBLEM, sgd, best, jnp.zeros(1), key=jax.random.key(0))
    hessian = jax.jit(jax.hessian(lambda a: PROBLEM.risk(tts.Params(a, U))))(best.a)
    expected = 2e-3 * np.max(np.linalg.eigvalsh(hessian))
    assert float(run.stats["fast_rate"]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.thorough
def test_no_sample_moves_a_neuron_further_than_the_largest_jump():
    problem, start = random_problem(3)
    epsilon, size, noise = 0.5, 0.01, 0.4
    rng = np.random.default_rng(0)
    eta = float(problem.network.activation.eta)

    @jax.jit
    @jax.vmap
    def moved(x, extra):
        sgd = tts.SGD(epsilon, size)
        stream = (x[None], extra[None])
        taus = jnp.array([epsilon * size])
        run = tts.simulate(problem, sgd, start, taus, samples=stream)
        return jnp.max(jnp.abs(run.final.u - start.u)) / eta

    seen = moved(rng.uniform(size=40_000), noise * rng.choice([-1.0, 1.0], 40_000))
    sgd = tts.SGD(epsilon, size, noise=noise)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tts.CoarseStepsWarning)
        run = tts.simulate(problem, sgd, start, jnp.zeros(1), key=jax.random.key(0))
    # Looked for at 7 places around a neuron, so a little below the true largest.
    assert float(run.stats["largest_jump"]) == pytest.approx(float(jnp.max(seen)), rel=0.1)


def test_coarse_steps_are_told(best):
    taus = jnp.zeros(1)
    fine, coarse = tts.SGD(1e-4, 1e-4), tts.SGD(1.0, 0.2)
    tts.simulate(PROBLEM, fine, best, taus, key=jax.random.key(0))
    with pytest.warns(tts.CoarseStepsWarning, match="moves a neuron by up to .* eta"):
        tts.simulate(PROBLEM, coarse, best, taus, key=jax.random.key(0))
    with pytest.warns(tts.CoarseStepsWarning, match="h times the largest rate"):
        tts.simulate(PROBLEM, tts.SGD(1e-6, 0.3), best, taus, key=jax.random.key(0))


@pytest.mark.thorough
def test_runs_side_by_side_have_risks_and_scales_of_their_own(best):
    sgd, taus = tts.SGD(1e-2, 1e-3, noise=0.2), jnp.array([0.0, 1e-3])
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(lambda key: tts.simulate(PROBLEM, sgd, best, taus, key=key)))(keys)
    for i, key in enumerate(keys):
        alone = tts.simulate(PROBLEM, sgd, best, taus, key=key)
        np.testing.assert_allclose(together.risk[i], alone.risk, rtol=1e-9)
        for name, value in alone.stats.items():
            np.testing.assert_allclose(together.stats[name][i], value, rtol=1e-9)


def test_problems_of_other_kinds_have_none():
    network = tts.AdditiveNetwork(tts.CubicStep(eta=0.1))
    problem = tts.EmpiricalProblem(network, np.eye(3), np.ones(3))
    start = tts.Params(jnp.zeros((3, 2)), jnp.full((3, 2), 0.5))
    run = tts.simulate(problem, tts.SGD(0.1, 0.1), start, jnp.zeros(1), key=jax.random.key(0))
    assert set(run.stats) == {"steps"}
