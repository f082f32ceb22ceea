"""Runs in lanes that are refilled: each as if it were alone, and few lanes idle."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import quickly
from small_systems import any_system

from tts_jax.batching import devices as _device
from tts_jax.integrators import lane_queue as queue
from tts_jax.integrators.checkpointing import differentiable_run
from tts_jax.integrators.step_size import StepControl

LANES, TURNS = 4, 3
PARTS = np.asarray([0.0, 1e-3, 0.1, 0.1001, 0.1002, 0.5, 0.97, 1.0])
MAX_STEPS = 2048


@pytest.fixture(autouse=True)
def few_lanes_off_the_cpu(monkeypatch):
    monkeypatch.setattr(_device, "on_cpu", lambda: False)
    monkeypatch.setattr(queue, "LANES", LANES)
    monkeypatch.setattr(queue, "TURNS", TURNS)


def van_der_pol(y, stiffness):
    return jnp.stack([y[1], stiffness * (1 - y[0] ** 2) * y[1] - y[0]])


def up_to_one(y, rate):
    """A force that is no number beyond 1."""
    return jnp.where(y < 1.0, rate * jnp.ones_like(y), jnp.nan)


def outcome(stiffness, start, horizon=3.0, rtol=1e-6, max_steps=MAX_STEPS, function=van_der_pol):
    system = any_system(function, masses=jnp.ones(2))
    system = eqx.tree_at(lambda s: s.number, system, stiffness)
    horizon, rtol = jnp.asarray(horizon, float), jnp.asarray(rtol, float)
    control = StepControl(horizon, rtol, rtol, jnp.asarray(max_steps, jnp.int32))
    return differentiable_run(system, start, horizon * PARTS, control, MAX_STEPS)


alone = jax.jit(outcome, static_argnames="function")


def runs(count, seed=0):
    """Stiffness and start of runs of very different lengths."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(10.0 ** rng.uniform(-1, 3, size=count)), jnp.asarray(
        rng.normal(size=(count, 2))
    )


