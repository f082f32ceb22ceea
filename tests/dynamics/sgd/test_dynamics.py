"""SGD against a plain loop, against the flow, and the samples that it draws."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from small_problems import (
    WIDTH,
    NumpyRisk,
    random_problem,
    slow_times,
    small_problem,
    spread_start,
    step_and_slope,
)

import tts_jax as tts
from tts_jax.dynamics.sgd import checkpoints as long_runs

# So small that no sample moves a neuron by a transition width: above that SGD is chaotic, and two
# correct programs end far apart.
EPSILON, STEP, NOISE = 0.01, 0.005, 0.3


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


def steps_to_taus(*steps):
    return np.asarray(steps) * (EPSILON * STEP)


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


def test_it_becomes_the_flow_as_the_step_size_falls():
    """The root mean square distance over runs falls as sqrt(h)."""
    problem, start = small_problem(), spread_start()
    epsilon, taus = 1e-2, slow_times(0.01)
    flow = tts.simulate(problem, tts.GradientFlow(epsilon), start, taus)

    @jax.jit
    def final_a(step, keys):
        sgd = tts.SGD(epsilon, step, noise=0.5)
        return jax.vmap(lambda key: tts.simulate(problem, sgd, start, taus, key=key).final.a)(keys)

    keys = jax.random.split(jax.random.key(3), 64)
    steps = np.array([4e-3, 1e-3, 2.5e-4])
    error = [np.sqrt(np.mean((final_a(h, keys) - flow.final.a[None]) ** 2)) for h in steps]
    slope = np.polyfit(np.log(steps), np.log(error), 1)[0]
    # An estimate of a standard deviation from 64 runs of 7 numbers is good to some 5 percent.
    assert slope == pytest.approx(0.5, abs=0.08)
    assert error[-1] < 0.05


# What is drawn.


class Recorder(tts.AbstractProblem):
    """A problem whose parameters add up the samples, so that their differences are the samples."""

    inner: tts.Problem

    def risk(self, params):
        return jnp.sum(params.a) + jnp.sum(params.u)

    def draw(self, key, count):
        return self.inner.draw(key, count)

    def sample_loss(self, params, x, y):
        noise = y - self.inner.label(x)
        return -(params.a[0] * jnp.sum(x) + params.a[1] * jnp.sum(noise))


class UniformRecorder(Recorder):
    """The same from one uniform number a sample."""

    def from_uniform(self, v):
        return self.inner.from_uniform(v)


class WithoutUniform(tts.AbstractProblem):
    """A problem that leaves SGD only `draw`."""

    inner: tts.Problem

    def risk(self, params):
        return self.inner.risk(params)

    def draw(self, key, count):
        return self.inner.draw(key, count)

    def sample_loss(self, params, x, y):
        return self.inner.sample_loss(params, x, y)


@pytest.fixture(scope="module", params=["draw", "from_uniform"])
def how_drawn(request):
    return request.param


@pytest.fixture(scope="module")
def drawn(how_drawn):
    """The x and the noise of 10 000 steps, over several chunks."""
    recorder = Recorder if how_drawn == "draw" else UniformRecorder
    problem = recorder(small_problem())
    sgd = tts.SGD(1.0, 1.0, noise=NOISE)
    start = tts.Params(jnp.zeros(2), jnp.zeros(1))
    run = tts.simulate(problem, sgd, start, jnp.arange(10_001.0), key=jax.random.key(7))
    return np.diff(np.asarray(run.params.a), axis=0).T


def test_samples_are_uniform(drawn):
    x, noise = drawn
    assert x.min() >= 0
    assert x.max() <= 1
    assert np.max(np.abs(noise)) <= NOISE * (1 + 1e-9)
    assert stats.kstest(x, "uniform").pvalue > 1e-3
    assert stats.kstest(noise, "uniform", args=(-NOISE, 2 * NOISE)).pvalue > 1e-3


def test_samples_are_independent(drawn):
    x, noise = drawn
    count = x.size
    for first, second in ((x, noise), (x[1:], x[:-1]), (noise[1:], noise[:-1])):
        # Under independence the correlation is normal with deviation 1/sqrt(count).
        assert abs(np.corrcoef(first, second)[0, 1]) < 3.5 / np.sqrt(count)
    # No chunk repeats another.
    assert np.unique(np.round(x, 9)).size > count - 5


def test_a_drawn_run_is_the_replay_of_its_samples(drawn, how_drawn):
    problem, start = random_problem(23)
    sgd = tts.SGD(EPSILON, STEP, noise=NOISE)
    tau = steps_to_taus(10_000)
    trained = WithoutUniform(problem) if how_drawn == "draw" else problem
    run = tts.simulate(trained, sgd, start, tau, key=jax.random.key(7))
    replay = tts.simulate(problem, sgd, start, tau, samples=(drawn[0], drawn[1]))
    # The samples are differences of sums up to 5000: known to about 1e-12.
    np.testing.assert_allclose(run.final.a, replay.final.a, rtol=0, atol=1e-9)
    np.testing.assert_allclose(run.final.u, replay.final.u, rtol=0, atol=1e-9)


# The clock and the record.


@pytest.mark.parametrize("batch", [1, 3])
def test_the_recorded_times_change_nothing(batch):
    problem, start = random_problem(24)
    sgd = tts.SGD(EPSILON, STEP, noise=NOISE, batch_size=batch)
    key = jax.random.key(0)
    # 4096 and 1365 samples are drawn at a time: the stops fall inside, on and beside these.
    coarse = tts.simulate(problem, sgd, start, steps_to_taus(9000), key=key)
    stops = [0, 1, 1365, 1366, 4095, 4096, 4097, 8192, 9000]
    fine = tts.simulate(problem, sgd, start, steps_to_taus(*stops), key=key)
    np.testing.assert_array_equal(fine.final.a, coarse.final.a)
    np.testing.assert_array_equal(fine.final.u, coarse.final.u)
    np.testing.assert_array_equal(fine.at(0).u, start.u)


def test_progress_changes_nothing(monkeypatch):
    problem, start = random_problem(24)
    monkeypatch.setattr(long_runs, "PIECE", 1000)
    arguments = (problem, tts.SGD(EPSILON, STEP, noise=NOISE), start, steps_to_taus(10, 9000))
    plain = tts.simulate(*arguments, key=jax.random.key(0))
    seen = []
    watched = tts.simulate(*arguments, key=jax.random.key(0), progress=seen.append)
    for first, second in zip(jax.tree.leaves(plain), jax.tree.leaves(watched), strict=True):
        np.testing.assert_array_equal(first, second)
    assert len(seen) > 9
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize("tau", [0.0, 0.01, 0.01234, 7.4 * EPSILON * STEP, 7.6 * EPSILON * STEP])
def test_the_steps_up_to_tau_are_the_nearest_whole_number(tau):
    problem, start = random_problem(25)
    sgd = tts.SGD(EPSILON, STEP)
    run = tts.simulate(problem, sgd, start, jnp.array([tau]), key=jax.random.key(0))
    assert int(run.stats["steps"]) == round(tau / (EPSILON * STEP))


def test_more_steps_than_32_bits_can_count():
    sgd = tts.SGD(1e-6, 1e-5)
    assert int(sgd.steps_until(jnp.array([0.035]))[0]) == 3_500_000_000


def test_keys_make_the_difference():
    problem, start = random_problem(24)
    sgd = tts.SGD(EPSILON, STEP)
    runs = [
        tts.simulate(problem, sgd, start, steps_to_taus(50), key=jax.random.key(seed))
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(runs[0].final.a, runs[1].final.a)
    assert np.max(np.abs(runs[0].final.a - runs[2].final.a)) > 1e-3


# Optimisers, precision, failure.


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


@pytest.fixture
def standard_promotion():
    """optax's Adam multiplies floats with integers, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


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


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("optimiser", [None, optax.adam(1e-3)], ids=["plain", "adam"])
def test_float32_parameters_run_in_float32(optimiser):
    problem, start = random_problem(28)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start)
    sgd = tts.SGD(EPSILON, STEP, noise=NOISE, optimiser=optimiser)
    key = jax.random.key(0)
    run = tts.simulate(problem, sgd, single, steps_to_taus(10, 500), key=key)
    assert run.final.a.dtype == run.final.u.dtype == jnp.float32
    double = tts.simulate(problem, sgd, start, steps_to_taus(10, 500), key=key)
    np.testing.assert_allclose(run.final.a, double.final.a, rtol=0, atol=1e-3)
    assert np.max(np.abs(np.asarray(run.final.a, np.float64) - double.final.a)) > 1e-9


