"""Batches of flows as an accelerator takes them, in lanes that are refilled: here on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import results
from small_problems import WIDTH, slow_times, small_problem

import tts_jax as tts
from tts_jax.batching import devices as _device
from tts_jax.closed_forms import banded_system as cell_descent
from tts_jax.integrators import lane_queue as queue

BLOCK_RUNS = 11
TAUS = slow_times(0.2)
RNG = np.random.default_rng(0)
EPSILONS = jnp.asarray(10.0 ** RNG.uniform(-6, 1, size=BLOCK_RUNS)).at[-1].set(1e-6)
# Two with neurons that 0 or 1 cuts, and one with some outside.
U = RNG.uniform(0.1, 0.9, size=(BLOCK_RUNS, WIDTH))
U[2, 0], U[5, 3], U[7, :2] = 0.01, 0.99, (-0.3, 1.2)
STARTS = tts.Params(jnp.asarray(RNG.normal(size=(BLOCK_RUNS, WIDTH + 1))), jnp.asarray(U))


@pytest.fixture
def accelerator(monkeypatch):
    """What is traced from here on: functions that no other test traces."""
    monkeypatch.setattr(_device, "on_cpu", lambda: False)
    monkeypatch.setattr(queue, "LANES", 4)
    monkeypatch.setattr(queue, "TURNS", 3)
    jax.clear_caches()
    yield
    jax.clear_caches()


def flow(epsilon, start, *, eta=0.08, values=(1.0, 3.0, 0.5), max_steps=2000):
    how = tts.GradientFlow(epsilon, rtol=1e-7, atol=1e-9, max_steps=max_steps)
    return tts.simulate(small_problem(eta=eta, values=values), how, start, TAUS, throw=False)


def nth(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def each(function, *own):
    runs = [function(*nth(own, i)) for i in range(own[0].shape[0])]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *runs)


@pytest.fixture(scope="module")
def alone():
    """On a CPU: before what is asked for `accelerator` holds."""
    return each(jax.jit(flow), EPSILONS, STARTS)


def assert_same_runs(batch, expected, atol=1e-9):
    np.testing.assert_array_equal(batch.status, expected.status)
    for name, counts in expected.stats.items():
        np.testing.assert_array_equal(batch.stats[name], counts)
    for found, wanted in zip(
        (batch.params.a, batch.params.u, batch.risk),
        (expected.params.a, expected.params.u, expected.risk),
        strict=True,
    ):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


@pytest.mark.thorough
def test_every_flow_is_the_flow_alone(alone, accelerator):
    batch = results(jax.vmap(flow), EPSILONS, STARTS)
    assert_same_runs(batch, alone)
    assert np.all(np.asarray(batch.status) == tts.Status.OK)
    assert np.max(batch.stats["steps"]) > 3 * np.min(batch.stats["steps"])


@pytest.mark.thorough
def test_the_numbers_of_the_problem_may_be_a_run_s_own(accelerator, monkeypatch):
    etas = jnp.linspace(0.05, 0.1, 5)
    values = jnp.asarray(RNG.normal(size=(5, 3)))

    def moved(eta, values):
        target = tts.PiecewiseConstant([0.3, 0.65], values)
        problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta)), target)
        how = tts.GradientFlow(0.01, rtol=1e-7, atol=1e-9)
        return tts.simulate(problem, how, nth(STARTS, 2), TAUS, throw=False)

    batch = results(jax.vmap(moved), etas, values)
    monkeypatch.undo()
    jax.clear_caches()
    assert_same_runs(batch, each(jax.jit(moved), etas, values))


@pytest.mark.thorough
def test_flows_that_fail_are_labelled_and_leave_the_others_alone(alone, accelerator):
    a = STARTS.a.at[1].set(1e200).at[9].set(jnp.nan)
    slowest = int(np.argmax(alone.stats["steps"]))
    assert slowest not in (1, 9)
    most = int(np.sort(alone.stats["steps"])[-2])
    assert most < np.max(alone.stats["steps"])
    few = jax.vmap(lambda *own: flow(*own, max_steps=most + 1))
    batch = results(few, EPSILONS, STARTS._replace(a=a))
    status = np.full(BLOCK_RUNS, tts.Status.OK)
    status[[1, 9]], status[slowest] = tts.Status.NON_FINITE, tts.Status.MAX_STEPS
    np.testing.assert_array_equal(batch.status, status)
    fine = np.flatnonzero(status == tts.Status.OK)
    assert_same_runs(nth(batch, fine), nth(alone, fine))


@pytest.mark.slow
def test_gradients_of_a_batch_are_those_one_by_one(accelerator, monkeypatch):
    def risk(epsilon, start):
        how = tts.GradientFlow(epsilon, rtol=1e-6, atol=1e-8, max_steps=300)
        taus = jnp.asarray([0.0, 0.01, 0.02])
        return tts.simulate(small_problem(), how, start, taus).risk[-1]

    some = jnp.asarray([0, 2, 5])
    own = (jnp.asarray([1e-2, 1.0, 0.1]), nth(STARTS, some))
    mean = lambda *own: jnp.mean(jax.vmap(risk)(*own))  # noqa: E731
    reverse = jax.jit(jax.grad(mean, (0, 1)))(*own)
    direction = jax.tree.map(jnp.ones_like, own)
    forward = jax.jit(lambda at, d: jax.jvp(mean, at, d)[1])(own, direction)
    monkeypatch.undo()
    jax.clear_caches()
    expected = jax.tree.map(lambda v: v / 3, each(jax.jit(jax.grad(risk, (0, 1))), *own))
    for found, wanted in zip(jax.tree.leaves(reverse), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-8 * np.max(np.abs(wanted)))
    total = sum(np.sum(leaf) for leaf in jax.tree.leaves(expected))
    np.testing.assert_allclose(forward, total, rtol=1e-7)


@pytest.mark.thorough
def test_the_reduced_flow_too(accelerator, monkeypatch):
    def reduced(eta, start):
        how = tts.ReducedFlow(rtol=1e-7, atol=1e-9, ridge=1e-6)
        return tts.simulate(small_problem(eta=eta), how, start, 0.1 * TAUS, throw=False)

    own = jnp.linspace(0.05, 0.1, 5), nth(STARTS, jnp.asarray([0, 1, 2, 3, 4]))
    batch = results(jax.vmap(reduced), *own)
    monkeypatch.undo()
    jax.clear_caches()
    assert_same_runs(batch, each(jax.jit(reduced), *own), atol=1e-7)


@pytest.mark.slow
def test_wide_flows_too(accelerator, monkeypatch):
    monkeypatch.setattr(cell_descent, "_BANDWIDTHS", (8,))
    width = 49
    start = tts.Params(
        jnp.asarray(0.3 * RNG.normal(size=width + 1)), (jnp.arange(float(width)) + 0.5) / width
    )

    def wide(epsilon):
        how = tts.GradientFlow(epsilon, rtol=1e-7, atol=1e-9)
        return tts.simulate(small_problem(eta=0.02), how, start, 0.1 * TAUS, throw=False)

    epsilons = jnp.asarray([1e-3, 1.0, 1e-1, 1e-2, 0.3])
    batch = jax.jit(jax.vmap(lambda own: wide(own)))(epsilons)
    monkeypatch.undo()
    monkeypatch.setattr(cell_descent, "_BANDWIDTHS", (8,))
    jax.clear_caches()
    assert_same_runs(batch, each(jax.jit(wide), epsilons))
