"""Runs side by side equal runs one by one, whatever they differ in and whoever their neighbours."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick_programs import quickly
from small_problems import TRACED, WIDTH, CountedRamp
from small_runs import EPSILON, STEP, assert_same, assert_same_runs, each, pick, steps_to_taus

import tts_jax as tts

pytestmark = pytest.mark.usefixtures("bare")

STEPS = 5000

RNG = np.random.default_rng(0)
NUMBERS = {
    "key": jax.random.key(0),
    "a": jnp.asarray(RNG.normal(size=WIDTH + 1)),
    "u": jnp.asarray(np.sort(RNG.uniform(size=WIDTH))),
    "values": jnp.asarray([1.0, 2.0, 0.5]),
    "jumps": jnp.asarray([0.3, 0.65]),
    "eta": jnp.asarray(0.08),
    "noise": jnp.asarray(0.3),
    "epsilon": jnp.asarray(EPSILON),
}


def stream(size, batch):
    rng = np.random.default_rng(1)
    shape = (size, 2 * STEPS) if batch == 1 else (size, 2 * STEPS, batch)
    return rng.uniform(size=shape), rng.uniform(-0.3, 0.3, size=shape)


def rows(over, size, batch=1):
    """The numbers in which runs differ, with a leading axis."""
    rng = np.random.default_rng(2)
    made = {
        "keys": lambda: {"key": jax.random.split(jax.random.key(1), size)},
        "starts": lambda: {
            "a": rng.normal(size=(size, WIDTH + 1)),
            "u": rng.uniform(size=(size, WIDTH)),
        },
        "values": lambda: {"values": rng.uniform(-2, 2, size=(size, 3))},
        "jumps": lambda: {"jumps": rng.uniform([0.2, 0.55], [0.45, 0.8], size=(size, 2))},
        "eta": lambda: {"eta": rng.uniform(0.05, 0.1, size=size)},
        "noise": lambda: {"noise": rng.uniform(0.1, 0.5, size=size)},
        "samples": lambda: {"samples": stream(size, batch)},
        "epsilon": lambda: {"epsilon": EPSILON * rng.uniform(0.5, 2.0, size=size)},
        "rate": lambda: {"rate": rng.uniform(2e-5, 2e-4, size=size)},
    }
    return made[over]()


def simulate(numbers, *, batch_size=1, gradient="exact", optimiser=None, stops=(1, STEPS)):
    """A run from `NUMBERS`, where `numbers` does not say otherwise."""
    of = {**NUMBERS, **numbers}
    target = tts.PiecewiseConstant(of["jumps"], of["values"])
    problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(of["eta"])), target)
    sgd = tts.SGD(
        of["epsilon"],
        STEP,
        noise=0.0 if batch_size == "full" or "samples" in of else of["noise"],
        batch_size=batch_size,
        gradient=gradient,
        optimiser=None if optimiser is None else optimiser(of["rate"]),
    )
    start = tts.Params(of["a"], of["u"])
    taus, samples = steps_to_taus(*stops), of.get("samples")
    return tts.simulate(problem, sgd, start, taus, key=of["key"], samples=samples)


@functools.cache
def single(**options):
    """One run, for all of which one compilation serves."""
    run = jax.jit(lambda numbers: simulate(numbers, **options))
    return lambda numbers: run({**NUMBERS, **numbers})


@functools.cache
def batched(*, jit=quickly, **options):
    return jit(jax.vmap(lambda numbers: simulate(numbers, **options)))


as_compiled = functools.partial(batched, jit=jax.jit)
"""As a user's program is compiled: for what holds to the last bit."""


def assert_differ(params):
    """Every two runs end apart, so that a mix-up cannot go unseen."""
    ends = np.asarray(params.a)[:, -1]
    for first, second in itertools.combinations(ends, 2):
        assert np.max(np.abs(first - second)) > 1e-6


# Batches against runs one by one.


# In 1, 3 and 8 lanes, and in 2 and 3 tiles of 24: tests/batching/test_vector_lanes.py has more.
SIZES = (1, 3, 8, 33, 70)


@functools.cache
def some_of_the_keys(size, batch_size=1):
    """The last runs of 70: they have other places in batches of other sizes."""
    own = jax.tree.map(lambda leaf: leaf[-size:], rows("keys", SIZES[-1]))
    return (as_compiled() if batch_size == 1 else as_compiled(batch_size=batch_size))(own)


