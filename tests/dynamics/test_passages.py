"""First passages of every method: against times in closed form, arrivals, and dense records."""

import re

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loud import Loud
from scipy.optimize import brentq
from small_problems import small_problem, spread_start

import tts_jax as tts

EPSILON, CURVATURE = 0.01, 1.5


class Bowl(tts.AbstractProblem):
    """The risk |a|^2 + c |u|^2, whose layers fall as exp(-2 tau/epsilon) and exp(-2 c tau)."""

    curvature: jax.Array | float = CURVATURE

    def risk(self, params):
        return jnp.sum(params.a**2) + self.curvature * jnp.sum(params.u**2)


START = tts.Params(jnp.asarray([3.0]), jnp.asarray([2.0, 1.0]))
LEVELS = jnp.asarray([0.5, 1.0, 2.5, 1e-9])


def levels_of_bowl(params):
    """A fast weight at 0.5, a slow one at 1; at the start at 2.5, and at 1e-9 after the end."""
    return jnp.stack([params.a[0], *[params.u[0]] * 3]) - LEVELS


EXPECTED = [EPSILON * np.log(6.0) / 2, np.log(2.0) / (2 * CURVATURE), 0.0, np.inf]
SOLVERS = {
    "Rosenbrock, autodiff": None,
    "explicit": diffrax.Tsit5(),
    "implicit": tts.stiff_solver(),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_exponentials_pass_levels_when_logarithms_say(name):
    flow = tts.GradientFlow(EPSILON, rtol=1e-9, atol=1e-11, solver=SOLVERS[name])
    times = tts.passage_times(Bowl(), flow, START, 2.0, levels_of_bowl)
    np.testing.assert_allclose(times, EXPECTED, rtol=1e-7)


class Columns(tts.SeparableProblem):
    """Features that are the inputs: the outer layer moves, and u rests."""

    def features(self, u, x):
        return x + 0.0 * u["rest"]


def test_collocation_finds_passages_in_the_middle_of_a_fast_transient():
    """Steps are long, since the fast layer is integrated exactly: all happens in the first."""
    x = jnp.asarray([[1.0, 0.0], [0.0, 2.0]])
    problem = Columns(x, jnp.asarray([1.0, 1.0]))  # a -> (1, 1/2), at the rates 1/eps, 4/eps
    start = tts.Params(jnp.zeros(2), {"rest": jnp.zeros(())})
    flow = tts.GradientFlow(1e-3, rtol=1e-9, atol=1e-11)
    left = jnp.asarray([0.3, 0.001])  # of the way
    times = tts.passage_times(
        problem, flow, start, 1.0, lambda p: 1.0 - p.a * jnp.asarray([1.0, 2.0]) - left
    )
    np.testing.assert_allclose(times, -1e-3 * np.log(left) / jnp.asarray([1.0, 4.0]), rtol=1e-8)


class Turning(tts.SeparableProblem):
    """One feature of two samples, (cos u, sin u) sqrt(2): the best risk is (1 - sin 2u)/2 ..."""

    def features(self, u, x):
        return jnp.sqrt(2.0) * jnp.stack([jnp.cos(u), jnp.sin(u)])


@pytest.mark.thorough
def test_the_reduced_flow_turns_as_the_gudermannian_says():
    """du/dtau = 2 cos 2u for y = (sqrt 2, sqrt 2), so that asinh(tan 2u) grows by 4 tau."""
    problem = Turning(jnp.zeros((2, 1)), jnp.sqrt(2.0) * jnp.ones(2))
    flow = tts.ReducedFlow(rtol=1e-10, atol=1e-12, ridge=1e-14)
    start = tts.Params(jnp.zeros(1), jnp.asarray([0.1]))
    time = tts.passage_times(problem, flow, start, 1.0, lambda p: 0.5 - p.u[0])
    assert time.shape == ()
    expected = (np.arcsinh(np.tan(1.0)) - np.arcsinh(np.tan(0.2))) / 4
    assert float(time) == pytest.approx(expected, rel=1e-7)
    # The best outer layer is 2 cos(u - pi/4)/sqrt 2, and passes a level when u does.
    level = np.sqrt(2.0) * np.cos(0.5 - np.pi / 4)
    outer = tts.passage_times(problem, flow, start, 1.0, lambda p: level - p.a[0])
    assert float(outer) == pytest.approx(expected, rel=1e-6)


@pytest.mark.thorough
def test_neurons_arrive_when_their_distances_pass():
    """The closed form of steps: `arrival_times` has the roots of its dense output."""
    problem, start, within = small_problem(), spread_start(), 0.02
    flow = tts.GradientFlow(EPSILON, rtol=1e-9, atol=1e-11)
    assert isinstance(problem.target, tts.PiecewiseConstant)
    jumps = jnp.asarray(problem.target.jumps)

    def distances(params):
        return jnp.min(jnp.abs(params.u[:, None] - jumps[None, :]), axis=0) - within

    times = tts.passage_times(problem, flow, start, 0.5, distances)
    arrivals = tts.arrival_times(problem, flow, start, 0.5, within=within)
    assert np.all(np.isfinite(times))
    np.testing.assert_allclose(times, arrivals, rtol=1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "flow",
    [tts.GradientFlow(EPSILON, rtol=1e-9), tts.ReducedFlow(rtol=1e-9)],
    ids=["GradientFlow", "ReducedFlow"],
)
def test_risks_are_halved_where_a_dense_record_says(flow):
    problem, start = small_problem(), spread_start()
    taus = jnp.linspace(0.0, 0.5, 2001)
    risk = np.asarray(tts.simulate(problem, flow, start, taus).risk)
    level = 0.5 * (risk[5] + risk[-1])
    time = tts.passage_times(problem, flow, start, 0.5, lambda p: problem.risk(p) - level)

    def between(tau):
        return float(np.interp(tau, taus, risk)) - level

    assert float(time) == pytest.approx(brentq(between, 0.0, 0.5), rel=1e-4)


def test_a_level_that_is_touched_for_a_moment_has_been_passed():
    flow = tts.GradientFlow(EPSILON, rtol=1e-10, atol=1e-12)
    time = tts.passage_times(Bowl(), flow, START, 2.0, lambda p: (p.u[0] - 1.0) ** 2 - 1e-6)
    assert float(time) == pytest.approx(np.log(2.0 / 1.001) / (2 * CURVATURE), rel=1e-8)


def test_a_flow_that_cannot_go_on_and_an_event_without_a_number_tell_nothing():
    short = tts.GradientFlow(EPSILON, max_steps=3)
    times = tts.passage_times(Bowl(), short, START, 2.0, levels_of_bowl)
    np.testing.assert_array_equal(np.isnan(times), [True, True, False, True])
    flow = tts.GradientFlow(EPSILON)
    lost = tts.passage_times(Bowl(), flow, START, 2.0, lambda p: jnp.log(p.u[0] - 1.0) + 9.0)
    assert np.isnan(lost)


class Level(eqx.Module):
    """An event that holds its number."""

    level: jax.Array

    def __call__(self, params):
        return params.u[0] - self.level


def passage(numbers, solver=None, adjoint=None):
    """Of (epsilon, curvature, u_0, level of a module, level that a function closes over)."""
    epsilon, curvature, u, level, other = numbers
    flow = tts.GradientFlow(epsilon, rtol=1e-10, atol=1e-12, solver=solver, adjoint=adjoint)
    start = tts.Params(START.a, START.u.at[0].set(u))
    first = tts.passage_times(Bowl(curvature), flow, start, 2.0, Level(level))
    return first + tts.passage_times(Bowl(curvature), flow, start, 2.0, lambda p: p.a[0] - other)


def passage_of(numbers):
    """The closed form of `passage`."""
    epsilon, curvature, u, level, other = numbers
    return jnp.log(u / level) / (2 * curvature) + epsilon * jnp.log(START.a[0] / other) / 2


NUMBERS = tuple(map(jnp.asarray, (EPSILON, CURVATURE, 2.0, 1.0, 0.5)))


@pytest.mark.thorough
@pytest.mark.parametrize("transform", [jax.grad, jax.jacfwd, lambda f: jax.jit(jax.grad(f))])
def test_derivatives_are_those_of_logarithms(transform):
    found, expected = transform(passage)(NUMBERS), jax.grad(passage_of)(NUMBERS)
    np.testing.assert_allclose(jnp.stack(found), jnp.stack(expected), rtol=1e-6)


@pytest.mark.thorough
def test_derivatives_of_the_reduced_flow_and_by_collocation_are_those_of_the_closed_forms():
    """The time to turn by an angle from u is less by 1/(2 cos 2u); the fast layer's is linear in
    epsilon."""
    # By an explicit method, whose derivative compiles in less time.
    explicit = diffrax.Tsit5()
    reduced = tts.ReducedFlow(rtol=1e-10, atol=1e-12, ridge=1e-14, solver=explicit)
    turning = Turning(jnp.zeros((2, 1)), jnp.sqrt(2.0) * jnp.ones(2))

    def turned(u):
        start = tts.Params(jnp.zeros(1), u[None])
        return tts.passage_times(turning, reduced, start, 1.0, lambda p: 0.5 - p.u[0])

    found = jax.grad(turned)(jnp.asarray(0.1))
    assert float(found) == pytest.approx(-1 / (2 * np.cos(0.2)), rel=1e-6)
    columns = Columns(jnp.asarray([[1.0], [1.0]]), jnp.asarray([1.0, 1.0]))
    start = tts.Params(jnp.zeros(1), {"rest": jnp.zeros(())})

    def relaxed(epsilon):
        flow = tts.GradientFlow(epsilon, rtol=1e-9, atol=1e-11)
        return tts.passage_times(columns, flow, start, 1.0, lambda p: 0.9 - p.a[0])

    assert float(jax.grad(relaxed)(1e-3)) == pytest.approx(np.log(10.0) / 2, rel=1e-6)


@pytest.mark.thorough
def test_derivatives_with_a_solver_of_diffrax_are_its_own():
    found = jax.grad(lambda n: passage(n, diffrax.Tsit5()))(NUMBERS)
    np.testing.assert_allclose(
        jnp.stack(found), jnp.stack(jax.grad(passage_of)(NUMBERS)), rtol=1e-6
    )


@pytest.mark.thorough
def test_many_starts_under_vmap_are_as_alone():
    # To the tolerance: where numbers are known the flow may choose another method.
    flow = tts.GradientFlow(EPSILON, rtol=1e-9)

    def times(u):
        return tts.passage_times(Bowl(), flow, tts.Params(START.a, u), 2.0, levels_of_bowl)

    starts = jnp.asarray([[2.0, 1.0], [0.9, 1.0], [5.0, 1.0]])
    together = jax.vmap(times)(starts)
    np.testing.assert_allclose(together, jnp.stack([times(u) for u in starts]), rtol=1e-8)


def test_new_numbers_compile_nothing():
    seen = []

    class Counted(Level):
        def __call__(self, params):
            seen.append(None)
            return super().__call__(params)

    def traces(epsilon, level, horizon):
        seen.clear()
        flow = tts.GradientFlow(epsilon, rtol=1e-9)
        tts.passage_times(Bowl(), flow, START, horizon, Counted(jnp.asarray(level)))
        return len(seen)

    first = traces(EPSILON, 1.0, 2.0)
    assert first > traces(0.02, 1.1, 2.5) == 2  # to see what it returns, and over what it closes


def fails(params):
    raise KeyError("w")


WRONG = {
    "no function": (3.0, "a function of parameters, but is 3.0."),
    "a class": (Level, "but is the class Level itself."),
    "which fails": (fails, "but is one that fails with KeyError: 'w'."),
    "a whole number": (lambda p: jnp.argmax(p.a), "but is one that returns int64."),
    "a truth value": (lambda p: p.a[0] > 1, "but is one that returns bool."),
    "a matrix": (lambda p: jnp.ones((2, 1)), "but is one that returns the shape (2, 1)."),
    "nothing": (lambda p: jnp.ones(0), "but is one that returns the shape (0,)."),
    "two of them": (lambda p: (p.a[0], p.a[1]), "but is one that returns a tuple."),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_event_that_is_none_is_refused_before_the_network_is_traced(name):
    event, said = WRONG[name]
    network = tts.TwoLayerNetwork(Loud())
    problem = tts.EmpiricalProblem(network, np.ones((3, 2)), np.ones(3))
    start = tts.Params(np.zeros(3), {"w": np.ones((2, 2)), "b": np.ones(2)})
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        tts.passage_times(problem, tts.GradientFlow(0.1), start, 1.0, event)
    assert str(raised.value).startswith("Argument `event` must be a function of parameters")
