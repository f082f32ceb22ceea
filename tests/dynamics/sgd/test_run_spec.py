"""What decides where runs go: the update of each kind, and what many runs share."""

import jax
import numpy as np
import optax
import pytest
from small_problems import WIDTH, NumpyRisk, random_problem
from small_runs import EPSILON, NOISE, STEP, steps_to_taus

import tts_jax as tts

pytestmark = pytest.mark.usefixtures("bare")


def test_an_optax_partition_equals_the_plain_steps():
    problem, start = random_problem(26)
    optimiser = optax.partition(
        {"a": optax.sgd(STEP), "u": optax.sgd(STEP * EPSILON)}, tts.Params("a", "u")
    )
    plain, other = (
        tts.simulate(
            problem,
            tts.SGD(EPSILON, STEP, noise=NOISE, optimiser=chosen),
            start,
            steps_to_taus(100, 5000),
            key=jax.random.key(0),
        )
        for chosen in (None, optimiser)
    )
    np.testing.assert_allclose(other.params.a, plain.params.a, rtol=0, atol=1e-12)
    np.testing.assert_allclose(other.params.u, plain.params.u, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("standard_promotion")
def test_adam_equals_a_plain_loop():
    """Full batch, so that the loop can be written with the independent gradient."""
    problem, start = random_problem(27)
    rate = 0.01
    sgd = tts.SGD(EPSILON, STEP, batch_size="full", optimiser=optax.adam(rate))
    run = tts.simulate(problem, sgd, start, steps_to_taus(200))
    risk = NumpyRisk(problem)
    y = np.concatenate([start.a, start.u])
    mean, square = np.zeros_like(y), np.zeros_like(y)
    for step in range(1, 201):
        _, by_a, by_u = risk(y[: WIDTH + 1], y[WIDTH + 1 :])
        gradient = np.concatenate([by_a, by_u])
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        y = y - rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(run.final.a, y[: WIDTH + 1], rtol=0, atol=1e-6)
    np.testing.assert_allclose(run.final.u, y[WIDTH + 1 :], rtol=0, atol=1e-6)
