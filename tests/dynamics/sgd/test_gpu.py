"""SGD in one kernel of a GPU equals SGD as XLA runs it: here interpreted, on a CPU."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick_programs import results
from small_kernels import interpreted

import tts_jax as tts
from tts_jax.batching import devices as _device
from tts_jax.batching.scalar_program import ScalarValue, scalar_array
from tts_jax.dynamics.base import RunOutputs
from tts_jax.dynamics.sgd import dynamics as sgd
from tts_jax.dynamics.sgd import gpu as sgd_kernel
from tts_jax.dynamics.sgd import many_runs as sgd_runs
from tts_jax.dynamics.sgd import samples
from tts_jax.dynamics.sgd.gpu import BLOCK_RUNS, kernel_step
from tts_jax.dynamics.sgd.many_runs import _FEW

WIDTH, SIZE = 2, 4
EPSILON, STEP = 0.5, 0.02
CHUNK = 8
STOPS = (0, 5, 8, 21)  # inside a chunk of samples, beside one, and beyond two
LENGTH = 200  # of a stream
ROUNDING = {"float64": 1e-13, "float32": 1e-6}
DTYPES = tuple(ROUNDING)

TARGET = tts.PiecewiseConstant([0.4], [1.0, 2.5])
CUBIC = tts.CubicStep(0.4)
ACTIVATIONS = [CUBIC, tts.Logistic(0.1), tts.Tanh(0.2), tts.Erf(0.2), tts.ReLU()]
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)

# The machine.


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr(samples, "CHUNK", CHUNK)


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Records without risk and scales, which the kernel has no part in and which compile long."""

    def records(dynamics: Any, given: Any, ys: tts.Params, steps: Any) -> RunOutputs:
        zero = jnp.zeros((), jnp.int32)
        return RunOutputs(ys, jnp.zeros(given.taus.shape), zero, {"steps": steps})

    full = sgd.records
    monkeypatch.setattr(sgd, "records", records)
    return lambda: monkeypatch.setattr(sgd, "records", full)


@contextlib.contextmanager
def as_on(*, gpu: bool, kernels: bool = False):
    """Traces as on a GPU, or not, and tells for each run that is traced whether by the kernel."""
    found = []

    def watched(*arguments: Any) -> Any:
        step = kernel_step(*arguments)
        found.append(step is not None)
        return step

    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setattr(sgd_kernel, "on_gpu", lambda: gpu)
        patch.setattr(_device, "on_cpu", lambda: not gpu)
        patch.setattr(sgd_runs, "kernel_step", watched)
        # A function of its own: what was traced elsewhere must not be found again.
        own = jax.jit(lambda *whole: simulation._traced(*whole), static_argnums=(1, 2))
        patch.setattr(simulation, "_compiled", own)
        if kernels:
            patch.setattr(sgd_runs, "by_device", lambda kernel, _, *given: kernel(*given))
            stack.enter_context(interpreted())
        yield found


def by_kernel(function: Callable, *arguments: Any, kernel: bool = True) -> Any:
    """As on a GPU, where it must go by the kernel, or must not."""
    with as_on(gpu=True, kernels=kernel) as found:
        out = results(function, *arguments)
    assert set(found) == {kernel}
    return out


def plainly(function: Callable, *arguments: Any) -> Any:
    with as_on(gpu=False) as found:
        out = results(function, *arguments)
    assert set(found) == {False}
    return out


def assert_same(mine: Any, other: Any, atol: float) -> None:
    for first, second in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
        assert first.shape == second.shape
        assert first.dtype == second.dtype
        np.testing.assert_allclose(first, second, rtol=0, atol=atol)


# Runs.


def start(size: int = SIZE, dtype: str = "float64") -> tts.Params:
    rng = np.random.default_rng(0)
    a, u = rng.normal(size=(size, WIDTH + 1)), rng.uniform(0.1, 0.9, size=(size, WIDTH))
    return tts.Params(jnp.asarray(a, dtype), jnp.asarray(u, dtype))


def keys(size: int = SIZE) -> jax.Array:
    return jax.random.split(jax.random.key(1), size)