def nth(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def assert_same(batch, expected):
    """Equal step by step, and the states up to rounding."""
    (ys, now), (others, other) = batch, expected
    np.testing.assert_array_equal(now.steps, other.steps)
    np.testing.assert_array_equal(now.accepted, other.accepted)
    np.testing.assert_allclose(ys, others, rtol=1e-12, atol=1e-12)  # NaN where the other is
    # Where a run has not come to its end, this is the sum of its steps, which round differently.
    np.testing.assert_allclose(now.t, other.t, rtol=1e-8)
    np.testing.assert_allclose(now.y, other.y, rtol=1e-7)


# Each run is the run alone.


@pytest.mark.thorough
@pytest.mark.parametrize("count", [1, 3, LANES, 11])
def test_every_run_is_the_run_alone_however_many_there_are(count):
    own = runs(count)
    batch = jax.jit(jax.vmap(outcome))(*own)
    for i in range(count):
        assert_same(nth(batch, i), alone(*nth(own, i)))
    assert np.all(np.isfinite(batch[0]))
    if count > 10:
        assert np.max(batch[1].steps) > 5 * np.min(batch[1].steps)


def test_many_records_may_fall_into_one_step(monkeypatch):
    """More than there are lanes, in a step of all lanes at once."""
    monkeypatch.setattr(queue, "LANES", 2)
    own = runs(5)
    batch = jax.jit(jax.vmap(lambda *own: outcome(*own, 1e-4)))(*own)
    assert np.max(batch[1].accepted) < PARTS.size
    for i in range(5):
        assert_same(nth(batch, i), alone(*nth(own, i), 1e-4))


@pytest.mark.thorough
@pytest.mark.parametrize("own", ["horizon", "rtol", "max_steps", "start", "stiffness"])
def test_one_number_may_differ_and_the_others_be_shared(own):
    options = {"stiffness": 30.0, "start": START, "horizon": 3.0, "rtol": 1e-6, "max_steps": 200}
    values = {
        "horizon": jnp.linspace(0.0, 20.0, 6),
        "rtol": jnp.logspace(-10, -3, 6),
        "max_steps": jnp.asarray([1, 7, 20, 50, 100, 200], jnp.int32),
        "start": runs(6)[1],
        "stiffness": runs(6)[0],
    }[own]
    options = {name: jnp.asarray(value) for name, value in options.items()}
    options["max_steps"] = options["max_steps"].astype(jnp.int32)
    batch = jax.jit(jax.vmap(lambda value: outcome(**{**options, own: value})))(values)
    assert len(set(np.asarray(batch[1].steps).tolist())) > 3
    for i in range(6):
        assert_same(nth(batch, i), alone(**{**options, own: values[i]}))


START = jnp.asarray([1.0, 0.5])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.thorough
def test_vmap_of_vmap_is_one_batch(shared):
    """Over two starts and three stiffnesses, or also with starts of each run."""
    stiffness, starts = runs(6)
    if shared:
        stiffness, starts = stiffness[:3], starts[:2]
        inner, outer = (0, None), (None, 0)
    else:
        stiffness, starts = stiffness[:3], starts.reshape(2, 3, 2)
        inner, outer = (0, 0), (None, 0)
    batch = jax.jit(jax.vmap(jax.vmap(outcome, inner), outer))(stiffness, starts)
    for i in range(2):
        for j in range(3):
            start = starts[i] if shared else starts[i, j]
            assert_same(nth(nth(batch, i), j), alone(stiffness[j], start))


@pytest.mark.thorough
def test_a_batch_of_three_levels_is_one_batch():
    stiffness, starts = runs(8)
    rtols = jnp.asarray([1e-5, 1e-7])
    of = jax.vmap(lambda k, y, r: outcome(k, y, rtol=r), (0, 0, None))
    of = jax.vmap(jax.vmap(of, (0, None, None)), (None, None, 0))
    batch = jax.jit(of)(stiffness.reshape(4, 2), starts[:2], rtols)
    assert batch[0].shape == (2, 4, 2, PARTS.size, 2)
    for i, j, k in np.ndindex(2, 4, 2):
        expected = alone(stiffness[2 * j + k], starts[k], rtol=rtols[i])
        assert_same(nth(nth(nth(batch, i), j), k), expected)


# Failure.


@pytest.mark.thorough
def test_runs_that_fail_leave_the_others_as_they_are():
    stiffness, starts = runs(9)
    good = jax.jit(jax.vmap(outcome))(stiffness, starts)
    bad = {0: jnp.nan, 4: jnp.inf, 5: 1e200}
    broken = starts
    for i, value in bad.items():
        broken = broken.at[i, 1].set(value)
    limits = jnp.full(9, MAX_STEPS, jnp.int32).at[7].set(5)
    batch = jax.jit(jax.vmap(lambda *own: outcome(*own[:2], max_steps=own[2])))(
        stiffness, broken, limits
    )
    for i in range(9):
        expected = alone(stiffness[i], broken[i], max_steps=limits[i])
        np.testing.assert_array_equal(batch[1].steps[i], expected[1].steps)
        if i not in bad and i != 7:
            assert_same(nth(batch, i), nth(good, i))
    assert int(batch[1].steps[7]) == 5
    assert float(batch[1].t[7]) < 3.0
    assert np.all(np.isnan(batch[0][7, -1]))


def test_a_run_that_gets_stuck_frees_its_lane():
    rates = jnp.asarray([0.1, 1.0, 2.0, 0.2, 4.0, 0.0])
    start = jnp.zeros(2)
    batch = jax.jit(jax.vmap(lambda rate: outcome(rate, start, function=up_to_one)))(rates)
    for i, rate in enumerate(rates):
        assert_same(nth(batch, i), alone(rate, start, function=up_to_one))
        stuck = float(rate) * 3.0 > 1.0
        assert (float(batch[1].t[i]) < 3.0) == stuck


# Lanes.


@pytest.fixture
def counted(monkeypatch):
    """A function of the arguments of runs: the steps of each, and how many turns all lanes took."""
    taken, try_step = [], queue.try_step

    def told(system, now, control):
        jax.debug.callback(lambda: taken.append(1))
        return try_step(system, now, control)

    monkeypatch.setattr(queue, "try_step", told)
    batch = jax.jit(jax.vmap(lambda *own: outcome(*own)[1].steps))

    def of(own):
        taken.clear()
        steps = np.asarray(batch(*own))
        jax.effects_barrier()
        return steps, len(taken)

    return of


def test_the_longest_runs_begin_first(counted):
    """However they are given, those that begin with short steps, being stiff, do not come last."""
    stiffness = jnp.asarray(10.0 ** np.linspace(-1, 3, 30))
    own = (stiffness, jnp.tile(START, (30, 1)))
    steps, turns = counted(own)
    other = counted((jnp.flip(stiffness), own[1]))[1]
    assert abs(turns - other) <= 2 * TURNS
    # All lanes end nearly together; a long run that came last would go on alone.
    assert max(turns, other) < np.sum(steps) / LANES + 0.2 * np.max(steps)


def test_hardly_a_lane_is_idle(counted):
    """Turns of all lanes: what the runs need, and half of the turns between two looks each."""
    own = runs(60)
    steps, turns = counted(own)
    assert turns <= (np.sum(steps) + TURNS * steps.size) / LANES + np.max(steps)
    assert turns >= np.sum(steps) / LANES
    # Were there a lane for each, every one of them would go on until the last has ended.
    assert turns * LANES < 0.4 * np.max(steps) * steps.size


def test_the_numbers_of_steps_do_not_compile_again(caplog):
    many = jax.jit(jax.vmap(lambda *own: outcome(*own)))
    first = many(*runs(7))
    with jax.log_compiles():
        second = many(*runs(7, seed=1))
    assert [text for text in caplog.messages if "XLA compilation" in text] == []
    assert np.max(np.abs(first[1].steps - second[1].steps)) > 0


# Derivatives.


def single(stiffness, start):
    return jnp.sum(outcome(stiffness, start, horizon=0.5, rtol=1e-4)[0][-2] ** 2)


def total(stiffness, starts):
    return jnp.sum(jax.vmap(single)(stiffness, starts))


@pytest.mark.thorough
def test_derivatives_of_a_batch_are_those_one_by_one():
    stiffness, starts = runs(5)
    own = (stiffness / 10, starts)
    slope = quickly(jax.grad(single, (0, 1)))
    each = [slope(*nth(own, i)) for i in range(5)]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    reverse = quickly(jax.grad(total, (0, 1)))(*own)
    direction = jax.tree.map(jnp.ones_like, own)
    forward = quickly(lambda at, d: jax.jvp(total, at, d)[1])(own, direction)
    for found, one in zip(reverse, expected, strict=True):
        np.testing.assert_allclose(found, one, rtol=0, atol=1e-9 * np.max(np.abs(one)))
    np.testing.assert_allclose(forward, sum(np.sum(one) for one in expected), rtol=1e-8)
