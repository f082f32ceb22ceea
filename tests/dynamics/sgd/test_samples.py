"""The samples of SGD: bits against an independent Threefry, and what is made of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from small_problems import small_problem

import tts_jax as tts
from tts_jax.dynamics.sgd.samples import CHUNK, Drawn, Hashed, Replayed, of_dtype, threefry

SEED = (0x0123ABCD, 0xFEDC9876)
DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)
SCALE = 0.75

chunk_of = jax.jit(lambda source, problem, number: source.chunk(problem, number))


def reference(key, counter):
    """Threefry-2x32-20 as Salmon et al. write it, with Python's whole numbers."""
    word = 2**32
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (counter[0] + keys[0]) % word, (counter[1] + keys[1]) % word
    for turn in range(20):
        by = (13, 15, 26, 6, 17, 29, 16, 24)[turn % 8]
        x = (x + y) % word
        y = ((y << by) | (y >> (32 - by))) % word ^ x
        if turn % 4 == 3:
            group = turn // 4 + 1
            x = (x + keys[group % 3]) % word
            y = (y + keys[(group + 1) % 3] + group) % word
    return x, y


def words(*values):
    return [jnp.asarray(v, jnp.uint32) for v in values]


def jax_bits(seed, count):
    key = jax.random.wrap_key_data(jnp.asarray(seed, jnp.uint32))
    return np.asarray(jax.random.bits(key, (count,), "uint64"))


def silent():
    """A problem whose targets are 0, so that y is the noise."""
    return small_problem(values=(0.0, 0.0, 0.0))


def hashed(size=1, dtype=DOUBLE, seed=SEED, noise=SCALE):
    return Hashed(jnp.asarray(seed, jnp.uint32), jnp.asarray(noise), size, dtype)


def chunks(source, numbers, problem=None):
    """The x and the y of some chunks after each other, on one axis."""
    problem = silent() if problem is None else problem
    parts = [chunk_of(source, problem, jnp.asarray(number)) for number in numbers]
    return [np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(2)]


# The bits.


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_threefry_has_the_published_known_answers(key, counter, expected):
    """The vectors of Random123, `threefry2x32 20`."""
    assert reference(key, counter) == expected
    found = threefry(*words(*key, *counter))
    assert tuple(int(v) for v in found) == expected


def test_threefry_is_the_reference_for_any_key_and_counter():
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**32, size=(4, 50))
    found = np.stack(threefry(*words(*numbers)))
    expected = [reference((a, b), (c, d)) for a, b, c, d in numbers.T.tolist()]
    np.testing.assert_array_equal(found.T, expected)


def test_threefry_has_the_bits_of_jax_random():
    high, low = threefry(*words(*SEED, np.zeros(5000), np.arange(5000)))
    found = np.asarray(high, np.uint64) << np.uint64(32) | np.asarray(low, np.uint64)
    np.testing.assert_array_equal(found, jax_bits(SEED, 5000))


# What is made of them.


def from_bits(bits):
    """x and noise in [-1, 1] of 64 bits: 40 make x, 24 the noise."""
    x = (bits >> np.uint64(24)).astype(np.float64) / 2.0**40
    noise = (2.0 * (bits & np.uint64(2**24 - 1)).astype(np.float64) + 1.0) / 2.0**24 - 1.0
    return x, noise


@pytest.mark.parametrize("size", [1, 3, 100, CHUNK, 5000])
def test_chunks_follow_each_other_whatever_the_batch(size):
    source = hashed(size)
    assert source.chunk_length == max(1, CHUNK // size)
    x, y = chunks(source, range(3))
    assert x.shape == y.shape == (3 * source.chunk_length, size)
    expected_x, expected_noise = from_bits(jax_bits(SEED, x.size))
    np.testing.assert_array_equal(x.ravel(), expected_x)
    np.testing.assert_allclose(y.ravel(), SCALE * expected_noise, rtol=0, atol=1e-16)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("bits", [32, 33, 50])
def test_counters_need_more_than_32_bits(size, bits):
    source = hashed(size)
    count = source.chunk_length * size
    number = 2**bits // count
    x = chunks(source, [number])[0].ravel()
    places = [number * count, number * count + 1, (number + 1) * count - 1]
    if size == 3:
        # A chunk of 4095 samples holds the multiple of 2^32 inside.
        places.append(2**bits)
        assert places[0] < 2**bits <= places[2]
    for place in places:
        high, low = reference(SEED, (place >> 32, place % 2**32))
        assert x[place - number * count] == ((high << 8) + (low >> 24)) / 2**40


def test_no_sample_comes_twice():
    x, _ = chunks(hashed(), range(20))
    # Of 80 000 numbers of 40 bits two are equal once in 300 seeds.
    assert np.unique(x).size == x.size


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=str)
def test_the_noise_is_the_middle_of_equal_intervals(dtype):
    """They lie evenly on both sides of zero, and none reaches 1: the mean is exactly zero."""
    _, noise = chunks(hashed(dtype=dtype, noise=1.0), [0, 1])
    odd = noise.astype(np.float64) * 2.0**24
    np.testing.assert_array_equal(odd % 2, 1.0)
    assert np.max(np.abs(odd)) < 2**24
    assert np.min(odd) < -0.99 * 2**24
    assert np.max(odd) > 0.99 * 2**24


