"""The one driver: all dynamics, all transformations, failure, and what comes back."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import (
    TIMES,
    TRACED,
    WIDTH,
    CountedRamp,
    slow_times,
    small_problem,
    spread_start,
)
from small_studies import Drift

import tts_jax as tts

TAUS = slow_times(0.05)
KEY = jax.random.key(0)
FLOWS = [tts.GradientFlow(1e-3), tts.ReducedFlow(), tts.LimitFlow()]
ALL = [*FLOWS, tts.SGD(1e-2, 1e-2, noise=0.5)]
# Each compilation of an implicit solve takes seconds, and the reduced flow shares its driver with
# the gradient flow.
FEWER = [
    pytest.param(d, marks=pytest.mark.slow if isinstance(d, tts.ReducedFlow) else ()) for d in ALL
]


def name(dynamics):
    return type(dynamics).__name__


def stacked_starts(count):
    shift = 0.002 * jnp.arange(float(count))[:, None]
    start = spread_start()
    return tts.Params(jnp.tile(start.a, (count, 1)), jnp.tile(start.u, (count, 1)) + shift)


def assert_same(first, second, *, atol=1e-9):
    np.testing.assert_allclose(first.risk, second.risk, rtol=0, atol=atol)
    np.testing.assert_allclose(first.params.u, second.params.u, rtol=0, atol=atol)


# One clock, one face.


@pytest.mark.parametrize("dynamics", ALL, ids=name)
def test_every_dynamics_runs_on_one_clock(dynamics):
    run = tts.simulate(small_problem(), dynamics, spread_start(), TAUS, key=KEY)
    assert run.method == name(dynamics)
    assert bool(run.ok)
    np.testing.assert_array_equal(run.taus, TAUS)
    assert run.params.a.shape == (TIMES, WIDTH + 1)
    assert run.params.u.shape == (TIMES, WIDTH)
    assert run.risk.shape == (TIMES,)
    if not isinstance(dynamics, tts.LimitFlow):  # its risk is that of transitions of width zero
        expected = [small_problem().risk(run.at(i)) for i in range(TIMES)]
        np.testing.assert_allclose(run.risk, expected, rtol=1e-12)


def test_all_dynamics_agree_where_both_small_numbers_are_small():
    """The half of the jump at 0.65 that the limit flow travels, every other one travels too."""
    problem = small_problem(eta=0.01)
    settings = [tts.GradientFlow(1e-4), *FLOWS[1:], tts.SGD(1e-3, 1e-3)]
    ends = [
        tts.simulate(problem, dynamics, spread_start(), TAUS, key=KEY).at(2).u
        for dynamics in settings
    ]
    assert np.max(np.abs(ends[2] - spread_start().u)) > 0.02
    for end in ends:
        np.testing.assert_allclose(end, ends[2], rtol=0, atol=0.01)


@pytest.mark.parametrize("dynamics", FEWER, ids=name)
def test_jit_changes_nothing_beyond_rounding(dynamics):
    plain = tts.simulate(small_problem(), dynamics, spread_start(), TAUS, key=KEY)
    jitted = eqx.filter_jit(tts.simulate)(small_problem(), dynamics, spread_start(), TAUS, key=KEY)
    assert_same(jitted, plain)


# Batches.


@pytest.mark.parametrize("dynamics", ALL[2:], ids=name)
def test_vmap_over_starts_equals_one_by_one(dynamics):
    starts = stacked_starts(3)
    batch = jax.vmap(lambda s: tts.simulate(small_problem(), dynamics, s, TAUS, key=KEY))(starts)
    for i in range(3):
        start = jax.tree.map(lambda leaf, i=i: leaf[i], starts)
        alone = tts.simulate(small_problem(), dynamics, start, TAUS, key=KEY)
        assert_same(jax.tree.map(lambda leaf, i=i: leaf[i], batch), alone)


@pytest.fixture(scope="module")
def over_epsilon():
    """A batch over epsilon in which one start may be spoilt."""

    @jax.jit
    def run(epsilons, starts):
        def one(epsilon, start):
            flow = tts.GradientFlow(epsilon, max_steps=150)
            return tts.simulate(small_problem(), flow, start, TAUS)

        return jax.vmap(one)(epsilons, starts)

    return run


def test_vmap_over_epsilon_and_starts_equals_one_by_one(over_epsilon):
    epsilons = jnp.array([1e-3, 1e-1, 1.0])
    starts = stacked_starts(3)
    batch = over_epsilon(epsilons, starts)
    for i in range(3):
        start = jax.tree.map(lambda leaf, i=i: leaf[i], starts)
        alone = tts.simulate(small_problem(), tts.GradientFlow(epsilons[i]), start, TAUS)
        assert_same(jax.tree.map(lambda leaf, i=i: leaf[i], batch), alone)


def test_batch_neighbours_do_not_matter(over_epsilon):
    starts = stacked_starts(3)
    first = over_epsilon(jnp.array([1e-2, 1.0, 1.0]), starts)
    second = over_epsilon(jnp.array([1e-2, 1e-4, 10.0]), starts)
    assert_same(*(jax.tree.map(lambda leaf: leaf[0], batch) for batch in (first, second)))


def test_a_run_that_fails_does_not_spoil_its_neighbours(over_epsilon):
    starts = stacked_starts(3)
    epsilons = jnp.array([1e-1, 1e-7, 1.0])
    good = over_epsilon(epsilons.at[1].set(1.0), starts)
    # At 1e-7 the 150 steps do not reach the end.
    slow = over_epsilon(epsilons, starts)
    np.testing.assert_array_equal(slow.status, [tts.Status.OK, tts.Status.MAX_STEPS, tts.Status.OK])
    broken = over_epsilon(epsilons.at[1].set(1.0), starts._replace(u=starts.u.at[1].set(jnp.nan)))
    assert bool(broken.ok[0])
    assert not bool(broken.ok[1])
    assert not np.any(broken.valid[1])
    for i in (0, 2):
        for batch in (slow, broken):
            assert_same(*(jax.tree.map(lambda leaf, i=i: leaf[i], b) for b in (batch, good)))


# Compilation.


VARIANTS = {
    "GradientFlow": [
        tts.GradientFlow(0.5),
        tts.GradientFlow(1e-2, rtol=1e-6),
        tts.GradientFlow(np.float64(2.0), rtol=1e-5, atol=1e-7),
        tts.GradientFlow(jnp.asarray(1.0)),
    ],
    "ReducedFlow": [tts.ReducedFlow(), tts.ReducedFlow(ridge=1e-10, rtol=1e-6, atol=1e-8)],
    "SGD": [tts.SGD(0.5, 1e-2), tts.SGD(1e-2, 1e-3, noise=2.0), tts.SGD(1.0, jnp.asarray(0.1))],
}


@pytest.mark.parametrize(
    "variants",
    [
        pytest.param(v, id=k, marks=[pytest.mark.slow] * (k == "ReducedFlow"))
        for k, v in VARIANTS.items()
    ],
)
def test_new_numbers_never_trace_again(variants):
    def run(dynamics, eta, last, jumps, seed):
        target = tts.PiecewiseConstant(jumps, [0.0, 1.0, 0.5])
        problem = tts.Problem(tts.ShallowNetwork(CountedRamp(eta)), target)
        start = stacked_starts(3)
        start = jax.tree.map(lambda leaf: leaf[seed], start)
        return tts.simulate(problem, dynamics, start, slow_times(last), key=jax.random.key(seed))

    before = len(TRACED)
    run(variants[0], 0.1, 0.02, [0.3, 0.6], 0)
    count = len(TRACED)
    assert count > before
    for i, dynamics in enumerate(variants):
        run(dynamics, 0.05 + 0.01 * i, 0.01 + 0.01 * i, [0.2 + 0.01 * i, 0.7], i % 3)
        assert len(TRACED) == count


# Failure.


@pytest.fixture(scope="module")
def good():
    return tts.simulate(small_problem(), tts.GradientFlow(1e-3), spread_start(), TAUS)


@pytest.fixture(scope="module")
def cut_short():
    return tts.GradientFlow(1e-3, max_steps=90)


def test_a_run_out_of_steps_raises_with_its_data(good, cut_short):
    with pytest.raises(tts.SimulationError, match="max_steps") as caught:
        tts.simulate(small_problem(), cut_short, spread_start(), TAUS)
    run = caught.value.trajectory
    assert run.status == tts.Status.MAX_STEPS
    reached = int(np.sum(run.valid))
    assert 0 < reached < TIMES
    np.testing.assert_array_equal(run.valid, np.arange(TIMES) < reached)
    np.testing.assert_allclose(run.risk[:reached], good.risk[:reached], rtol=1e-12)
    np.testing.assert_allclose(run.params.u[:reached], good.params.u[:reached], rtol=1e-12)
    assert np.all(np.isnan(run.risk[reached:]))


def test_without_throw_a_failure_comes_back(cut_short):
    run = tts.simulate(small_problem(), cut_short, spread_start(), TAUS, throw=False)
    assert run.status == tts.Status.MAX_STEPS
    assert "MAX_STEPS" in str(run)
    assert f"{int(np.sum(run.valid))} of {TIMES}" in str(run)


# A user's own problem.


class Boastful(Drift):
    """Says that it ended well, whatever came out."""

    worth: float = 0.0

    def run(self, given):
        found = super().run(given)
        return found._replace(risk=found.risk / self.worth)


@pytest.mark.parametrize("worth", [0.0, np.nan, 1.0])
def test_no_run_ends_well_whose_records_are_not_finite(worth):
    how = Boastful(1.0, worth=jnp.asarray(worth))
    run = tts.simulate(small_problem(), how, spread_start(), TAUS, throw=False)
    expected = tts.Status.OK if worth == 1.0 else tts.Status.NON_FINITE
    assert run.status == expected
    mapped = jax.vmap(
        lambda w: tts.simulate(small_problem(), Boastful(1.0, worth=w), spread_start(), TAUS).status
    )(jnp.array([worth, 1.0]))
    assert mapped.tolist() == [expected, tts.Status.OK]


@pytest.mark.parametrize(
    "taus", [[0.0, 5e-309, 1e-308], [1e-310], [0.0, 3e-308, 4e-308]], ids=["denormal", "one", "gap"]
)
def test_times_that_compute_as_equal_are_refused(taus):
    with pytest.raises(ValueError, match=r"Argument `taus` must be 0 or at least 2\.23e-308"):
        tts.simulate(small_problem(), Drift(1.0), spread_start(), taus)


@pytest.mark.parametrize(
    "make",
    [
        lambda: tts.GradientFlow(1e-310),
        lambda: tts.GradientFlow(0.1, rtol=5e-324),
        lambda: tts.SGD(0.1, 1e-310),
        lambda: tts.SGD(0.1, 0.1, noise=1e-310),
        lambda: tts.CubicStep(eta=1e-310),
    ],
)
def test_numbers_that_compute_as_zero_are_refused(make):
    with pytest.raises(ValueError, match=r"must be at least 2\.23e-308 in size"):
        make()


class TwoLayers(tts.AbstractProblem):
    """Two hidden layers on fixed inputs; the last layer is a, everything before it is u."""

    x: jax.Array
    y: jax.Array

    def predict(self, params, x):
        for layer in params.u:
            x = jnp.tanh(x @ layer["weight"] + layer["bias"][None, :])
        return x @ params.a["weight"] + params.a["bias"]

    def risk(self, params):
        return self.sample_loss(params, self.x, self.y)

    def draw(self, key, count):
        index = jax.random.randint(key, (count,), 0, self.x.shape[0])
        return self.x[index], self.y[index]

    def sample_loss(self, params, x, y):
        return jnp.mean((self.predict(params, x) - y) ** 2)


@pytest.fixture(scope="module")
def own_problem():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(12, 2)))
    layers = [
        {"weight": jnp.asarray(rng.normal(size=shape)), "bias": jnp.zeros(shape[1])}
        for shape in ((2, 3), (3, 3))
    ]
    start = tts.Params({"weight": jnp.zeros(3), "bias": jnp.asarray(0.0)}, layers)
    return TwoLayers(x, jnp.sin(x[:, 0])), start


OWN = [tts.GradientFlow(0.1), tts.SGD(0.1, 1e-2), tts.SGD(0.1, 1e-3, batch_size="full")]


@pytest.mark.thorough
@pytest.mark.parametrize("dynamics", OWN, ids=["GradientFlow", "SGD", "full batch"])
def test_a_deep_network_runs(own_problem, dynamics):
    problem, start = own_problem
    run = tts.simulate(problem, dynamics, start, jnp.array([0.0, 0.5, 1.0]), key=KEY)
    assert jax.tree.structure(run.params) == jax.tree.structure(start)
    assert run.params.u[0]["weight"].shape == (3, 2, 3)
    assert float(run.risk[-1]) < 0.5 * float(run.risk[0])
    assert float(problem.risk(run.final)) == pytest.approx(float(run.risk[-1]), rel=1e-12)
    variables = run.to_xarray()
    assert variables["u_0_weight"].shape == (3, 2, 3)
    assert variables["a_bias"].dims == ("tau",)


@pytest.mark.thorough
def test_full_batch_follows_the_flow_of_a_deep_network(own_problem):
    problem, start = own_problem
    taus = jnp.array([0.0, 0.5, 1.0])
    flow, euler = (tts.simulate(problem, OWN[i], start, taus) for i in (0, 2))
    np.testing.assert_allclose(euler.risk, flow.risk, rtol=0.02)
    for first, second in zip(*(jax.tree.leaves(r.final) for r in (euler, flow)), strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=0.02)


def test_a_problem_without_best_outer_says_so(own_problem):
    problem, start = own_problem
    with pytest.raises(ValueError, match="best_outer"):
        tts.simulate(problem, tts.ReducedFlow(), start, jnp.array([0.0, 1.0]))


# The recorded times.


@pytest.mark.thorough
@pytest.mark.parametrize("dynamics", FEWER, ids=name)
def test_only_time_zero(dynamics):
    run = tts.simulate(small_problem(), dynamics, spread_start(), [0.0], key=KEY)
    assert bool(run.ok)
    np.testing.assert_allclose(run.params.u[0], spread_start().u, rtol=0, atol=1e-15)
    assert np.all(np.isfinite(run.risk))


@pytest.mark.parametrize("dynamics", ALL, ids=name)
def test_times_need_not_start_at_zero(dynamics):
    whole = tts.simulate(small_problem(), dynamics, spread_start(), TAUS, key=KEY)
    # Six more in between, to keep the shape and with it the compiled program.
    times = jnp.sort(jnp.concatenate([TAUS[6:], jnp.linspace(0.031, 0.049, 6)]))
    late = tts.simulate(small_problem(), dynamics, spread_start(), times, key=KEY)
    shared = np.isin(times, TAUS)
    assert np.sum(shared) == 5
    np.testing.assert_allclose(late.params.u[shared], whole.params.u[6:], rtol=0, atol=1e-12)
    np.testing.assert_allclose(late.risk[shared], whole.risk[6:], rtol=0, atol=1e-12)


# What comes back.


def test_a_batch_becomes_an_axis_of_runs(over_epsilon):
    data = over_epsilon(jnp.array([1e-3, 1e-1, 1.0]), stacked_starts(3)).to_xarray()
    assert data["u"].dims == ("run", "tau", "neuron")
    assert data["status"].dims == ("run",)
    assert data.sizes == {"run": 3, "tau": TIMES, "outer": WIDTH + 1, "neuron": WIDTH}


def test_progress_of_a_flow_ends_at_one():
    seen = []
    tts.simulate(small_problem(), tts.LimitFlow(), spread_start(), TAUS, progress=seen.append)
    assert seen == [1.0]


def test_no_64_bit_numbers_no_simulation():
    with jax.enable_x64(False), pytest.raises(ValueError, match="64-bit"):
        tts.simulate(small_problem(), tts.LimitFlow(), spread_start(), TAUS)
