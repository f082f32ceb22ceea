"""Runs side by side equal runs one by one, whatever they differ in and whoever their neighbours."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_problems import TRACED, WIDTH, CountedRamp

import tts_jax as tts

# As in test_sgd.py, no sample moves a neuron by a transition width: SGD is not chaotic there, and
# what rounds differently stays within rounding.
EPSILON, STEP = 0.01, 0.005
STEPS = 5000
ROUNDING = 1e-11

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


def taus(*steps):
    return jnp.asarray(steps, float) * (EPSILON * STEP)


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
    return tts.simulate(problem, sgd, start, taus(*stops), key=of["key"], samples=of.get("samples"))


@functools.cache
def single(**options):
    """One run, for all of which one compilation serves."""
    run = jax.jit(lambda numbers: simulate(numbers, **options))
    return lambda numbers: run({**NUMBERS, **numbers})


@functools.cache
def batched(**options):
    return jax.jit(jax.vmap(lambda numbers: simulate(numbers, **options)))


def pick(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def each(run, own):
    """The results of runs in turn, with a leading axis."""
    results = [run(pick(own, i)) for i in range(jax.tree.leaves(own)[0].shape[0])]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)


def assert_same(first, second, atol=ROUNDING):
    """Equal up to rounding. With an `atol` of 0: to the last bit."""
    for mine, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert mine.shape == other.shape
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=0, atol=atol)


def assert_same_runs(batch, alone, atol=ROUNDING):
    """`atol` is for the parameters: the risk of the same ones may round differently."""
    assert_same(batch.params, alone.params, atol)
    np.testing.assert_allclose(batch.risk, alone.risk, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(batch.status, alone.status)
    np.testing.assert_array_equal(batch.stats["steps"], alone.stats["steps"])


def assert_differ(params):
    """Every two runs end apart, so that a mix-up cannot go unseen."""
    ends = np.asarray(params.a)[:, -1]
    for first, second in itertools.combinations(ends, 2):
        assert np.max(np.abs(first - second)) > 1e-6


# Batches against runs one by one.


SIZES = (1, 3, 7, 8, 16, 33, 70)


@functools.cache
def some_of_the_keys(size, batch_size=1):
    """The last runs of 70: they have other places in batches of other sizes."""
    own = jax.tree.map(lambda leaf: leaf[-size:], rows("keys", SIZES[-1]))
    return (batched() if batch_size == 1 else batched(batch_size=batch_size))(own)


@functools.cache
def all_keys_in_turn():
    return each(single(), rows("keys", SIZES[-1]))


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

    @jax.jit
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
    assert_same_runs(batched()(own), expected, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_recorded_times_change_nothing(batch_size):
    own = jax.tree.map(lambda leaf: leaf[-8:], rows("keys", SIZES[-1]))
    # 4096 samples are made at a time, or three times 1365: stops inside, on and beside these.
    fine = batched(batch_size=batch_size, stops=(0, 1, 1365, 1366, 4095, 4096, STEPS))(own)
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


# Problems of a user's own.


class Bump(tts.AbstractProblem):
    """No network at all, and parameters in trees: only what SGD asks for."""

    scale: jax.Array

    def risk(self, params):
        return jnp.sum(params.a["height"] ** 2) + params.u[0] ** 2

    def predict(self, params, x):
        wave = jnp.cos(x[:, None] * self.scale - params.u[1][None])
        return wave @ params.a["height"] + params.u[0]

    def draw(self, key, count):
        x = jax.random.normal(key, (count,))
        return x, jnp.sin(x)

    def sample_loss(self, params, x, y):
        return jnp.mean((self.predict(params, x) - y) ** 4)


class UniformBump(Bump):
    """The same with inputs made from one uniform number each."""

    def from_uniform(self, v):
        x = 4.0 * v**2 - 1.0
        return x, jnp.sin(self.scale * x)


def bump(kind):
    a = {"height": jnp.asarray([0.5, -0.3])}
    return kind(jnp.asarray(2.0)), tts.Params(a, (jnp.asarray(0.1), jnp.asarray([0.0, 1.0])))


def additive():
    rng = np.random.default_rng(4)
    x, y = rng.uniform(size=(40, 2)), rng.normal(size=40)
    start = tts.Params(jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.uniform(size=(2, 3))))
    return tts.EmpiricalProblem(tts.AdditiveNetwork(tts.CubicStep(0.2)), x, y), start


def norm_on_a_sample():
    rng = np.random.default_rng(5)
    x, y = rng.uniform(size=40), rng.normal(size=40)
    network = tts.ShallowNetwork(tts.Tanh(0.2))
    start = tts.Params(NUMBERS["a"], NUMBERS["u"])
    return tts.EmpiricalProblem(network, x, y, loss="norm"), start


def taught_without_bias():
    network = tts.ShallowNetwork(tts.Logistic(0.1), bias=False)
    teacher = tts.Teacher(network, tts.Params(jnp.asarray([2.0, -1.0]), jnp.asarray([0.3, 0.6])))
    return tts.Problem(network, teacher), tts.Params(NUMBERS["a"][1:], NUMBERS["u"])


PROBLEMS = {
    "draw only": functools.partial(bump, Bump),
    "from_uniform": functools.partial(bump, UniformBump),
    "additive": additive,
    "norm": norm_on_a_sample,
    "teacher": taught_without_bias,
}


@pytest.mark.parametrize(
    ("name", "batch_size"), [*((name, 1 if name == "additive" else 3) for name in PROBLEMS)]
)
def test_other_problems_side_by_side_equal_one_by_one(name, batch_size):
    problem, start = PROBLEMS[name]()
    sgd = tts.SGD(0.1, STEP, noise=0.1, batch_size=batch_size)

    def run(key):
        return tts.simulate(problem, sgd, start, taus(1, 4500) * 10, key=key)

    keys = rows("keys", 4)["key"]
    batch = jax.jit(jax.vmap(run))(keys)
    assert_same_runs(batch, each(jax.jit(run), keys))
    final = jax.tree.leaves(batch.final)
    for leaf, begin in zip(final, jax.tree.leaves(start), strict=True):
        assert np.max(np.abs(leaf - begin[None])) > 1e-3
        assert np.max(np.abs(leaf[0] - leaf[1])) > 1e-6


@pytest.mark.parametrize("kind", [Bump, UniformBump])
def test_other_problems_that_differ_side_by_side_equal_one_by_one(kind):
    problem, start = bump(kind)

    def run(scale):
        other = eqx.tree_at(lambda p: p.scale, problem, scale)
        sgd = tts.SGD(0.1, STEP, noise=0.1)
        return tts.simulate(other, sgd, start, taus(1, 4500) * 10, key=NUMBERS["key"])

    scales = jnp.asarray([1.0, 1.5, 2.5])
    batch = jax.jit(jax.vmap(run))(scales)
    assert_same_runs(batch, each(jax.jit(run), scales))
    assert np.max(np.abs(batch.final.a["height"][0] - batch.final.a["height"][1])) > 1e-3


# Networks.


def random_params(width, bias, runs=()):
    rng = np.random.default_rng(width)
    a, u = rng.normal(size=(width + bias, *runs)), rng.uniform(size=(width, *runs))
    return tts.Params(jnp.asarray(a), jnp.asarray(u))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 3, 4, 5, 20])
def test_networks_side_by_side_equal_one_by_one(width, bias):
    network = tts.ShallowNetwork(tts.CubicStep(0.3), bias=bias)
    params = random_params(width, bias, (6,))
    rng = np.random.default_rng(6)

    @jax.jit
    def both(params, x, weights):
        def one(params, x, weights):
            values = network(params, x)
            return jnp.sum(weights * values**2), values

        def many(params):
            return one(params, x, weights)

        each = jax.vmap(jax.value_and_grad(one, has_aux=True), in_axes=-1, out_axes=-1)
        return jax.value_and_grad(many, has_aux=True)(params), each(params, x, weights)

    for shape in ((), (4,)):
        x, weights = rng.uniform(size=(2, *shape, 6))
        ((total, values), gradient), ((losses, alone), slopes) = both(params, x, weights)
        assert values.shape == (*shape, 6)
        np.testing.assert_allclose(values, alone, rtol=0, atol=1e-13)
        np.testing.assert_allclose(total, np.sum(losses), rtol=1e-13)
        assert_same(gradient, slopes, 1e-12)
        assert np.max(np.abs(gradient.u)) > 0.01


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 7, 8])
@pytest.mark.parametrize("activation", [tts.CubicStep(0.3), tts.Logistic(0.02)], ids=repr)
def test_filling_up_keeps_the_function_and_its_gradient(activation, width, bias):
    network = tts.ShallowNetwork(activation, bias=bias)
    params = random_params(width, bias)
    x = np.linspace(0.0, 1.0, 33)

    @jax.jit
    def both(params):
        def loss(network, params):
            values = network(params, x)
            return jnp.mean(jnp.sin(3.0 * x) * values**2), values

        slopes = jax.grad(loss, 1, has_aux=True)
        wide, filled = network.padded(params, 8)
        return filled, slopes(wide, filled), slopes(network, params)

    filled, (gradient, values), (expected, plain) = both(params)
    assert filled.a.shape == filled.u.shape == (8 * -(-(width + bias) // 8),)
    np.testing.assert_allclose(values, plain, rtol=0, atol=1e-13)
    assert_same(network.unpadded(gradient, width), expected, 1e-12)
    used = width + bias
    for leaf in (gradient.a[used:], gradient.u[used:], gradient.u[:bias]):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_filling_up_is_undone(bias, dtype):
    network = tts.ShallowNetwork(tts.CubicStep(0.3), bias=bias)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), random_params(7, bias))
    _, filled = network.padded(params, 4)
    assert_same(network.unpadded(filled, 7), params, 0)
    recorded, twice = (
        jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), p) for p in (filled, params)
    )
    assert_same(network.unpadded(recorded, 7), twice, 0)


# Problems that change what `Problem` does.


class OwnLoss(tts.Problem):
    """Its mean is over all axes, as one would write it for one run."""

    def sample_loss(self, params, x, y):
        return jnp.mean((self.predict(params, x) - y) ** 2)


class OwnDraw(tts.Problem):
    """Inputs from the left half only."""

    def draw(self, key, count):
        x = jax.random.uniform(key, (count,), maxval=0.5)
        return x, self.label(x)


@pytest.mark.parametrize("kind", [OwnLoss, OwnDraw])
def test_a_special_problem_keeps_what_it_changes(kind):
    target = tts.PiecewiseConstant(NUMBERS["jumps"], NUMBERS["values"])
    special, plain = (
        k(tts.ShallowNetwork(tts.CubicStep(0.08)), target) for k in (kind, tts.Problem)
    )
    start, sgd = tts.Params(NUMBERS["a"], NUMBERS["u"]), tts.SGD(EPSILON, STEP, noise=0.3)

    def run(problem, key):
        return tts.simulate(problem, sgd, start, taus(STEPS), key=key).final

    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(lambda key: run(special, key)))(keys)
    assert_same(together, each(lambda key: run(special, key), keys))
    same = np.allclose(together.a[0], run(plain, keys[0]).a, rtol=0, atol=1e-9)
    assert same == (kind is OwnLoss)


class Anchored(tts.Problem):
    """With a penalty on the parameters themselves."""

    def sample_loss(self, params, x, y):
        return super().sample_loss(params, x, y) + jnp.mean((params.u - 0.5) ** 2)


def test_a_loss_that_looks_at_the_parameters_sees_those_of_the_user():
    target = tts.PiecewiseConstant(NUMBERS["jumps"], NUMBERS["values"])
    problem = Anchored(tts.ShallowNetwork(tts.CubicStep(0.08)), target)
    start, sgd = tts.Params(NUMBERS["a"], NUMBERS["u"]), tts.SGD(1.0, 1e-3, noise=0.3)
    x, noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 50))
    x = np.abs(x)
    run = tts.simulate(problem, sgd, start, jnp.array([0.05]), samples=(x, noise)).final
    params = start
    for one_x, extra in zip(x, noise, strict=True):
        sample = (jnp.asarray(one_x)[None], problem.label(jnp.asarray(one_x)[None]) + extra)
        slope = jax.grad(problem.sample_loss)(params, *sample)
        params = jax.tree.map(lambda p, g: p - 1e-3 * g, params, slope)
    assert_same(run, params, 1e-12)