@functools.cache
def all_keys_in_turn():
    return each(single(), rows("keys", SIZES[-1]))


@pytest.mark.thorough
@pytest.mark.parametrize("size", SIZES)
def test_runs_over_keys_equal_one_by_one(size):
    batch, alone = some_of_the_keys(size), all_keys_in_turn()
    assert_same_runs(batch, jax.tree.map(lambda leaf: leaf[-size:], alone))
    assert_differ(batch.params)
    assert np.min(np.max(np.abs(batch.final.u - NUMBERS["u"][None]), axis=1)) > 0.01


SETTINGS = {
    "plain": {},
    "box of 3": {"batch_size": 3, "gradient": "box"},
    "exact of 100": {"batch_size": 100, "stops": (1, 500)},
    "full": {"batch_size": "full", "stops": (1, 500)},
}
CASES = [
    ("plain", "starts values eta noise samples epsilon"),
    ("box of 3", "keys jumps samples"),
    ("exact of 100", "keys"),
    ("full", "values"),
]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("setting", "over"), [(setting, over) for setting, many in CASES for over in many.split()]
)
def test_a_batch_equals_one_by_one(setting, over):
    options = SETTINGS[setting]
    own = rows(over, 5, options.get("batch_size", 1))
    batch = batched(**options)(own)
    assert_same_runs(batch, each(single(**options), own))
    assert_differ(batch.params)
    if over == "epsilon":
        assert len(set(batch.stats["steps"].tolist())) == 5


def test_runs_differ_in_all_at_once():
    own = functools.reduce(dict.__or__, (rows(over, 5) for over in ("keys", "starts", "values")))
    own |= rows("eta", 5) | rows("noise", 5)
    assert_same_runs(batched()(own), each(single(), own))


NESTED = [("keys", "epsilon"), ("epsilon", "keys"), ("starts", "keys")]


@pytest.mark.parametrize(("outer", "inner"), NESTED)
def test_vmap_in_vmap_equals_one_by_one(outer, inner):
    first, second = rows(outer, 2), rows(inner, 3)

    @quickly
    def both(first, second):
        def row(p):
            return jax.vmap(lambda q: simulate({**p, **q}))(second)

        return jax.vmap(row)(first)

    grid = both(first, second)
    for i, j in itertools.product(range(2), range(3)):
        alone = single()({**pick(first, i), **pick(second, j)})
        assert_same_runs(pick(pick(grid, i), j), alone)
    assert_differ(jax.tree.map(lambda leaf: leaf.reshape(6, *leaf.shape[2:]), grid.params))


def decayed(rate):
    return optax.sgd(rate, momentum=0.5)


def clipped(rate):
    """What one run does here depends on all of its gradient, and on none of its neighbours'."""
    return optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(rate))


@pytest.mark.thorough
@pytest.mark.parametrize("optimiser", [optax.sgd, decayed, clipped])
def test_an_optimiser_with_a_rate_of_each_run_equals_one_by_one(optimiser):
    options = {"optimiser": optimiser, "batch_size": 3, "stops": (1, 1500)}
    own = rows("keys", 4) | rows("rate", 4)
    batch = batched(**options)(own)
    assert_same_runs(batch, each(single(**options), own))
    assert_differ(batch.params)


def test_an_optimiser_for_each_layer_equals_the_plain_steps_side_by_side():
    def layers(rate):
        by_layer = {"a": optax.sgd(STEP), "u": optax.sgd(STEP * EPSILON)}
        return optax.partition(by_layer, tts.Params("a", "u"))

    own = rows("keys", 8)
    other = batched(optimiser=layers)(own | rows("rate", 8))
    assert_same_runs(other, batched()(own))


# Neighbours, places and recorded times do not matter, to the last bit.


@pytest.mark.parametrize(("size", "batch_size"), [(8, 1), (33, 1), (8, 3)])
def test_the_size_of_the_batch_changes_nothing(size, batch_size):
    batch, large = (some_of_the_keys(n, batch_size) for n in (size, 70))
    assert_same_runs(batch, jax.tree.map(lambda leaf: leaf[-size:], large), atol=0)


