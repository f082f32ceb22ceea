"""The loop through the stops: they change nothing, and float32 loses none of the steps of u."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_kernels import lowered
from small_problems import random_problem
from small_runs import EPSILON, NOISE, steps_to_taus
from small_runs import STEP as LARGE_STEP

import tts_jax as tts
from tts_jax.batching import devices as _device

pytestmark = pytest.mark.usefixtures("bare")


@pytest.mark.parametrize("batch", [1, 3])
def test_the_recorded_times_change_nothing(batch):
    problem, start = random_problem(24)
    sgd = tts.SGD(EPSILON, LARGE_STEP, noise=NOISE, batch_size=batch)
    # 4096 and 1365 samples are drawn at a time: the stops fall inside, on and beside these.
    stops = (0, 1, 1365, 1366, 4095, 4096, 4097, 8192, 9000)
    fine, late = (
        tts.simulate(problem, sgd, start, steps_to_taus(*some), key=jax.random.key(0))
        for some in (stops, range(8992, 9001))
    )
    np.testing.assert_array_equal(fine.final.a, late.final.a)
    np.testing.assert_array_equal(fine.final.u, late.final.u)
    np.testing.assert_array_equal(fine.at(0).u, start.u)


# A step of a neuron that a sample hits is at most 2 epsilon h |residual| |a| sigma'/eta, here some
# 1e-8 to 1e-7. Between .5 and 1 float32 numbers are 6e-8 apart.
STEP, STEPS = 1e-5, 1_000_000
EPSILONS = (2e-5, 2e-6)
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def design(target, start):
    """The problem of the paper: eta is 67 000 units in the last place of a position near 1."""
    problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=4e-3)), target)
    return problem, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start)


def as_double(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def moved(run, start):
    """How far the neurons are from their start, in float64."""
    return np.asarray(run.final.u, np.float64) - np.asarray(start.u, np.float64)


def unit(start):
    """The distance from each position to the next float32 number."""
    return np.spacing(np.asarray(start.u, np.float32)).astype(np.float64)


@functools.cache
def stream():
    rng = np.random.default_rng(0)
    return rng.uniform(size=STEPS), rng.uniform(-1.0, 1.0, size=STEPS)


def taus(epsilon, *steps):
    return jnp.asarray(steps, float) * (epsilon * STEP)


@jax.jit
def plain_loop(problem, start, x, y, epsilon):
    """SGD as one would write it, in float32 throughout."""
    problem = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), problem)
    fast, slow = (jnp.asarray(v, jnp.float32) for v in (STEP, STEP * epsilon))

    def step(i, params):
        slope = jax.grad(problem.sample_loss)(params, x[i][None], y[i][None])
        return tts.Params(params.a - fast * slope.a, params.u - slow * slope.u)

    return jax.lax.fori_loop(0, x.shape[0], step, start)


def assert_as_in_double(found, expected, start):
    """Half a unit in the last place is what a float32 position cannot tell.

    Beside it a ten thousandth of the way: where in its transition a sample hits a neuron is known
    to a unit in the last place by eta, 1.5e-5, and so are its steps.
    """
    error = np.abs(found - expected)
    assert np.all(error <= 0.51 * unit(start) + 1e-4 * np.abs(expected))
    assert np.linalg.norm(error) < 2e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_slow_layer_moves_as_in_double_precision(design, epsilon):
    problem, start = design
    sgd = tts.SGD(epsilon, STEP, noise=1.0)
    single, double = (
        moved(tts.simulate(problem, sgd, begin, taus(epsilon, STEPS), key=KEY), start)
        for begin in (start, as_double(start))
    )
    assert np.median(np.abs(double) / unit(start)) > 100
    assert_as_in_double(single, double, start)


@pytest.mark.parametrize(("epsilon", "times"), [(EPSILONS[0], 100), (EPSILONS[1], 200)])
def test_a_plain_loop_in_float32_loses_the_steps(design, epsilon, times):
    """Otherwise the test above would show nothing. It errs by hundreds of units, not by half."""
    problem, start = design
    sgd = tts.SGD(epsilon, STEP)
    single, double = (
        moved(tts.simulate(problem, sgd, begin, taus(epsilon, STEPS), samples=stream()), start)
        for begin in (start, as_double(start))
    )
    assert_as_in_double(single, double, start)
    x, noise = stream()
    y = np.asarray(problem.target(jnp.asarray(x))) + noise
    naive = plain_loop(problem, start, jnp.float32(x), jnp.float32(y), epsilon)
    naive = np.asarray(naive.u, np.float64) - np.asarray(start.u, np.float64)
    assert np.max(np.abs(naive - double) / unit(start)) > times
    assert np.linalg.norm(naive - double) > 50 * np.linalg.norm(single - double)
    if epsilon == min(EPSILONS):
        frozen = naive == 0
        assert np.any(frozen & (np.abs(double) > 20 * unit(start)))
        assert np.all(single[frozen & (np.abs(double) > unit(start))] != 0)


@pytest.mark.parametrize("batch_size", [1, 3, "full"])
def test_the_recorded_times_change_nothing_in_float32(design, batch_size):
    """The steps are so large that samples move neurons far: any other rounding would show."""
    problem, start = design
    start = start._replace(a=jnp.linspace(-1.0, 1.0, 21, dtype=jnp.float32))
    epsilon, step = 0.01, 1e-3
    noise, last = (0.0, 500) if batch_size == "full" else (1.0, 20_000)
    inside = (0, 1, 100, 300) if batch_size == "full" else (1, 1365, 2000, 4095, 4096, 4097, 9000)
    sgd = tts.SGD(epsilon, step, noise=noise, batch_size=batch_size)

    @jax.jit
    def final(taus):
        return tts.simulate(problem, sgd, start, taus, key=KEY).final

    clock = epsilon * step
    late = final(np.arange(last - len(inside), last + 1) * clock)
    fine = final(np.asarray([*inside, last]) * clock)
    np.testing.assert_array_equal(fine.a, late.a)
    np.testing.assert_array_equal(fine.u, late.u)
    assert np.max(np.abs(fine.u - start.u) / unit(start)) > 1000


@pytest.mark.thorough
def test_runs_side_by_side_move_as_alone_and_as_in_double_precision(design):
    problem, start = design
    epsilon, keys = EPSILONS[0], jax.random.split(KEY, 3)
    sgd = tts.SGD(epsilon, STEP, noise=1.0)

    def batch(start, *stops):
        def one(key):
            return tts.simulate(problem, sgd, start, taus(epsilon, *stops), key=key)

        return jax.vmap(one)(keys)

    late = (99_997, 99_998, 99_999, 100_000)
    together = batch(start, *late)
    assert together.final.u.dtype == jnp.float32
    expected = batch(as_double(start), *late)
    fine = batch(start, 1, 4096, 5000, 100_000)
    np.testing.assert_array_equal(fine.final.u, together.final.u)
    np.testing.assert_array_equal(fine.final.a, together.final.a)
    for i, key in enumerate(keys):
        alone = tts.simulate(problem, sgd, start, taus(epsilon, 100_000), key=key)
        single, double, own = (
            np.asarray(u, np.float64) - np.asarray(start.u, np.float64)
            for u in (together.final.u[i], expected.final.u[i], alone.final.u)
        )
        assert_as_in_double(single, double, start)
        assert np.all(np.abs(single - own) <= unit(start) + 1e-4 * np.abs(own))
        np.testing.assert_allclose(together.final.a[i], alone.final.a, rtol=0, atol=1e-4)


class Slope(tts.AbstractProblem):
    """A risk of constant slope 1, whose flow moves u at speed 1."""

    def risk(self, params):
        return jnp.sum(params.a) + jnp.sum(params.u)


def test_the_full_batch_does_not_lose_steps_either():
    """A million steps of 1e-8. A plain sum of them in float32 ends 5e-5 away."""
    steps, size = 1_000_000, 1e-8
    start = tts.Params(jnp.zeros(1, jnp.float32), jnp.ones(1, jnp.float32))
    sgd = tts.SGD(1.0, size, batch_size="full")
    run = tts.simulate(Slope(), sgd, start, jnp.array([steps * size])).final
    plain = np.cumsum(np.full(steps, size, np.float32))[-1]
    assert abs(plain - steps * size) > 1e-5
    # Half a unit in the last place of what has been added up in a chunk, at every step.
    lost = 0.5 * float(np.spacing(np.float32(4096 * size))) * steps
    assert abs(float(run.u[0]) - (1.0 - steps * size)) < lost


@pytest.mark.parametrize("inputs", [1, 2])
def test_no_product_is_rounded_to_tf32(monkeypatch, design, inputs):
    """A GPU may round the factors of a float32 product to 10 bits, unless it is told not to."""
    monkeypatch.setattr(_device, "on_cpu", lambda: False)
    problem, start = design
    if inputs > 1:
        network = tts.AdditiveNetwork(tts.CubicStep(eta=0.1))
        truth = tts.AdditiveSteps(jumps=[0.3, 0.6], weights=[1.0, 2.0])
        problem = tts.sample_problem(KEY, network, truth, 50, inputs=inputs)
        start = tts.Params(*jnp.full((2, inputs, 3), 0.5, jnp.float32))

    def run(starts, key):
        how = tts.SGD(1e-2, STEP, batch_size=4)
        return jax.vmap(
            lambda start, key: tts.simulate(problem, how, start, taus(1e-2, 5), key=key).params
        )(starts, key)

    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), start)
    text = lowered(run, starts, jax.random.split(KEY, 3))
    single = [line for line in text.splitlines() if "dot_general" in line and "xf32>" in line]
    assert bool(single) == (inputs > 1)  # one input needs no products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in single)
