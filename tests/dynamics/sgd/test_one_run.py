"""A run alone against plain loops: in NumPy, and by the definition of the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import NumpyRisk, random_problem, step_and_slope
from small_runs import EPSILON, NOISE, STEP, steps_to_taus

import tts_jax as tts

pytestmark = pytest.mark.usefixtures("bare")


def numpy_sgd(problem, start, x, noise, *, box):
    """One sample after the other, as the definition says: the parameters after every step."""
    eta = float(problem.network.activation.eta)
    jumps, values = np.asarray(problem.target.jumps), np.asarray(problem.target.values)
    a, u = np.array(start.a), np.array(start.u)
    record = []
    for xs, noises in zip(x, noise, strict=True):
        by_a, by_u = np.zeros_like(a), np.zeros_like(u)
        for one, extra in zip(np.atleast_1d(xs), np.atleast_1d(noises), strict=True):
            z = (one - u) / eta
            sigma, slope = step_and_slope(z)
            if box:
                slope = np.where(np.abs(z) <= 0.5, 1.0, 0.0)
            y = values[np.sum(one >= jumps)] + extra
            residual = a[0] + np.dot(sigma, a[1:]) - y
            by_a += 2 * residual * np.concatenate([[1.0], sigma]) / np.size(xs)
            by_u += -2 * residual * a[1:] * slope / eta / np.size(xs)
        a, u = a - STEP * by_a, u - STEP * EPSILON * by_u
        record.append((a, u))
    return record


def stream(steps, batch):
    rng = np.random.default_rng(1)
    shape = (steps,) if batch == 1 else (steps, batch)
    return rng.uniform(size=shape), rng.uniform(-NOISE, NOISE, size=shape)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("gradient", ["exact", "box"])
def test_replay_equals_a_plain_loop(gradient, batch):
    problem, start = random_problem(21)
    x, noise = stream(10_000, batch)
    sgd = tts.SGD(EPSILON, STEP, batch_size=batch, gradient=gradient)
    stops = [1, 100, 5_000, 10_000]
    run = tts.simulate(problem, sgd, start, steps_to_taus(*stops), samples=(x, noise))
    expected = numpy_sgd(problem, start, x, noise, box=gradient == "box")
    # Both layers have moved far, so that agreement says something about both.
    assert np.max(np.abs(expected[-1][1] - np.asarray(start.u))) > 0.01
    for i, stop in enumerate(stops):
        a, u = expected[stop - 1]
        np.testing.assert_allclose(run.params.a[i], a, rtol=0, atol=1e-12)
        np.testing.assert_allclose(run.params.u[i], u, rtol=0, atol=1e-12)


def test_full_batch_is_explicit_euler_on_the_risk():
    problem, start = random_problem(22)
    sgd = tts.SGD(EPSILON, STEP, batch_size="full")
    run = tts.simulate(problem, sgd, start, steps_to_taus(1, 300))
    risk = NumpyRisk(problem)
    a, u = np.array(start.a), np.array(start.u)
    for step in range(300):
        _, by_a, by_u = risk(a, u)
        a, u = a - STEP * by_a, u - STEP * EPSILON * by_u
        if step == 0:
            np.testing.assert_allclose(run.params.a[0], a, rtol=0, atol=1e-13)
    np.testing.assert_allclose(run.params.a[1], a, rtol=0, atol=1e-11)
    np.testing.assert_allclose(run.params.u[1], u, rtol=0, atol=1e-11)


class Anchored(tts.Problem):
    """With a penalty on the parameters themselves."""

    def sample_loss(self, params, x, y):
        return super().sample_loss(params, x, y) + jnp.mean((params.u - 0.5) ** 2)


def test_a_loss_that_looks_at_the_parameters_sees_those_of_the_user():
    problem, start = random_problem(30)
    problem, size = Anchored(problem.network, problem.target), 1e-3
    x, noise = (v[:50] for v in stream(50, 1))
    taus = jnp.array([50 * size])
    run = tts.simulate(problem, tts.SGD(1.0, size), start, taus, samples=(x, noise)).final
    slope, params = jax.jit(jax.grad(problem.sample_loss)), start
    for one_x, extra in zip(jnp.asarray(x)[:, None], noise, strict=True):
        step = slope(params, one_x, problem.label(one_x) + extra)
        params = jax.tree.map(lambda p, g: p - size * g, params, step)
    assert np.max(np.abs(params.u - start.u)) > 1e-3
    for mine, other in zip(run, params, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-12)
