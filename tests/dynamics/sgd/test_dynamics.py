"""SGD as a whole: against the flow, the samples that it draws, its clock, and how it fails."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from small_problems import WIDTH, random_problem, slow_times, small_problem, spread_start
from small_runs import EPSILON, NOISE, STEP, steps_to_taus

import tts_jax as tts


@pytest.mark.thorough
@pytest.mark.usefixtures("bare")
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


@pytest.mark.usefixtures("bare")
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


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("tau", [0.0, 0.01, 0.01234, 7.4 * EPSILON * STEP, 7.6 * EPSILON * STEP])
def test_the_steps_up_to_tau_are_the_nearest_whole_number(tau):
    problem, start = random_problem(25)
    sgd = tts.SGD(EPSILON, STEP)
    run = tts.simulate(problem, sgd, start, jnp.array([tau]), key=jax.random.key(0))
    assert int(run.stats["steps"]) == round(tau / (EPSILON * STEP))


def test_more_steps_than_32_bits_can_count():
    sgd = tts.SGD(1e-6, 1e-5)
    assert int(sgd.steps_until(jnp.array([0.035]))[0]) == 3_500_000_000


@pytest.mark.usefixtures("bare")
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


@pytest.mark.usefixtures("bare", "standard_promotion")
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


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_divergence_that_is_still_finite_has_a_status(dtype):
    """The risk grows by more than a factor of two a step here, up to 1e80 or 1e16."""
    problem, start = random_problem(29)
    start = jax.tree.map(lambda leaf: leaf.astype(dtype), start)
    sgd, steps = tts.SGD(EPSILON, 3.0), {"float64": 60, "float32": 12}[dtype]
    taus = jnp.array([0.0, 1.0, steps]) * (EPSILON * 3.0)
    run = tts.simulate(problem, sgd, start, taus, key=jax.random.key(0), throw=False)
    assert run.status == tts.Status.DIVERGED
    assert jnp.all(jnp.isfinite(run.risk))
    assert run.risk[-1] > 1e8 * run.risk[0]
    with pytest.raises(tts.SimulationError, match="ended with DIVERGED"):
        tts.simulate(problem, sgd, start, taus, key=jax.random.key(0))


class NoRisk(tts.AbstractProblem):
    """A problem whose risk is infinite where its parameters are not."""

    def risk(self, params):
        return jnp.sum(params.a) / 0.0 + jnp.sum(params.u)

    def draw(self, key, count):
        return jnp.zeros(count), jnp.zeros(count)

    def sample_loss(self, params, x, y):
        return jnp.sum(params.a) + jnp.sum(params.u)


def test_a_risk_that_is_not_finite_is_no_divergence():
    start = tts.Params(jnp.ones(2), jnp.ones(2))
    sgd = tts.SGD(EPSILON, STEP)
    taus = steps_to_taus(0, 3)
    run = tts.simulate(NoRisk(), sgd, start, taus, key=jax.random.key(0), throw=False)
    assert run.status == tts.Status.NON_FINITE


def test_a_start_at_the_optimum_that_noise_kicks_out_has_not_diverged():
    problem = tts.Problem(
        tts.ShallowNetwork(tts.CubicStep(eta=0.1)), tts.PiecewiseConstant([0.5], [0.0, 0.0])
    )
    start = tts.Params(jnp.zeros(WIDTH + 1), jnp.linspace(0.1, 0.9, WIDTH))
    sgd = tts.SGD(EPSILON, STEP, noise=1.0)
    run = tts.simulate(problem, sgd, start, steps_to_taus(0, 100), key=jax.random.key(0))
    assert run.risk[0] == 0.0 < run.risk[1]
    assert run.status == tts.Status.OK


def test_steps_that_cannot_be_counted_or_move_nothing_are_refused():
    problem, start = random_problem(29)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), start)
    for sgd, params, name in (
        (tts.SGD(1e-200, 1e-200), start, "epsilon"),
        (tts.SGD(1e-20, 1e-20), single, "epsilon"),
        (tts.SGD(1e-20, 1e-20), start, "taus"),
    ):
        with pytest.raises(ValueError, match=f"Argument `{name}` must be at (least|most)"):
            tts.simulate(problem, sgd, params, [0.0, 1.0], key=jax.random.key(0))


@pytest.mark.thorough
def test_a_stream_that_is_too_short_under_a_transformation_has_a_status():
    problem, samples = small_problem(), (jnp.linspace(0.1, 0.9, 10), jnp.zeros(10))
    begin = tts.Params(jnp.zeros(WIDTH + 1), jnp.linspace(0.1, 0.9, WIDTH))

    def run(epsilon):
        how = tts.SGD(epsilon, 0.01)
        return tts.simulate(problem, how, begin, jnp.asarray([1e-4]), samples=samples)

    both = jax.jit(jax.vmap(run))(jnp.asarray([1e-3, 5e-4]))  # 10 and 20 steps
    assert both.status.tolist() == [tts.Status.OK, tts.Status.TOO_FEW_SAMPLES]
    assert jnp.isnan(both.risk).tolist() == [[False], [True]]


def test_a_traced_stream_is_counted_where_the_clock_is_known():
    problem, start, steps = small_problem(), spread_start(), 10

    def run(x):
        taus = np.asarray([0.01 * 0.01 * steps])
        return tts.simulate(problem, tts.SGD(0.01, 0.01), start, taus, samples=(x, 0 * x)).final

    x = jnp.linspace(0.1, 0.9, steps)
    expected = run(x)
    jax.tree.map(lambda *v: np.testing.assert_allclose(*v, atol=1e-14), jax.jit(run)(x), expected)
    with pytest.raises(ValueError, match="at least 10 steps long"):
        jax.jit(run)(x[1:])


@pytest.mark.parametrize(
    ("activation", "batch_size"), [(tts.ReLU(), 1), (tts.CubicStep(0.1), "full")]
)
def test_the_box_is_refused_where_it_means_nothing(activation, batch_size):
    problem = tts.Problem(tts.ShallowNetwork(activation), small_problem().target)
    begin = tts.Params(jnp.zeros(WIDTH + 1), jnp.linspace(0.1, 0.9, WIDTH))
    how = tts.SGD(0.01, 0.01, gradient="box", batch_size=batch_size)
    with pytest.raises(ValueError, match="Argument `gradient` must be"):
        tts.simulate(problem, how, begin, jnp.asarray([1e-4]), key=jax.random.key(0))
