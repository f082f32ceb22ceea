"""The corrected root finder: few steps, few rejections, and right answers."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from small_problems import slow_times, small_problem, spread_start

import tts_jax as tts

TAUS = jnp.array([0.0, 0.035])


def solve(velocity, y0, ts, *, order, rtol, atol):
    @jax.jit
    def run(y0):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: velocity(y)),
            tts.stiff_solver(order),
            0.0,
            ts[-1],
            None,
            y0,
            saveat=diffrax.SaveAt(ts=jnp.asarray(ts)),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            max_steps=20_000,
            throw=False,
        )

    solution = run(jnp.asarray(y0))
    assert bool(solution.result == diffrax.RESULTS.successful)
    return solution


def test_few_steps_and_few_rejections(problem, start):
    run = tts.simulate(problem, tts.GradientFlow(2e-5, rtol=1e-5, atol=1e-7), start, TAUS)
    assert run.stats["steps"] < 300
    assert run.stats["rejected"] < run.stats["accepted"] // 2


@pytest.mark.slow
def test_diffrax_alone_needs_ten_times_the_steps(problem, start):
    """When this fails, diffrax has released its correction and ours can go."""
    ours, bare = (
        tts.simulate(
            problem, tts.GradientFlow(2e-5, rtol=1e-5, atol=1e-7, solver=solver), start, TAUS
        )
        for solver in (tts.stiff_solver(), diffrax.Kvaerno5())
    )
    assert int(bare.stats["steps"]) > 10 * int(ours.stats["steps"])


@pytest.mark.parametrize("epsilon", [1e-5, 1e-7])
@pytest.mark.parametrize("rtol", [1e-8, 1e-11])
def test_stages_converge_at_tight_tolerances(epsilon, rtol):
    """Velocities of 1/epsilon are never known to the tolerance, but the state they give is."""
    flow = tts.GradientFlow(epsilon, rtol=rtol, atol=1e-2 * rtol)
    run = tts.simulate(small_problem(), flow, spread_start(), slow_times(0.2))
    assert run.stats["rejected"] < run.stats["accepted"] // 5


def test_the_paper_s_problem_at_the_smallest_epsilon(problem, start):
    flow = tts.GradientFlow(1e-7)
    run = tts.simulate(problem, flow, start, TAUS)
    assert run.stats["steps"] < 3000
    assert run.stats["rejected"] < run.stats["accepted"] // 2


@pytest.mark.parametrize("order", [3, 4, 5])
def test_a_stiff_linear_problem(order):
    """Decay rates from 1 to 1e6, coupled; the exact solution is a matrix exponential."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    matrix = -basis @ np.diag([1.0, 30.0, 1e3, 1e6]) @ basis.T
    y0, ts = np.array([1.0, -1.0, 0.5, 2.0]), np.array([1e-6, 1e-3, 0.1, 1.0])
    solution = solve(lambda y: jnp.asarray(matrix) @ y, y0, ts, order=order, rtol=1e-8, atol=1e-10)
    expected = np.stack([expm(t * matrix) @ y0 for t in ts])
    np.testing.assert_allclose(solution.ys, expected, rtol=0, atol=1e-6)
    assert solution.stats["num_rejected_steps"] < 0.2 * solution.stats["num_accepted_steps"]


@pytest.mark.thorough
def test_robertson():
    def parts(y):
        slow, fast = 0.04 * y[0] - 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return [-slow, slow - fast, fast]

    y0, ts = np.array([1.0, 0.0, 0.0]), np.array([1e-3, 1.0, 40.0, 4e3])
    solution = solve(lambda y: jnp.stack(parts(y)), y0, ts, order=5, rtol=1e-10, atol=1e-14)
    expected = solve_ivp(
        lambda t, y: parts(y), (0.0, ts[-1]), y0, "Radau", ts, rtol=1e-12, atol=1e-16
    )
    # Between steps the record is a cubic interpolation, less exact than the steps themselves.
    np.testing.assert_allclose(solution.ys, expected.y.T, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(solution.ys[-1], expected.y[:, -1], rtol=1e-8, atol=0)
    # The rates are linear in the concentrations or quadratic: mass is conserved to rounding.
    np.testing.assert_allclose(np.sum(np.asarray(solution.ys), axis=1), 1.0, rtol=0, atol=1e-9)


def test_other_orders_are_refused():
    with pytest.raises(ValueError, match="order"):
        tts.stiff_solver(2)
