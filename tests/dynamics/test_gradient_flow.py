"""The gradient flow against SciPy on an independent gradient, and its derivatives."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import quickly
from scipy.integrate import simpson, solve_ivp
from small_problems import WIDTH, NumpyRisk, random_problem, slow_times, small_problem, spread_start

import tts_jax as tts


def scipy_flow(problem, start, epsilon, taus):
    risk = NumpyRisk(problem)
    split = WIDTH + 1

    def velocity(tau, y):
        _, by_a, by_u = risk(y[:split], y[split:])
        return np.concatenate([-by_a / epsilon, -by_u])

    y0 = np.concatenate([np.asarray(start.a), np.asarray(start.u)])
    solution = solve_ivp(
        velocity, (0.0, taus[-1]), y0, "Radau", taus, rtol=1e-11, atol=1e-12, first_step=1e-8
    )
    assert solution.success
    return solution.y.T[:, :split], solution.y.T[:, split:]


@pytest.mark.parametrize(
    ("seed", "epsilon"), [pytest.param(6, 1.0, marks=pytest.mark.thorough), (1, 1e-2), (3, 1e-4)]
)
def test_agrees_with_scipy_radau(seed, epsilon):
    problem, start = random_problem(seed)
    taus = slow_times(0.2)
    flow = tts.GradientFlow(epsilon, rtol=1e-12, atol=1e-13)
    run = tts.simulate(problem, flow, start, taus)
    a, u = scipy_flow(problem, start, epsilon, np.asarray(taus))
    np.testing.assert_allclose(run.params.u, u, rtol=0, atol=2e-9)
    np.testing.assert_allclose(run.params.a, a, rtol=0, atol=2e-9)
    risk = NumpyRisk(problem)
    expected = [risk(*point)[0] for point in zip(a, u, strict=True)]
    np.testing.assert_allclose(run.risk, expected, rtol=0, atol=2e-9)


def test_records_the_start_at_tau_zero():
    problem, start = random_problem(4)
    run = tts.simulate(problem, tts.GradientFlow(0.1), start, slow_times(0.2))
    np.testing.assert_array_equal(run.at(0).a, start.a)
    np.testing.assert_array_equal(run.at(0).u, start.u)


@pytest.mark.parametrize("epsilon", [1e-7, 1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e3])
def test_every_epsilon_ends_well(epsilon):
    run = tts.simulate(small_problem(), tts.GradientFlow(epsilon), spread_start(), slow_times(0.2))
    assert run.status == tts.Status.OK
    assert np.all(run.valid)
    # A thousand is far above what any of them needs, far below a solver that rejects every step.
    assert run.stats["steps"] < 1000


def test_the_paper_s_problem_is_solved_at_small_epsilon(problem, start):
    run = tts.simulate(problem, tts.GradientFlow(2e-5), start, jnp.array([0.0, 0.035]))
    np.testing.assert_allclose(run.risk, [10.6, 0.0079618], rtol=0, atol=5e-8)


def test_the_paper_s_problem_gets_stuck_at_epsilon_one(problem, start):
    run = tts.simulate(problem, tts.GradientFlow(1.0), start, jnp.array([0.0, 10.0]))
    assert float(run.risk[-1]) == pytest.approx(0.3325, abs=5e-5)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_risk_falls_as_fast_as_the_gradients_say(epsilon):
    """dL/dtau = -(|grad_a L|^2 / epsilon + |grad_u L|^2): the clock and both step sizes."""
    problem, start = random_problem(5)
    flow = tts.GradientFlow(epsilon, rtol=1e-10, atol=1e-11)
    run = tts.simulate(problem, flow, start, slow_times(0.02 * epsilon))
    risk = NumpyRisk(problem)
    rates = []
    for a, u in zip(np.asarray(run.params.a), np.asarray(run.params.u), strict=True):
        _, by_a, by_u = risk(a, u)
        rates.append(np.sum(by_a**2) / epsilon + np.sum(by_u**2))
    spent = simpson(rates, x=np.asarray(run.taus))
    assert float(run.risk[0] - run.risk[-1]) == pytest.approx(spent, rel=1e-5)


# Derivatives: of the final risk, in everything that the design promises, at once. They see the
# kinks of the second derivative of the risk, so that two solvers agree less well on them.

NUMBERS = {
    "epsilon": jnp.asarray(0.3),
    "a": jnp.array([0.4, 0.2, -0.3, 0.5]),
    "u": jnp.array([0.12, 0.4, 0.9]),
    "jumps": jnp.array([0.3, 0.65]),
    "values": jnp.array([1.0, 2.0, 0.5]),
    "eta": jnp.asarray(0.1),
}


def final_risk(numbers, solver=None, adjoint=None):
    target = tts.PiecewiseConstant(numbers["jumps"], numbers["values"])
    problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(numbers["eta"])), target)
    flow = tts.GradientFlow(
        numbers["epsilon"], rtol=1e-10, atol=1e-11, max_steps=4096, adjoint=adjoint, solver=solver
    )
    start = tts.Params(numbers["a"], numbers["u"])
    return tts.simulate(problem, flow, start, jnp.array([0.15])).risk[-1]


@pytest.fixture(scope="module")
def slopes():
    """The gradient in reverse mode."""
    return quickly(jax.grad(final_risk))(NUMBERS)


@pytest.fixture(scope="module")
def along():
    """The final risk and its derivative along a direction, in forward mode."""
    return quickly(lambda numbers, direction: jax.jvp(final_risk, (numbers,), (direction,)))


@pytest.fixture(scope="module")
def explicit():
    """At this epsilon an explicit method of diffrax works too, with its own derivatives."""

    def risk(numbers):
        return final_risk(numbers, diffrax.Tsit5(), diffrax.ForwardMode())

    return quickly(lambda numbers, direction: jax.jvp(risk, (numbers,), (direction,)))


def directions():
    rng = np.random.default_rng(0)
    for name in NUMBERS:
        yield {
            other: jnp.asarray(rng.normal(size=np.shape(value)) * (other == name))
            for other, value in NUMBERS.items()
        }


each_direction = pytest.mark.parametrize("direction", list(directions()), ids=list(NUMBERS))


def projected(slopes, direction):
    return float(sum(jnp.sum(slopes[name] * direction[name]) for name in NUMBERS))


@pytest.mark.thorough
@each_direction
def test_derivatives_agree_with_finite_differences(slopes, along, direction):
    step = 1e-5
    moved = [
        {name: NUMBERS[name] + sign * step * direction[name] for name in NUMBERS}
        for sign in (1, -1)
    ]
    above, below = (float(along(numbers, direction)[0]) for numbers in moved)
    difference = (above - below) / (2 * step)
    assert abs(difference) > 1e-3
    assert projected(slopes, direction) == pytest.approx(difference, rel=1e-5)


@pytest.mark.thorough
@each_direction
def test_forward_mode_agrees_with_reverse_mode(slopes, along, direction):
    tangent = along(NUMBERS, direction)[1]
    assert float(tangent) == pytest.approx(projected(slopes, direction), rel=1e-11)


@each_direction
@pytest.mark.thorough
def test_derivatives_agree_with_those_of_diffrax(slopes, explicit, direction):
    tangent = explicit(NUMBERS, direction)[1]
    assert float(tangent) == pytest.approx(projected(slopes, direction), rel=1e-4)
