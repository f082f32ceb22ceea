"""When neurons arrive, by events of the flow: against the record, the limit, and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import small_problem, spread_start

import tts_jax as tts

FLOW = tts.GradientFlow(0.01, rtol=1e-10, atol=1e-12)
WITHIN = 0.02


@pytest.fixture(scope="module")
def times():
    return tts.arrival_times(small_problem(), FLOW, spread_start(), 0.5, within=WITHIN)


@pytest.mark.thorough
def test_neurons_are_there_at_the_time_and_not_before(times):
    problem, start = small_problem(), spread_start()
    assert np.all(np.isfinite(times))
    for k, time in enumerate(np.asarray(times)):
        taus = jnp.asarray([0.5 * time, time])
        run = tts.simulate(problem, FLOW, start, taus)
        before, there = tts.metrics.nearest_neuron(run.params.u, problem.target)[:, k]
        assert before > WITHIN
        assert float(there) == pytest.approx(WITHIN, abs=1e-8)


@pytest.mark.thorough
def test_rates_move_neurons_there_earlier(times):
    """Rates c, all equal, at epsilon/c are the plain flow on a clock that is c times as fast."""
    c = 4.0
    flow = tts.GradientFlow(0.01 / c, rates=c, rtol=1e-10, atol=1e-12)
    found = tts.arrival_times(small_problem(), flow, spread_start(), 0.5, within=WITHIN)
    np.testing.assert_allclose(c * found, times, rtol=1e-6)


def test_covered_from_the_start_and_not_reached_in_time():
    problem, start = small_problem(), spread_start()
    target = problem.target
    wide = tts.arrival_times(problem, FLOW, start, 0.5, within=1.0)
    np.testing.assert_array_equal(wide, np.zeros(np.size(target.jumps)))
    early = tts.arrival_times(problem, FLOW, start, 1e-6, within=WITHIN)
    np.testing.assert_array_equal(early, np.full(np.size(target.jumps), np.inf))


@pytest.mark.thorough
def test_a_run_that_cannot_go_on_is_not_a_jump_that_is_never_reached():
    short = tts.GradientFlow(0.01, max_steps=3)
    times = tts.arrival_times(small_problem(), short, spread_start(), 0.5, within=WITHIN)
    assert np.all(np.isnan(times))


@pytest.mark.thorough
@pytest.mark.parametrize("rtol", [1e-6, 1e-8])
def test_a_neuron_that_passes_within_a_step_has_arrived(rtol):
    """Within a small part of eta, at a large epsilon, where neurons swing through the jumps."""
    problem, within, horizon = small_problem(), 1e-6, 3.0
    flow = tts.GradientFlow(1.0, rtol=rtol, atol=1e-2 * rtol)
    taus = np.linspace(0.0, horizon, 4001)
    passed = 0
    for seed in range(12):
        start = tts.Params(
            jax.random.normal(jax.random.key(seed), (7,)),
            tts.init_uniform(jax.random.key(seed), 6).u,
        )
        times = np.asarray(tts.arrival_times(problem, flow, start, horizon, within=within))
        run = tts.simulate(problem, flow, start, taus)
        offset = np.asarray(run.params.u)[:, :, None] - np.asarray(problem.target.jumps)
        seen = np.abs(offset) <= within
        crossed = np.any(seen[1:] | (offset[1:] * offset[:-1] <= 0), axis=1)
        for k, time in enumerate(times):
            first = np.argmax(crossed[:, k]) if np.any(crossed[:, k]) else None
            latest = np.inf if first is None else taus[first + 1]
            assert time <= latest, (seed, k)
            if np.isfinite(time):
                until = np.linspace(0.0, time, taus.size)
                there = tts.simulate(problem, flow, start, until).params.u[-1]
                nearest = np.min(np.abs(np.asarray(there) - problem.target.jumps[k]))
                assert nearest == pytest.approx(within, abs=1e2 * rtol), (seed, k)
                passed += 1
    assert passed > 5


def first_arrival(numbers):
    """Of (epsilon, u, jumps, values, eta, within), with the rest of the small problem."""
    epsilon, u, jumps, values, eta, within = numbers
    network = tts.ShallowNetwork(tts.CubicStep(eta=eta))
    problem = tts.Problem(network, tts.PiecewiseConstant(jumps, values))
    flow = tts.GradientFlow(epsilon, rtol=1e-11, atol=1e-13)
    start = tts.Params(spread_start().a, u)
    return tts.arrival_times(problem, flow, start, 0.5, within=within)[0]


@pytest.mark.thorough
def test_derivatives_agree_with_finite_differences_forward_and_reverse():
    problem = small_problem()
    target = problem.target
    numbers = jax.tree.map(
        lambda value: jnp.asarray(value, float),
        (
            0.01,
            spread_start().u,
            target.jumps,
            target.values,
            problem.network.activation.eta,
            WITHIN,
        ),
    )
    gradient = jax.jit(jax.grad(first_arrival))(numbers)
    # Of numbers that are constants of it, XLA without optimisation makes a program that returns 0.
    forward = jax.jit(lambda at, d: jax.jvp(first_arrival, (at,), (d,))[1])
    leaves, structure = jax.tree.flatten(numbers)
    for place, leaf in enumerate(leaves):
        towards = [jnp.zeros_like(other) for other in leaves]
        towards[place] = 1.0 + 0.1 * jnp.arange(leaf.size, dtype=float).reshape(leaf.shape)
        step = 1e-6

        def moved(by, towards=towards):
            new = [a + by * b for a, b in zip(leaves, towards, strict=True)]
            return float(first_arrival(jax.tree.unflatten(structure, new)))

        expected = (moved(step) - moved(-step)) / (2 * step)
        along = sum(
            float(jnp.vdot(a, b)) for a, b in zip(jax.tree.leaves(gradient), towards, strict=True)
        )
        assert along == pytest.approx(expected, rel=1e-5), place
        directional = float(forward(numbers, jax.tree.unflatten(structure, towards)))
        assert directional == pytest.approx(along, rel=1e-8)
