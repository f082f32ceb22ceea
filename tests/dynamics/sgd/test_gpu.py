"""SGD in one kernel of a GPU equals SGD as XLA runs it: here interpreted, on a CPU."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_sgd_kernels import (
    ACTIVATIONS,
    CLOCK,
    CUBIC,
    EPSILON,
    FACTORS,
    LENGTH,
    ROUNDING,
    SIZE,
    STEP,
    STOPS,
    TARGET,
    assert_same,
    by_kernel,
    each_dtype,
    first,
    keys,
    plainly,
    problem,
    replay,
    start,
    stream,
    trained,
)

import tts_jax as tts
from tts_jax.batching.gpu_kernel import BLOCK_RUNS
from tts_jax.batching.scalar_program import ScalarValue, scalar_array
from tts_jax.dynamics.sgd import dynamics, gpu, samples
from tts_jax.dynamics.sgd.many_runs import MOST_SAMPLES
from tts_jax.problems.recorded_risks import recorded_risks

pytestmark = pytest.mark.usefixtures("bare", "short_chunks")


def assert_kernel_equals_plain(function: Callable, *arguments: Any, dtype: str = "float64") -> Any:
    mine, other = by_kernel(function, *arguments), plainly(function, *arguments)
    assert_same(mine, other, ROUNDING[dtype])
    ends = np.asarray(jax.tree.leaves(mine.final)[0])
    assert np.all(np.isfinite(ends))
    if ends.ndim > 1:  # so that a mix-up cannot go unseen
        assert np.unique(ends.reshape(-1, ends.shape[-1])[:, 0]).size == ends[..., 0].size
    return mine


# What runs can differ in.


@pytest.mark.thorough
@each_dtype
def test_keys_and_starts_of_their_own(dtype):
    params = start(dtype=dtype)
    run = assert_kernel_equals_plain(jax.vmap(trained), params, keys(), dtype=dtype)
    assert run.final.u.dtype == dtype
    np.testing.assert_array_equal(run.at(0).u, params.u)
    assert np.all(np.max(np.abs(run.final.u - params.u), axis=1) > 1e-3)
    np.testing.assert_array_equal(run.stats["steps"], STOPS[-1])


@pytest.mark.thorough
def test_keys_alone_with_the_box():
    params = first(start())
    run = functools.partial(trained, params, gradient="box")
    assert_kernel_equals_plain(jax.vmap(lambda key: run(key)), keys())


@pytest.mark.thorough
def test_rates_of_their_own():
    def run(params, rate):
        return trained(params, jax.random.key(0), rates=rate)

    rates = jnp.asarray([0.0, 0.5, 1.0, 3.0])
    ran = assert_kernel_equals_plain(jax.vmap(run), start(), rates)
    np.testing.assert_array_equal(ran.final.u[0], start().u[0])
    assert np.all(np.max(np.abs(ran.final.u - start().u), axis=1)[1:] > 1e-3)


def test_rates_of_single_neurons_do_without_the_kernel():
    run = functools.partial(trained, key=jax.random.key(0), rates=np.asarray([0.5, 2.0]))
    mine = by_kernel(jax.vmap(lambda params: run(params)), start(), kernel=False)
    assert_same(mine, plainly(jax.vmap(lambda params: run(params)), start()), ROUNDING["float64"])


def test_starts_alone_in_batches():
    run = functools.partial(trained, key=jax.random.key(0), batch_size=3, stops=(2, 7))
    assert_kernel_equals_plain(jax.vmap(lambda params: run(params)), start())


@pytest.mark.thorough
def test_large_batches():
    run = functools.partial(trained, batch_size=MOST_SAMPLES + 1, stops=(3,))
    params = start(dtype="float32")
    assert_kernel_equals_plain(jax.vmap(run), params, keys(), dtype="float32")


@pytest.mark.thorough
def test_problems_and_noise_of_their_own():
    def run(eta, values, noise):
        target = tts.PiecewiseConstant(TARGET.jumps, values)
        own = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta)), target)
        return trained(first(start()), jax.random.key(0), of=own, noise=noise)

    rng = np.random.default_rng(3)
    eta, noise = rng.uniform(0.2, 0.5, SIZE), rng.uniform(size=SIZE)
    assert_kernel_equals_plain(jax.vmap(run), eta, rng.uniform(-2, 2, (SIZE, 2)), noise)


def test_one_run_without_vmap():
    assert_kernel_equals_plain(trained, first(start()), jax.random.key(0))


@pytest.mark.thorough
def test_vmap_in_vmap():
    run = functools.partial(trained, stops=(10,))
    grid = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
    assert_kernel_equals_plain(grid, start(2), keys(3))


def test_numbers_of_samples_beyond_32_bits():
    """Where the lower word of a sample's number overflows, the upper one goes on."""
    first_place = 7 * 2**32 + (2**32 - 4)
    words = samples.words(jnp.asarray(first_place, jnp.uint64))
    place = scalar_array([ScalarValue(word) for word in words], (2,))
    for turn in (0, 1, 2):
        high, low = gpu._places(place, jnp.asarray(turn, jnp.int32), 3)
        found = [int(h.value) * 2**32 + int(w.value) for h, w in zip(high, low, strict=True)]
        assert found == [first_place + 3 * turn + k for k in range(3)]