def stream(*shape: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(2)
    return jnp.asarray(rng.uniform(size=shape)), jnp.asarray(rng.uniform(-0.3, 0.3, size=shape))


def first(params: tts.Params) -> tts.Params:
    return jax.tree.map(lambda leaf: leaf[0], params)


def problem(activation: tts.AbstractActivation = CUBIC) -> tts.Problem:
    return tts.Problem(tts.ShallowNetwork(activation), TARGET)


def trained(
    params: tts.Params,
    key: jax.Array | None = None,
    *,
    of: tts.AbstractProblem | None = None,
    epsilon: Any = EPSILON,
    noise: Any = None,
    stops: tuple[float, ...] = STOPS,
    samples: Any = None,
    **options: Any,
) -> tts.Trajectory:
    if noise is None:
        noise = 0.0 if key is None else 0.3
    how = tts.SGD(epsilon, STEP, noise=noise, **options)
    taus = jnp.asarray(stops, float) * (EPSILON * STEP)
    return tts.simulate(of or problem(), how, params, taus, key=key, samples=samples)


def assert_kernel_equals_plain(function: Callable, *arguments: Any, dtype: str = "float64") -> Any:
    mine, other = by_kernel(function, *arguments), plainly(function, *arguments)
    assert_same(mine, other, ROUNDING[dtype])
    ends = np.asarray(jax.tree.leaves(mine.final)[0])
    assert np.all(np.isfinite(ends))
    if ends.ndim > 1:  # so that a mix-up cannot go unseen
        assert np.unique(ends.reshape(-1, ends.shape[-1])[:, 0]).size == ends[..., 0].size
    return mine


# What runs can differ in.


@each_dtype
def test_keys_and_starts_of_their_own(dtype):
    params = start(dtype=dtype)
    run = assert_kernel_equals_plain(jax.vmap(trained), params, keys(), dtype=dtype)
    assert run.final.u.dtype == dtype
    np.testing.assert_array_equal(run.at(0).u, params.u)
    assert np.all(np.max(np.abs(run.final.u - params.u), axis=1) > 1e-3)
    np.testing.assert_array_equal(run.stats["steps"], STOPS[-1])


def test_keys_alone_with_the_box():
    params = first(start())
    run = functools.partial(trained, params, gradient="box")
    assert_kernel_equals_plain(jax.vmap(lambda key: run(key)), keys())


def test_starts_alone_in_batches():
    run = functools.partial(trained, key=jax.random.key(0), batch_size=3, stops=(2, 7))
    assert_kernel_equals_plain(jax.vmap(lambda params: run(params)), start())


def test_large_batches():
    run = functools.partial(trained, batch_size=_FEW + 1, stops=(3,))
    params = start(dtype="float32")
    assert_kernel_equals_plain(jax.vmap(run), params, keys(), dtype="float32")


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
        high, low = sgd_kernel._places(place, jnp.asarray(turn, jnp.int32), 3)
        found = [int(h.value) * 2**32 + int(w.value) for h, w in zip(high, low, strict=True)]
        assert found == [first_place + 3 * turn + k for k in range(3)]


# Numbers of steps of their own.

FACTORS = jnp.asarray([1.0, 0.5, 1.7, 30.0])  # of epsilon: the clock goes faster by so much
CLOCK = (4, 9, 37)
COUNTS = np.asarray([[4, 9, 37], [8, 18, 74], [2, 5, 22], [0, 0, 1]])


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


def replay(params: tts.Params, *replayed: jax.Array, **options: Any) -> tts.Trajectory:
    return trained(params, samples=replayed, **options)


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


@pytest.mark.parametrize("size", [1, BLOCK_RUNS + 2])
def test_other_numbers_of_runs(size):
    run = jax.vmap(functools.partial(replay, stops=(4,)), (0, None, None))
    params = start(size, "float32")
    assert_kernel_equals_plain(run, params, *stream(LENGTH), dtype="float32")


# Other problems.


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


def test_a_problem_of_a_user_s_own_and_all_records(bare):
    bare()  # and so not bare
    centres, shift = jnp.asarray([0.1, 0.7]), jnp.asarray(0.2)
    params = tts.Params({"height": jnp.asarray([0.5, -0.3])}, (centres, shift))
    run = functools.partial(trained, params, of=Waves(jnp.asarray(2.0)), batch_size=2)
    found = assert_kernel_equals_plain(jax.vmap(lambda key: run(key)), keys())
    np.testing.assert_allclose(found.risk[:, 0], 0.34, rtol=1e-14)
    assert np.unique(found.risk[:, -1]).size == SIZE


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

    monkeypatch.setattr(sgd_kernel, "LONGEST", 50)
    arguments = (start(), keys(), FACTORS)
    mine = by_kernel(jax.vmap(run), *arguments, kernel=False)
    assert_same(mine, plainly(jax.vmap(run), *arguments), ROUNDING["float64"])


def test_no_kernel_off_a_gpu():
    assert not sgd_kernel.on_gpu()


# The kernel is made for a GPU where there is none.


def lowered(function: Callable, *arguments: Any) -> tuple[str, bool]:
    """The program for a GPU, and whether by the kernel."""
    with as_on(gpu=True) as found:
        text = (
            jax.jit(lambda *a: function(*a)).trace(*arguments).lower(lowering_platforms=("cuda",))
        )
    return text.as_text(), all(found)


def assert_lowers(function: Callable, *arguments: Any) -> None:
    text, kernel = lowered(function, *arguments)
    assert kernel
    assert "mosaic_gpu" in text


@each_dtype
@each_activation
def test_activations_lower(activation, dtype):
    run = functools.partial(trained, of=problem(activation))
    assert_lowers(jax.vmap(run), start(dtype=dtype), keys())


@each_dtype
@pytest.mark.parametrize("options", [{"batch_size": 7}, {"gradient": "box"}], ids=str)
def test_settings_lower(options, dtype):
    assert_lowers(jax.vmap(functools.partial(trained, **options)), start(dtype=dtype), keys())


@each_dtype
def test_epsilons_of_their_own_lower(dtype):
    def run(params, key, epsilon):
        return trained(params, key, epsilon=epsilon)

    assert_lowers(jax.vmap(run), start(dtype=dtype), keys(), FACTORS)


@each_dtype
@pytest.mark.parametrize("own", [True, False])
def test_streams_lower(own, dtype):
    axis, shape = (0, (SIZE, LENGTH)) if own else (None, (LENGTH,))
    assert_lowers(jax.vmap(replay, (0, axis, axis)), start(dtype=dtype), *stream(*shape))


def test_derivatives_and_other_devices_go_by_loops():
    """By the program that there is beside the kernel, of runs with epsilons of their own."""

    def run(params, key, factor):
        return trained(params, key, epsilon=EPSILON * factor, stops=CLOCK)

    given = (start(), keys(), FACTORS)
    moved = (jax.tree.map(jnp.ones_like, given[0]),)

    def slope(*given):
        return jax.jvp(lambda params: jax.vmap(run)(params, *given[1:]).params, given[:1], moved)

    with as_on(gpu=True) as found:  # a kernel would not run here
        mine = results(slope, *given)
    assert set(found) == {True}
    assert_same(mine, plainly(slope, *given), 1e-11)


def test_a_stream_with_epsilons_of_their_own_goes_by_a_loop():
    def run(params, factor, *replayed):
        return trained(params, epsilon=EPSILON * factor, stops=CLOCK, samples=replayed)

    given = (jax.vmap(run, (0, 0, None, None)), start(), FACTORS, *stream(LENGTH))
    with as_on(gpu=True):  # a kernel would not run here
        found = results(*given)
    assert_same(found, plainly(*given), ROUNDING["float64"])


def test_one_run_and_a_grid_lower():
    assert_lowers(trained, first(start()), jax.random.key(0))
    assert_lowers(jax.vmap(jax.vmap(trained, (None, 0)), (0, None)), start(2), keys(3))


class Through(tts.AbstractProblem):
    """Its loss is made of one function of x and u."""

    function: Callable = eqx.field(static=True)

    def risk(self, params):
        return jnp.sum(params.a)

    def from_uniform(self, v):
        return v, v

    def sample_loss(self, params, x, y):
        return jnp.sum(params.a * self.function(x, params.u).astype(x.dtype))


def word(x):
    return (1000.0 * jax.lax.stop_gradient(x)).astype(jnp.int32).astype(jnp.uint32)


OPERATIONS = {
    "abs": lambda x, u: jnp.abs(x - u),
    "clip": lambda x, u: jnp.clip(x - u, -0.5, 0.5),
    "compare": lambda x, u: (x > u) & ~(x >= u) | (x < u) ^ (x <= u) & (x == u) & (x != u),
    "compare words": lambda x, u: word(x) < word(u),
    "div": lambda x, u: x / u,
    "erf": lambda x, u: jax.lax.erf(x * u),
    "exp": lambda x, u: jnp.exp(x * u),
    "log": lambda x, u: jnp.log(x * u),
    "power": lambda x, u: (x * u) ** 5 + u**3 + x**2,
    "inverse power": lambda x, u: x * u**-3,
    "power 0": lambda x, u: jax.lax.integer_pow(x * u, 0),
    "rsqrt": lambda x, u: jax.lax.rsqrt(x * u),
    "select": lambda x, u: jnp.where(x > u, x, u),
    "select of 3": lambda x, u: jax.lax.select_n(word(x).astype(jnp.int32), x, u, x * u),
    "sign": lambda x, u: jnp.sign(x - u),
    "softplus": lambda x, u: jax.nn.softplus(x * u),
    "sin": lambda x, u: jnp.sin(x * u),
    "sqrt": lambda x, u: jnp.sqrt(x * u),
    "square": lambda x, u: jnp.square(x - u),
    "words": lambda x, u: ~((word(x) << np.uint32(3)) ^ (word(u) >> np.uint32(2)) | word(x)),
    "words' sums": lambda x, u: word(x) + word(u) - word(x) * word(u),
    "words' ends": lambda x, u: jnp.minimum(jnp.maximum(word(x), word(u)), np.uint32(7)),
    "to bool": lambda x, u: word(x).astype(bool),
    "to float16": lambda x, u: x.astype(jnp.float16),
    "to int64": lambda x, u: (100.0 * x).astype(jnp.int64),
    "norm": lambda x, u: jnp.linalg.norm(jnp.concatenate([x, u]))[None],
}


LEFT_TO_XLA = {"softplus", "sin"}
"""What surely is. Others may be, or not."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_lower_or_are_left_to_xla(name):
    """A problem of a user's own never fails on a GPU for what its loss is made of."""
    one = jnp.ones(1, jnp.float32)

    def run(key):
        return trained(tts.Params(one, one), key, of=Through(OPERATIONS[name]), stops=(1,))

    text, kernel = lowered(jax.vmap(run), keys())
    assert ("mosaic_gpu" in text) == kernel
    assert not kernel or name not in LEFT_TO_XLA