def test_the_place_in_the_batch_changes_nothing():
    order = np.random.default_rng(3).permutation(33)
    own = jax.tree.map(lambda leaf: leaf[-33:][order], rows("keys", SIZES[-1]))
    expected = jax.tree.map(lambda leaf: leaf[order], some_of_the_keys(33))
    assert_same_runs(as_compiled()(own), expected, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_recorded_times_change_nothing(batch_size):
    own = jax.tree.map(lambda leaf: leaf[-8:], rows("keys", SIZES[-1]))
    # 4096 samples are made at a time, or three times 1365: stops inside, on and beside these.
    fine = as_compiled(batch_size=batch_size, stops=(0, 1, 1365, 1366, 4095, 4096, STEPS))(own)
    coarse = some_of_the_keys(8, batch_size)
    assert_same(fine.final, coarse.final, atol=0)
    assert_same(fine.at(1), coarse.at(0), atol=0)
    np.testing.assert_array_equal(fine.at(0).u, np.broadcast_to(NUMBERS["u"], (8, WIDTH)))


# Failure.


def assert_only_one_fails(good, broken, bad):
    expected = np.full(good.status.shape, tts.Status.OK)
    np.testing.assert_array_equal(good.status, expected)
    expected[bad] = tts.Status.NON_FINITE
    np.testing.assert_array_equal(broken.status, expected)
    np.testing.assert_array_equal(broken.valid, np.stack([expected == tts.Status.OK] * 2, axis=1))
    fine = np.flatnonzero(expected == tts.Status.OK)
    assert_same_runs(pick(broken, fine), pick(good, fine), atol=0)


@pytest.mark.parametrize("bad", [0, 2])
@pytest.mark.parametrize("setting", ["plain", "full"])
def test_a_run_that_diverges_leaves_its_neighbours_alone(setting, bad):
    own = rows("values", 5)
    run = batched(**SETTINGS[setting])
    # The derivative of the loss overflows in the first step.
    values = own["values"].copy()
    values[bad] = 1e308
    assert_only_one_fails(run(own), run({"values": values}), bad)


def test_a_rate_that_is_too_large_leaves_the_neighbours_alone():
    run = batched(optimiser=optax.sgd, batch_size=3, stops=(1, 1500))
    own = rows("keys", 4) | rows("rate", 4)
    rates = own["rate"].copy()
    rates[1] = 1e3
    good, broken = run(own), run({**own, "rate": rates})
    np.testing.assert_array_equal(broken.status == tts.Status.NON_FINITE, np.arange(4) == 1)
    # The first step does not overflow yet: what it led to is kept.
    expected = np.ones((4, 2), bool)
    expected[1, 1] = False
    np.testing.assert_array_equal(broken.valid, expected)
    np.testing.assert_array_equal(broken.final.a[1], broken.params.a[1, 0])
    for i in (0, 2, 3):
        assert_same_runs(pick(broken, i), pick(good, i), atol=0)


# Compilation.


@pytest.mark.parametrize("over", ["keys", "starts", "epsilon"])
def test_new_numbers_in_a_batch_never_compile_again(over, caplog):
    def run(eta, epsilon, noise, jumps, last, seed):
        def one(own):
            target = tts.PiecewiseConstant(jumps, [0.0, 1.0, 0.5])
            problem = tts.Problem(tts.ShallowNetwork(CountedRamp(eta)), target)
            sgd = tts.SGD(own.get("epsilon", epsilon), STEP, noise=noise)
            start = tts.Params(own.get("a", NUMBERS["a"]), own.get("u", NUMBERS["u"]))
            key = own.get("key", jax.random.key(seed))
            return tts.simulate(problem, sgd, start, [last], key=key).final

        own = jax.tree.map(lambda leaf: leaf[seed : seed + 3], rows(over, 6))
        return jax.vmap(one)(own)

    before = len(TRACED)
    first = run(0.1, 0.02, 0.3, [0.3, 0.6], 1e-3, 0)
    count = len(TRACED)
    assert count > before
    with jax.log_compiles():
        second = run(0.05, 0.01, 2.0, [0.2, 0.7], 2e-3, 1)
        run(0.06, np.float64(0.5), 0.0, [0.25, 0.5], 4e-2, 2)
    assert len(TRACED) == count
    assert [text for text in caplog.messages if "XLA compilation" in text] == []
    assert np.max(np.abs(first.a - second.a)) > 1e-6