def test_divergence_keeps_the_data_before_it():
    problem, start = random_problem(29)
    step = 3.0
    sgd = tts.SGD(EPSILON, step)
    taus = jnp.array([0.0, 1.0, 2.0, 4000.0]) * (EPSILON * step)
    with pytest.raises(tts.SimulationError, match="step_size") as caught:
        tts.simulate(problem, sgd, start, taus, key=jax.random.key(0))
    run = caught.value.trajectory
    assert run.status == tts.Status.NON_FINITE
    np.testing.assert_array_equal(run.valid, [True, True, True, False])
    np.testing.assert_array_equal(run.at(0).u, start.u)


def test_a_stream_that_is_too_short_under_a_transformation_has_a_status():
    problem, samples = small_problem(), (jnp.linspace(0.1, 0.9, 10), jnp.zeros(10))
    begin = tts.Params(jnp.zeros(WIDTH + 1), jnp.linspace(0.1, 0.9, WIDTH))

    def run(epsilon):
        how = tts.SGD(epsilon, 0.01)
        return tts.simulate(problem, how, begin, jnp.asarray([1e-4]), samples=samples)

    both = jax.vmap(run)(jnp.asarray([1e-3, 5e-4]))  # 10 and 20 steps
    assert both.status.tolist() == [tts.Status.OK, tts.Status.TOO_FEW_SAMPLES]
    assert jnp.isnan(both.risk).tolist() == [[False], [True]]


@pytest.mark.parametrize(
    ("activation", "batch_size"), [(tts.ReLU(), 1), (tts.CubicStep(0.1), "full")]
)
def test_the_box_is_refused_where_it_means_nothing(activation, batch_size):
    problem = tts.Problem(tts.ShallowNetwork(activation), small_problem().target)
    begin = tts.Params(jnp.zeros(WIDTH + 1), jnp.linspace(0.1, 0.9, WIDTH))
    how = tts.SGD(0.01, 0.01, gradient="box", batch_size=batch_size)
    with pytest.raises(ValueError, match="Argument `gradient` must be"):
        tts.simulate(problem, how, begin, jnp.asarray([1e-4]), key=jax.random.key(0))
