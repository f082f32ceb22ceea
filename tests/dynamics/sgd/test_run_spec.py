"""What decides where runs go: the update of each kind, and what many runs share."""

import jax
import jax.numpy as jnp
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


# Optimisers that ask for the value of the loss.


def sample():
    rng = np.random.default_rng(3)
    network = tts.ShallowNetwork(tts.CubicStep(eta=0.1))
    problem = tts.EmpiricalProblem(network, rng.uniform(size=12), rng.normal(size=12))
    start = tts.Params(jnp.asarray(rng.normal(size=5)), jnp.asarray(rng.uniform(size=4)))
    index, noise = rng.integers(0, 12, size=(6, 2)), 0.1 * rng.normal(size=(6, 2))
    return problem, start, (index, noise)


def by_hand(optimiser, start, losses, **more):
    """A loop as optax's documentation has it, one step for each loss."""
    params, state = start, optimiser.init(start)
    for loss in losses:
        value, gradient = jax.value_and_grad(loss)(params)
        given = {"value": value} | ({"grad": gradient, "value_fn": loss} if more else {})
        change, state = optimiser.update(gradient, state, params, **given)
        params = optax.apply_updates(params, change)
    return params


def batches(problem, samples):
    """The loss of every batch of a stream, written anew."""
    x, y = np.asarray(problem.x), np.asarray(problem.y)
    return [
        lambda p, i=i, n=n: jnp.mean((problem.network(p, x[i]) - y[i] - n) ** 2)
        for i, n in zip(*samples, strict=True)
    ]


def plateau():
    falling = optax.contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=0.5)
    return optax.chain(optax.sgd(0.05), falling)


@pytest.mark.thorough
@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    "optimiser",
    [
        pytest.param(optax.polyak_sgd(0.5), id="polyak", marks=pytest.mark.thorough),
        pytest.param(plateau(), id="plateau"),
    ],
)
def test_the_value_of_the_loss_is_that_of_the_batch(optimiser):
    problem, start, samples = sample()
    wanted = by_hand(optimiser, start, batches(problem, samples))
    sgd = tts.SGD(1.0, 1.0, batch_size=2, optimiser=optimiser)

    def run(start):
        return tts.simulate(problem, sgd, start, jnp.array([6.0]), samples=samples).final

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), run(start), wanted)
    both = jax.vmap(run)(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), start))
    for i in range(2):
        one = jax.tree.map(lambda leaf: leaf[i], both)  # noqa: B023
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), one, wanted)
    single = run(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start))
    assert single.a.dtype == jnp.float32
    np.testing.assert_allclose(single.a, wanted.a, rtol=0, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.usefixtures("standard_promotion")
def test_a_line_search_goes_with_the_whole_risk():
    problem, start, _ = sample()
    wanted = by_hand(optax.lbfgs(), start, [problem.risk] * 5, line_search=True)
    sgd = tts.SGD(1.0, 1.0, batch_size="full", optimiser=optax.lbfgs())
    run = tts.simulate(problem, sgd, start, jnp.array([5.0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), run.final, wanted)
    assert problem.risk(run.final) < 0.9 * problem.risk(start)


@pytest.mark.usefixtures("standard_promotion")
def test_an_optimiser_that_asks_for_more_is_refused():
    problem, start, samples = sample()

    def asks(gradient, state, params=None, *, curvature, **more):
        return gradient, state

    hungry = optax.GradientTransformationExtraArgs(lambda params: (), asks)
    for optimiser, name in ((optax.lbfgs(), "value_fn"), (hungry, "curvature")):
        sgd = tts.SGD(1.0, 1.0, batch_size=2, optimiser=optimiser)
        with pytest.raises(ValueError, match="Argument `optimiser` must be one that asks") as told:
            tts.simulate(problem, sgd, start, jnp.array([6.0]), samples=samples)
        assert f"needs '{name}'" in str(told.value)
        assert 'a line search goes with batch_size="full"' in str(told.value)