# Numbers of steps of their own.

COUNTS = np.asarray([[4, 9, 37], [8, 18, 74], [2, 5, 22], [0, 0, 1]])


@pytest.mark.thorough
@each_dtype
def test_epsilons_of_their_own(dtype):
    """One run takes no step up to the first record, and others stop within and beyond chunks."""
    params = start(dtype=dtype)

    def run(params, key, factor):
        return trained(params, key, epsilon=EPSILON * factor, stops=CLOCK)

    found = assert_kernel_equals_plain(jax.vmap(run), params, keys(), FACTORS, dtype=dtype)
    np.testing.assert_array_equal(found.stats["steps"], COUNTS[:, -1])
    np.testing.assert_array_equal(found.params.u[-1, :2], np.stack([params.u[-1]] * 2))
    assert np.any(found.final.a[-1] != params.a[-1])


# Streams.


def test_a_stream_for_all_runs():
    run = jax.vmap(replay, (0, None, None))
    assert_kernel_equals_plain(run, start(), *stream(LENGTH))


def test_a_stream_of_batches_for_each_run():
    run = jax.vmap(functools.partial(replay, batch_size=2))
    params, replayed = start(dtype="float32"), stream(SIZE, LENGTH, 2)
    assert_kernel_equals_plain(run, params, *replayed, dtype="float32")


def test_a_stream_whose_labels_are_a_run_s_own():
    def run(values, *replayed):
        own = tts.Problem(tts.ShallowNetwork(CUBIC), tts.PiecewiseConstant(TARGET.jumps, values))
        return replay(first(start()), *replayed, of=own)

    values = jnp.asarray(np.random.default_rng(4).uniform(-2, 2, (SIZE, 2)))
    assert_kernel_equals_plain(jax.vmap(run, (0, None, None)), values, *stream(LENGTH))


@pytest.mark.thorough
@pytest.mark.parametrize("size", [1, BLOCK_RUNS + 2])
def test_other_numbers_of_runs(size):
    run = jax.vmap(functools.partial(replay, stops=(4,)), (0, None, None))
    params = start(size, "float32")
    assert_kernel_equals_plain(run, params, *stream(LENGTH), dtype="float32")


# Other problems.


@pytest.mark.thorough
@pytest.mark.parametrize("activation", ACTIVATIONS[1:], ids=lambda a: type(a).__name__)
def test_other_activations(activation):
    run = functools.partial(replay, of=problem(activation), stops=(10,))
    assert_kernel_equals_plain(jax.vmap(run, (0, None, None)), start(), *stream(LENGTH))


class Waves(tts.AbstractProblem):
    """A user's own: parameters in trees, among them a single number."""

    scale: jax.Array

    def risk(self, params):
        return jnp.sum(params.a["height"] ** 2)

    def from_uniform(self, v):
        x = 2.0 * v - 1.0
        return x, jnp.tanh(self.scale * x)

    def sample_loss(self, params, x, y):
        centres, shift = params.u
        waves = jnp.exp(-((x[:, None] - centres[None]) ** 2))
        return jnp.mean((jnp.sum(waves * params.a["height"][None], axis=1) + shift - y) ** 2)


