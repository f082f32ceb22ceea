"""The closed-form risk of steps against the quadrature that defines it, wherever neurons are."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import gradient_of, hessian_of

import tts_jax as tts
from tts_jax.closed_forms.pairwise import PairwiseRisk

ETA = 0.1
WIDTH = 5
WEIGHTS = [0.3, 1.5, -2.0, 0.7, 2.5, -1.1]
FIVE = ((0.2, 0.35, 0.5, 0.65, 0.8), (1.0, 5.0, 1.0, 3.0, 1.0, 5.0))
TARGETS = {
    "five jumps": FIVE,
    "one jump": ((0.4,), (1.0, -2.0)),
    "five jumps, closer to 0 and 1 than steps reach": (
        (0.01, 0.02, 0.03, 0.98, 0.99),
        (1.0, 5.0, 1.0, 3.0, 1.0, 5.0),
    ),
}
FEW = settings(max_examples=25, deadline=None, derandomize=True)

INSIDE = {
    "spread": [0.11, 0.3, 0.52, 0.71, 0.9],
    "in any order": [0.7, 0.1, 0.9, 0.33, 0.55],
    "closer than eta": [0.40, 0.42, 0.405, 0.46, 0.41],
    "coincident": [0.6, 0.6, 0.6, 0.2, 0.9],
    "all in one place": [0.37] * WIDTH,
    "nearly coincident": [0.6, 0.6 + 1e-9, 0.6 - 1e-15, 0.9, 0.9 - 1e-12],
    "on jumps": [0.2, 0.35, 0.5, 0.5, 0.8],
    "a knot on a jump": [0.25, 0.3, 0.55, 0.75, 0.15],
    "touching 0 and 1 from inside": [0.05, 0.95, 0.05, 0.95, 0.5],
}
CUT = {
    "several cut by 0": [0.01, -0.03, 0.04, 0.02, 0.6],
    "several cut by 1": [0.99, 1.03, 0.96, 0.98, 0.6],
    "cut by both": [0.01, -0.03, 1.03, 0.98, 0.6],
    "coincident, cut by 0": [0.01, 0.01, -0.02, -0.02, 0.6],
    "coincident, cut by 1": [0.99, 0.99, 1.02, 1.02, 0.6],
    "at 0 and 1, and where they begin to be seen": [0.0, 1.0, -ETA / 2, 1 + ETA / 2, 0.5],
    "two at 0 and two at 1": [0.0, 0.0, 1.0, 1.0, 0.5],
    "outside": [-0.2, 1.3, -0.06, 1.06, 0.4],
    "all outside": [-0.2, 1.3, -0.06, 1.06, 2.4],
}
EVERYWHERE = {**INSIDE, **CUT}
places = pytest.mark.parametrize("u", EVERYWHERE.values(), ids=EVERYWHERE)


@eqx.filter_jit
def closed(risk, params):
    return risk(params), gradient_of(risk, params), hessian_of(risk, params)


@eqx.filter_jit
def integrated(problem, params):
    """The same three by quadrature and autodiff."""
    hessian = jax.hessian(problem.risk)(params)
    blocks = (hessian.a.a, hessian.a.u, hessian.u.u)
    return problem.risk(params), jax.grad(problem.risk)(params), blocks


def pair(target=FIVE, eta=ETA):
    """The risk in closed form, and the problem that defines it."""
    activation, target = tts.CubicStep(jnp.asarray(eta)), tts.PiecewiseConstant(*target)
    return PairwiseRisk(activation, target), tts.Problem(tts.ShallowNetwork(activation), target)


def params_of(a, u):
    return tts.Params(jnp.asarray(a, float), jnp.asarray(u, float))


def assert_exact(risk, problem, params):
    """To rounding; a gradient has terms of size |a|^2, a Hessian |a|^2 / eta^2."""
    value, gradient, hessian = closed(risk, params)
    expected, slopes, blocks = integrated(problem, params)
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient.a, slopes.a, rtol=0, atol=1e-11)
    np.testing.assert_allclose(gradient.u, slopes.u, rtol=0, atol=1e-11)
    largest = max(float(np.max(np.abs(block))) for block in blocks)
    for found, block in zip(hessian, blocks, strict=True):
        np.testing.assert_allclose(found, block, rtol=0, atol=1e-9 * largest)


@places
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_value_gradient_and_hessian_are_those_of_the_integral(target, u):
    assert_exact(*pair(target), params_of(WEIGHTS, u))


@FEW
@given(
    a=st.lists(st.floats(-3.0, 3.0), min_size=WIDTH + 1, max_size=WIDTH + 1),
    u=st.lists(st.floats(-0.2, 1.2), min_size=WIDTH, max_size=WIDTH),
)
def test_they_are_exact_wherever_hypothesis_puts_the_neurons(a, u):
    assert_exact(*pair(), params_of(a, u))


@pytest.mark.parametrize("eta", [4e-3, 0.6, 1.5, 10.0])
@pytest.mark.parametrize("name", ["spread", "coincident", "cut by both", "outside"])
def test_they_are_exact_at_any_width_of_the_steps(eta, name):
    """From 1 on a step is cut by 0 and 1 at once."""
    assert_exact(*pair(eta=eta), params_of(WEIGHTS, EVERYWHERE[name]))


@pytest.mark.thorough
@pytest.mark.parametrize("u", [0.5, 0.27, 0.01, 0.0, -0.05, -0.3, 0.99, 1.0, 1.05, 1.3])
def test_they_are_exact_for_one_neuron(u):
    assert_exact(*pair(), params_of([0.3, 1.5], [u]))


@places
def test_the_hessian_is_symmetric(u):
    by_a, _, by_u = closed(pair()[0], params_of(WEIGHTS, u))[2]
    np.testing.assert_allclose(by_a, by_a.T, rtol=0, atol=1e-15)
    np.testing.assert_allclose(by_u, by_u.T, rtol=0, atol=1e-15 * np.max(np.abs(by_u)))


@pytest.mark.thorough
@places
def test_the_gradient_is_that_of_the_value(u):
    """By central differences, and by autodiff forward and in reverse."""
    risk, flat = pair()[0], np.asarray([*WEIGHTS, *u])
    found = np.concatenate(closed(risk, split(flat))[1])
    h = 1e-6
    differences = [
        (closed(risk, split(flat + e))[0] - closed(risk, split(flat - e))[0]) / (2 * h)
        for e in h * np.eye(flat.size)
    ]
    # The third derivative jumps where a neuron is on a jump or at 0 or 1.
    np.testing.assert_allclose(found, differences, rtol=1e-7, atol=2e-8)
    for slopes in by_autodiff(risk, split(flat)):
        np.testing.assert_allclose(np.concatenate(slopes), found, rtol=0, atol=1e-11)


def split(flat):
    return params_of(flat[: WIDTH + 1], flat[WIDTH + 1 :])


@eqx.filter_jit
def by_autodiff(risk, params):
    return jax.jacfwd(risk)(params), jax.grad(risk)(params)


@eqx.filter_jit
def third_derivative(risk, params, direction):
    return jax.jvp(lambda p: hessian_of(risk, p), (params,), (direction,))[1]


# None on a jump, or at 0 or 1 or where a step begins to be seen, where this derivative jumps.
SMOOTH = {name: u for name, u in EVERYWHERE.items() if not name.startswith(("on", "at", "two"))}


@pytest.mark.parametrize("u", SMOOTH.values(), ids=SMOOTH)
def test_the_third_derivative_is_that_of_the_hessian(u):
    """What the derivative of a run asks for, also where neurons coincide."""
    # All moved by as much, so that no knot of a step is on a jump, nor at 0 or 1.
    risk, flat = pair()[0], np.asarray([*WEIGHTS, *(np.asarray(u) + 1.7e-3)])
    direction = np.random.default_rng(0).normal(size=flat.size)
    found = third_derivative(risk, split(flat), split(direction))
    h = 1e-6
    above, below = (closed(risk, split(flat + s * h * direction))[2] for s in (1, -1))
    scale = max(float(np.max(np.abs(block))) for block in found)
    for derivative, up, down in zip(found, above, below, strict=True):
        difference = (np.asarray(up) - np.asarray(down)) / (2 * h)
        np.testing.assert_allclose(derivative, difference, rtol=0, atol=1e-6 * scale)


@eqx.filter_jit
def by_numbers(numbers, params, *, quadrature):
    """Derivatives of the risk and of its gradient by eta, the jumps and the values."""

    def both(numbers):
        eta, jumps, values = numbers
        risk, problem = pair((jumps, values), eta)
        if quadrature:
            return problem.risk(params), jax.grad(problem.risk)(params)
        return risk(params), gradient_of(risk, params)

    return jax.jacfwd(both)(numbers)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["spread", "coincident", "cut by both", "outside"])
def test_derivatives_by_eta_and_the_target_are_those_of_the_integral(name):
    numbers = (jnp.asarray(ETA), *(jnp.asarray(v) for v in FIVE))
    # Not on a knot of a step on a jump, where the derivative of the gradient is one-sided.
    params = params_of(WEIGHTS, np.asarray(EVERYWHERE[name]) + 1e-3 * np.arange(WIDTH))
    found, expected = (by_numbers(numbers, params, quadrature=q) for q in (False, True))
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-10)


def test_a_batch_of_starts_some_of_which_are_cut_equals_one_by_one():
    risk = pair()[0]
    batch = params_of(np.tile(WEIGHTS, (len(EVERYWHERE), 1)), list(EVERYWHERE.values()))
    values = jax.jit(jax.vmap(risk))(batch)
    alone = [closed(risk, params_of(WEIGHTS, u))[0] for u in EVERYWHERE.values()]
    np.testing.assert_allclose(values, alone, rtol=1e-14)


@eqx.filter_jit
def normal_equations(problem, u):
    return problem.normal_equations(u)


@pytest.mark.parametrize("u", INSIDE.values(), ids=INSIDE)
def test_the_squares_are_the_diagonal_of_the_normal_equations(u):
    risk, problem = pair()
    expected = np.diag(normal_equations(problem, jnp.asarray(u))[0])[1:]
    np.testing.assert_allclose(risk.squares(jnp.asarray(u)), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("u", CUT.values(), ids=CUT)
def test_the_squares_stay_positive_where_a_step_is_cut(u):
    squares = np.asarray(pair()[0].squares(jnp.asarray(u)))
    assert np.all((squares >= 0.0099 * ETA) & (squares <= 1.0))


def test_weights_that_cancel_cost_digits_by_their_square():
    """Two neurons nearly in one place, as a nearly singular fit has them."""
    risk, problem = pair()
    for size in (1e2, 1e4, 1e6):
        params = params_of([0.3, size, -size, 0.7, 2.5, -1.1], [0.6, 0.6 + 1e-9, 0.3, 0.4, 0.9])
        error = abs(closed(risk, params)[0] - integrated(problem, params)[0])
        assert error < 1e-16 * size**2