def test_samples_stay_in_their_ranges():
    for dtype in (DOUBLE, SINGLE):
        x, y = chunks(hashed(dtype=dtype), range(20))
        assert x.dtype == y.dtype == dtype
        assert 0 <= x.min() < 1e-3
        assert 1 - 1e-3 < x.max() < 1
        assert 0.999 * SCALE < np.max(np.abs(y)) <= SCALE


@pytest.mark.parametrize("size", [1, 3])
def test_float32_is_float64_rounded_down_to_24_bits(size):
    double, single = (chunks(hashed(size, dtype), [0, 7]) for dtype in (DOUBLE, SINGLE))
    np.testing.assert_array_equal(single[0], np.floor(double[0] * 2.0**24) / 2.0**24)
    # The noise of both is the same; scaling it rounds once.
    np.testing.assert_allclose(single[1], double[1], rtol=2.0**-23, atol=0)


def test_targets_are_those_of_the_problem():
    problem = small_problem()
    for dtype in (DOUBLE, SINGLE):
        x, y = chunks(hashed(3, dtype, noise=0.0), [0], problem)
        jumps = np.asarray(problem.target.jumps, dtype)
        pieces = np.searchsorted(jumps, x, side="right")
        np.testing.assert_array_equal(y, problem.target.values[pieces])
        assert np.unique(pieces).size == 3


