"""SGD whose leaves of u have rates: against a loop by hand, side by side, and against the flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import WIDTH, random_problem
from small_runs import EPSILON, NOISE, STEP, assert_same, steps_to_taus
from small_studies import compilations

import tts_jax as tts

X = np.random.default_rng(0).normal(size=(12, 2))
Y = np.tanh(X[:, 0] - 2 * X[:, 1])
NETWORK = tts.TwoLayerNetwork(tts.ReLU())
PROBLEM = tts.EmpiricalProblem(NETWORK, X, Y)
START = tts.Params(
    np.asarray([0.1, 0.5, -0.4, 0.3]),
    {"w": np.asarray([[1.2, 0.1], [-0.6, 1.1], [0.2, -1.4]]), "b": np.asarray([0.5, -0.3, 0.2])},
)
BY_LEAF = {"w": 0.3, "b": 2.0}
BY_NUMBER = {"w": np.asarray([[0.3, 2.0]]), "b": np.asarray([0.5, 0.0, 3.0])}
COUNT = 300
SAMPLES = (np.random.default_rng(1).integers(0, 12, COUNT), np.zeros(COUNT))


def by_hand(rates, dtype=np.float64):
    """Training steps on single samples, in NumPy."""
    a, w, b = (np.array(v, dtype) for v in (START.a, START.u["w"], START.u["b"]))
    for i in SAMPLES[0]:
        x, y = X[i].astype(dtype), dtype(Y[i])
        z = w @ x + b
        pull = 2 * (a[0] + np.maximum(z, 0) @ a[1:] - y)
        by_z = pull * a[1:] * (z > 0)
        by_a = pull * np.concatenate([np.ones(1, dtype), np.maximum(z, 0)])
        a = a - dtype(STEP) * by_a
        w = w - (STEP * EPSILON * np.asarray(rates["w"])).astype(dtype) * np.outer(by_z, x)
        b = b - (STEP * EPSILON * np.asarray(rates["b"])).astype(dtype) * by_z
    return tts.Params(a, {"w": w, "b": b})


@pytest.mark.parametrize("rates", [BY_LEAF, BY_NUMBER], ids=["by leaf", "by number"])
def test_it_is_a_loop_by_hand(rates):
    sgd = tts.SGD(EPSILON, STEP, rates=rates)
    run = tts.simulate(PROBLEM, sgd, START, steps_to_taus(COUNT), samples=SAMPLES)
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, rtol=0, atol=1e-14),
        run.final,
        by_hand(rates),
    )
    assert np.max(np.abs(run.final.u["w"] - START.u["w"])) > 1e-5
    if rates is BY_NUMBER:
        assert run.final.u["b"][1] == START.u["b"][1]


def test_it_keeps_small_steps_in_single_precision():
    start = jax.tree.map(lambda leaf: leaf.astype(np.float32), START)
    sgd = tts.SGD(EPSILON, STEP, rates={"w": 1e-4, "b": jnp.float32(2.0)})
    run = tts.simulate(PROBLEM, sgd, start, steps_to_taus(COUNT), samples=SAMPLES)
    assert run.final.u["w"].dtype == np.float32
    exact = by_hand({"w": 1e-4, "b": 2.0})
    np.testing.assert_allclose(run.final.u["b"], exact.u["b"], rtol=0, atol=1e-6)
    # Of the order of the last digit of w; each of the steps is far smaller.
    moved = exact.u["w"] - START.u["w"]
    np.testing.assert_allclose(run.final.u["w"] - start.u["w"], moved, rtol=0, atol=2e-7)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("kind", ["one", "array"])
def test_runs_side_by_side_are_those_alone(kind):
    """In the lanes: rates that all share, and rates that differ; of a network of steps."""
    problem, start = random_problem(4)
    per_neuron = np.linspace(0.0, 2.0, WIDTH)
    many = jnp.asarray([0.5, 1.0, 3.0])
    keys = jax.random.split(jax.random.key(0), 3)
    taus = steps_to_taus(50, 500)

    def run(rate, key):
        rates = rate if kind == "one" else rate * jnp.asarray(per_neuron)
        sgd = tts.SGD(EPSILON, STEP, noise=NOISE, rates=rates)
        return tts.simulate(problem, sgd, start, taus, key=key).params

    alone = jax.jit(run)
    for axes, given in (((0, 0), (many, keys)), ((None, 0), (many[2], keys))):
        together = jax.jit(jax.vmap(run, axes))(*given)
        for i in range(3):
            rate = many[i] if axes[0] == 0 else many[2]
            assert_same(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone(rate, keys[i]))


@pytest.mark.thorough
def test_the_largest_jump_counts_the_rate_of_each_neuron():
    problem, start = random_problem(4)
    rates = np.ones(WIDTH)
    jumps = []
    for chosen in (None, rates, 3 * rates, np.zeros(WIDTH)):
        sgd = tts.SGD(EPSILON, STEP, noise=NOISE, rates=chosen)
        run = tts.simulate(problem, sgd, start, jnp.zeros(1), key=jax.random.key(0))
        jumps.append(float(run.stats["largest_jump"]))
    np.testing.assert_allclose(jumps[1:], np.asarray([1.0, 3.0, 0.0]) * jumps[0], rtol=1e-12)


@pytest.mark.thorough
def test_descent_on_the_whole_risk_is_the_flow_as_steps_become_small():
    flow = tts.GradientFlow(0.1, rates=BY_LEAF)
    expected = tts.simulate(PROBLEM, flow, START, [0.2]).final
    off = []
    for step in (1e-3, 5e-4):
        sgd = tts.SGD(0.1, step, batch_size="full", rates=BY_LEAF)
        final = tts.simulate(PROBLEM, sgd, START, [0.2]).final
        apart = jax.tree.map(lambda one, two: jnp.max(jnp.abs(one - two)), final, expected)
        off.append(float(max(jax.tree.leaves(apart))))
    assert off[0] < 1e-2
    assert off[1] == pytest.approx(off[0] / 2, rel=0.1)


def test_new_rates_compile_nothing():
    def run(rates):
        sgd = tts.SGD(EPSILON, STEP, rates=rates)
        return tts.simulate(PROBLEM, sgd, START, steps_to_taus(COUNT), samples=SAMPLES).final

    first = run(BY_LEAF)
    with compilations() as found:
        second = run({"w": 0.5, "b": 0.75})
    assert found == []
    assert not np.array_equal(first.u["b"], second.u["b"])


def test_a_checkpoint_of_other_rates_is_of_another_run(tmp_path):
    def run(rates, count=COUNT):
        sgd = tts.SGD(EPSILON, STEP, rates=rates)
        options = {"samples": SAMPLES, "checkpoint": tmp_path / "run.npz"}
        return tts.simulate(PROBLEM, sgd, START, steps_to_taus(count), **options).final

    first = run(BY_LEAF)
    assert_same(run(dict(BY_LEAF)), first, atol=0)
    for other in (BY_LEAF | {"b": 2.5}, None):
        with pytest.raises(ValueError, match="Argument `checkpoint` must be a file of this run"):
            run(other)