@pytest.mark.thorough
def test_a_problem_of_a_user_s_own_and_its_risk(monkeypatch):
    monkeypatch.setattr(dynamics, "recorded_risks", recorded_risks)
    centres, shift = jnp.asarray([0.1, 0.7]), jnp.asarray(0.2)
    params = tts.Params({"height": jnp.asarray([0.5, -0.3])}, (centres, shift))
    run = functools.partial(trained, params, of=Waves(jnp.asarray(2.0)), batch_size=2)
    found = assert_kernel_equals_plain(jax.vmap(lambda key: run(key)), keys())
    np.testing.assert_allclose(found.risk[:, 0], 0.34, rtol=1e-14)
    assert np.unique(found.risk[:, -1]).size == SIZE


@pytest.mark.thorough
def test_float32_does_not_lose_small_steps_of_u():
    """A step is less than a unit in the last place of u; a few thousand are hundreds of units."""
    epsilon, steps = 2e-6, 3000
    single = start(dtype="float32")
    double = jax.tree.map(lambda v: v.astype(jnp.float64), single)

    def run(params, key):
        how = tts.SGD(epsilon, STEP, noise=0.3)
        return tts.simulate(problem(), how, params, jnp.asarray([steps * epsilon * STEP]), key=key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "CHUNK", 256)
        found = by_kernel(jax.vmap(run), single, keys()).final.u
        expected = plainly(jax.vmap(run), double, keys()).final.u
    unit = np.spacing(np.asarray(single.u)).astype(float)
    moved, wanted = (np.asarray(u, float) - np.asarray(double.u) for u in (found, expected))
    assert np.median(np.abs(wanted) / unit) > 100
    assert np.median(np.abs(wanted) / unit) < steps
    assert np.all(np.abs(moved - wanted) <= 0.51 * unit + 1e-3 * np.abs(wanted))


# What the kernel leaves to XLA.


class DrawOnly(tts.AbstractProblem):
    """Inputs from a key, as many as the user likes."""

    def risk(self, params):
        return jnp.sum(params.a**2)

    def draw(self, key, count):
        x = jax.random.normal(key, (count,))
        return x, jnp.sin(x)

    def sample_loss(self, params, x, y):
        return jnp.mean((params.a[0] + params.u[0] * x - y) ** 2)


def additive() -> tuple[tts.AbstractProblem, tts.Params]:
    rng = np.random.default_rng(4)
    x, y = rng.uniform(size=(40, 2)), rng.normal(size=40)
    params = tts.Params(jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.uniform(size=(2, 3))))
    return tts.EmpiricalProblem(tts.AdditiveNetwork(tts.CubicStep(0.4)), x, y), params


def many_jumps() -> tuple[tts.AbstractProblem, tts.Params]:
    """Whose labels are looked up in a table."""
    jumps, values = np.linspace(0.01, 0.99, 99), np.random.default_rng(5).normal(size=100)
    target = tts.PiecewiseConstant(jumps, values)
    return tts.Problem(tts.ShallowNetwork(CUBIC), target), first(start())


LEFT = {
    "momentum": lambda: (problem(), first(start()), {"optimiser": optax.sgd(STEP, momentum=0.5)}),
    "full": lambda: (problem(), first(start()), {"batch_size": "full", "noise": 0.0}),
    "draw only": lambda: (DrawOnly(), first(start()), {"batch_size": 2}),
    "additive": lambda: (*additive(), {}),
    "many jumps": lambda: (*many_jumps(), {}),
}


@pytest.mark.thorough
@pytest.mark.parametrize("what", LEFT)
def test_what_is_left_to_xla(what):
    of, params, options = LEFT[what]()
    rows = jax.tree.map(lambda v: jnp.stack([v, 1.1 * v, 0.9 * v]), params)
    run = jax.vmap(functools.partial(trained, of=of, stops=(1, 10), **options))
    mine, other = by_kernel(run, rows, keys(3), kernel=False), plainly(run, rows, keys(3))
    assert_same(mine, other, ROUNDING["float64"])
    assert np.all(np.any(mine.final.a != rows.a, axis=tuple(range(1, rows.a.ndim))))


def test_long_steps_are_left_to_xla(monkeypatch):
    """Here with epsilons of their own, for which nothing on a GPU is side by side."""

    def run(params, key, factor):
        return trained(params, key, epsilon=EPSILON * factor, stops=CLOCK)

    monkeypatch.setattr(gpu, "LONGEST", 50)
    arguments = (start(), keys(), FACTORS)
    mine = by_kernel(jax.vmap(run), *arguments, kernel=False)
    assert_same(mine, plainly(jax.vmap(run), *arguments), ROUNDING["float64"])


def test_no_kernel_off_a_gpu():
    assert not gpu.on_gpu()