@pytest.mark.parametrize("runs", [1, 5])
@pytest.mark.parametrize("size", [1, 3])
def test_runs_side_by_side_have_the_samples_of_each(size, runs):
    seeds = np.random.default_rng(1).integers(0, 2**32, size=(2, runs))
    problem = small_problem()
    for dtype in (DOUBLE, SINGLE):
        together = chunks(hashed(size, dtype, seeds), [0, 2**21], problem)
        assert together[0].shape == (2 * (CHUNK // size), size, runs)
        for run in range(runs):
            alone = chunks(hashed(size, dtype, seeds[:, run]), [0, 2**21], problem)
            for both, one in zip(together, alone, strict=True):
                np.testing.assert_array_equal(both[..., run], one)


@pytest.fixture(scope="module", params=[DOUBLE, SINGLE], ids=str)
def many(request):
    """The x and the noise of 81 920 samples."""
    return [v.ravel().astype(np.float64) for v in chunks(hashed(dtype=request.param), range(20))]


def test_samples_are_uniform(many):
    x, noise = many
    assert stats.kstest(x, "uniform").pvalue > 1e-3
    assert stats.kstest(noise, "uniform", args=(-SCALE, 2 * SCALE)).pvalue > 1e-3
    # The bits below those that a test of so many samples sees.
    assert stats.kstest((x * 2**12) % 1, "uniform").pvalue > 1e-3


def test_x_is_independent_of_the_noise(many):
    x, noise = many
    table = np.histogram2d(x, noise, bins=16)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    for first, second in ((x, noise), (x[1:], x[:-1]), (noise[1:], noise[:-1])):
        # Under independence the correlation is normal with deviation 1/sqrt(count).
        assert abs(np.corrcoef(first, second)[0, 1]) < 3.5 / np.sqrt(first.size)


# The other sources.


class Inputs(tts.AbstractProblem):
    """Inputs of several numbers, which only `draw` makes."""

    count: int = eqx.field(static=True)

    def risk(self, params):
        return jnp.sum(params.a)

    def draw(self, key, count):
        x = jax.random.uniform(key, (count, self.count))
        return x, self.label(x)

    def label(self, x):
        return 10.0 * jnp.sum(x, axis=-1)


@pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=str)
@pytest.mark.parametrize("steps", [1, CHUNK, 9000])
def test_a_replay_is_the_stream_in_whole_chunks(steps, dtype):
    rng = np.random.default_rng(2)
    for lead in ((steps,), (steps, 3)):
        x, noise = rng.uniform(size=lead), rng.normal(size=lead)
        source = Replayed((jnp.asarray(x), jnp.asarray(noise)), dtype)
        assert source.chunk_length == CHUNK
        problem = small_problem()
        number = -(-steps // CHUNK)
        found = chunks(source, range(number), problem)
        expected = (x, np.asarray(problem.label(jnp.asarray(x))) + noise)
        for mine, true in zip(found, expected, strict=True):
            assert mine.shape == (number * CHUNK, *(lead[1:] or (1,)))
            assert mine.dtype == dtype
            np.testing.assert_array_equal(mine[:steps], true.reshape(steps, -1).astype(dtype))
            assert np.all(np.isfinite(mine))


def test_a_replay_keeps_the_axes_of_an_input():
    rng = np.random.default_rng(3)
    x, noise = rng.uniform(size=(5000, 2, 4)), rng.normal(size=(5000, 2))
    source = Replayed((jnp.asarray(x), jnp.asarray(noise)), DOUBLE)
    found = chunks(source, range(2), Inputs(4))
    assert found[0].shape == (2 * CHUNK, 2, 4)
    np.testing.assert_array_equal(found[0][:5000], x)
    np.testing.assert_allclose(found[1][:5000], 10 * x.sum(axis=-1) + noise, rtol=1e-14)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("size", "dtype"), [(1, DOUBLE), (3, SINGLE), (5000, SINGLE)], ids=["1", "3", "5000"]
)
def test_drawn_samples_come_in_the_same_shapes(size, dtype):
    key, noise = jax.random.key(4), jnp.asarray(SCALE)
    source = Drawn(key, noise, size, dtype)
    assert source.chunk_length == hashed(size).chunk_length
    for problem, more in ((small_problem(), ()), (Inputs(4), (4,))):
        x, y = chunks(source, [0, 1], problem)
        assert x.shape == (2 * source.chunk_length, size, *more)
        assert y.shape == (2 * source.chunk_length, size)
        assert x.dtype == y.dtype == dtype
        assert np.unique(x).size > 0.99 * x.size
        off = y - np.asarray(of_dtype(problem, dtype).label(jnp.asarray(x)))
        # Rounding x to float32 may move it over a jump.
        assert np.mean(np.abs(off) <= SCALE * 1.001) > 0.999
        assert stats.kstest(off.ravel(), "uniform", args=(-SCALE, 2 * SCALE)).pvalue > 1e-3


def test_drawn_samples_depend_on_key_and_number_alone():
    noise = jnp.asarray(SCALE)
    first, second = (Drawn(jax.random.key(i), noise, 3, DOUBLE) for i in (4, 5))
    late = chunks(first, [2**33])
    np.testing.assert_array_equal(late[0], chunks(first, [2**33])[0])
    for other in (chunks(first, [2**33 + 1]), chunks(first, [1]), chunks(second, [2**33])):
        assert not np.any(late[0] == other[0])


def test_numbers_of_a_problem_change_their_precision():
    single = of_dtype(jax.tree.map(jnp.asarray, small_problem()), SINGLE)
    assert {leaf.dtype for leaf in jax.tree.leaves(single)} == {SINGLE}
    np.testing.assert_array_equal(single.target.values, [1.0, 3.0, 0.5])


# A stream that is replayed.


def test_a_sample_is_replayed_by_its_numbers():
    """Against a loop by hand over the same numbers of a sample of two inputs."""
    rng = np.random.default_rng(5)
    x, y, step = rng.uniform(size=(9, 2)), rng.normal(size=9), 0.05
    problem = tts.EmpiricalProblem(tts.AdditiveNetwork(tts.CubicStep(eta=0.3)), x, y)
    start = tts.Params(jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.uniform(size=(2, 3))))
    index, noise = rng.integers(0, 9, size=(5, 4)), 0.1 * rng.normal(size=(5, 4))
    sgd = tts.SGD(0.5, step, batch_size=4)
    taus = 0.5 * step * jnp.array([5.0])
    run = tts.simulate(problem, sgd, start, taus, samples=(index, noise))
    params = start
    for i, n in zip(index, noise, strict=True):
        loss = lambda p, i=i, n=n: jnp.mean((problem.network(p, x[i]) - y[i] - n) ** 2)  # noqa: E731
        slope = jax.grad(loss)(params)
        params = tts.Params(params.a - step * slope.a, params.u - 0.5 * step * slope.u)
    np.testing.assert_allclose(run.final.a, params.a, rtol=1e-12)
    np.testing.assert_allclose(run.final.u, params.u, rtol=1e-12)


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        (np.array([0.0, 1.0]), "the index of whole numbers from 0 to 8, but is of dtype float64"),
        (np.array([0, 9]), "with an index from 0 to 8, but is from 0 to 9"),
        (np.array([-1, 3]), "with an index from 0 to 8, but is from -1 to 3"),
    ],
)
def test_what_is_no_number_of_a_sample_is_refused(index, complaint):
    network = tts.ShallowNetwork(tts.CubicStep(eta=0.3))
    problem = tts.EmpiricalProblem(network, np.linspace(0.0, 1.0, 9), np.zeros(9))
    start = tts.Params(jnp.zeros(4), jnp.linspace(0.2, 0.8, 3))
    with pytest.raises(ValueError, match="Argument `samples` must be") as told:
        tts.simulate(problem, tts.SGD(1.0, 1.0), start, [2.0], samples=(index, np.zeros(2)))
    assert complaint in str(told.value)
