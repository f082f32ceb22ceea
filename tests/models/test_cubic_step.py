"""The integrals of a step against adaptive quadrature, and their derivatives."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import tts_jax as tts

STEP = tts.CubicStep(1.0)
KNOTS = (-0.5, 0.0, 0.5)
# On the knots of the integrals, one rounding beside them, and between.
NEAR = [np.nextafter(x, x + s) for x in (-1.0, -0.5, 0.0, 0.5, 1.0) for s in (-1.0, 0.0, 1.0)]
POINTS = [*NEAR, -7.0, -0.93, -0.71, -0.31, -0.08, 1e-9, 0.12, 0.44, 0.66, 0.87, 1.5, 30.0]
points = jnp.asarray(POINTS)


def sigma(z):
    """The definition, one number at a time."""
    if z <= 0:
        return 4 * max(z + 0.5, 0.0) ** 3
    return 1 - 4 * max(0.5 - z, 0.0) ** 3


def integral(function, low, high, cuts):
    """Adaptive, between the cuts, but not where they are a rounding apart."""
    edges = [low, *sorted(c for c in cuts if low < c < high), high]
    pieces = [(p, q) for p, q in itertools.pairwise(edges) if q - p > 1e-15]
    return sum(quad(function, p, q, epsabs=1e-14, epsrel=1e-12)[0] for p, q in pieces)


def primitive(z):
    return integral(sigma, -0.5, z, KNOTS) if z > -0.5 else 0.0


def overlap(p, q):
    """z - q - (the integral of both steps over y < z), for a z beyond both."""
    z = max(p, q) + 1.0
    knots = [k + s for k in KNOTS for s in (p, q)]
    return z - q - integral(lambda y: sigma(y - p) * sigma(y - q), min(p, q) - 0.5, z, knots)


def elementwise(function, times):
    """A function, differentiated `times` times, over an array."""
    for _ in range(times):
        function = jax.grad(function)
    return jax.jit(jax.vmap(function))


def differences(function, at, h):
    return (function(at + h) - function(at - h)) / (2 * h)


def test_the_primitive_is_the_integral_of_the_step():
    expected = [primitive(z) for z in POINTS]
    np.testing.assert_allclose(STEP.primitive(points), expected, rtol=1e-15, atol=2e-16)


def test_the_overlap_is_the_integral_of_the_product_of_two_steps():
    """For pairs wherever they are: it depends on their distance alone."""
    for q in (0.0, 0.3):
        expected = [overlap(t + q, q) for t in POINTS]
        np.testing.assert_allclose(STEP.overlap(points), expected, rtol=1e-14, atol=1e-14)


def test_both_are_zero_below_and_straight_above():
    """Exactly: what does not touch must not leave a rounding error behind."""
    below, above = jnp.asarray([-1.0, -3.0]), jnp.asarray([1.0, 3.5])
    for function in (STEP.primitive, STEP.overlap):
        np.testing.assert_array_equal(function(below), 0.0)
        np.testing.assert_array_equal(function(above), above)


def test_the_overlap_of_a_pair_does_not_depend_on_its_order():
    """1 - u_j - eta overlap(x_i - x_j), the integral of a product, is the same for (j, i)."""
    np.testing.assert_allclose(
        STEP.overlap(points) - STEP.overlap(-points), points, rtol=1e-15, atol=1e-15
    )


def test_the_derivative_of_the_primitive_is_the_step():
    found = elementwise(STEP.primitive, 1)(points)
    np.testing.assert_allclose(found, [sigma(z) for z in POINTS], rtol=0, atol=1e-15)
    expected = differences(STEP.primitive, points, 1e-6)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
    second = elementwise(STEP.primitive, 2)(points)
    np.testing.assert_allclose(second, elementwise(STEP, 1)(points), rtol=0, atol=1e-15)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_derivatives_of_the_overlap_are_those_of_finite_differences(times):
    """The third is continuous too, also where steps coincide."""
    found = elementwise(STEP.overlap, times)(points)
    expected = differences(elementwise(STEP.overlap, times - 1), points, 1e-6)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-9 if times < 3 else 1e-4)


def test_the_second_derivative_of_the_overlap_is_the_overlap_of_the_slopes():
    """By t twice: minus the integral of sigma'(y - p) sigma'(y - q), with the sign of p q."""

    def slope(z):
        return 12 * max(0.5 - abs(z), 0.0) ** 2

    expected = [
        integral(lambda y, t=t: slope(y - t) * slope(y), -0.5, 0.5, [0.0, t - 0.5, t, t + 0.5])
        for t in POINTS
    ]
    found = elementwise(STEP.overlap, 2)(points)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_where_steps_coincide_the_derivatives_are_exact():
    at = jnp.zeros(1)
    for derivative, expected in ((1, 0.5), (2, 1.8), (3, 0.0)):
        found = elementwise(STEP.overlap, derivative)(at)
        np.testing.assert_allclose(found, expected, rtol=1e-15, atol=0)


def product_beyond_zero(p, q):
    """The integral of both steps over y < 0."""
    low = min(max(p, q) - 0.5, 0.0)
    knots = [k + s for k in KNOTS for s in (p, q)]
    return integral(lambda y: sigma(y - p) * sigma(y - q), low, 0.0, knots)


PAIRS = np.asarray(list(itertools.product([x for x in POINTS if x >= -0.5], repeat=2))).T


def test_the_product_beyond_zero_is_the_integral():
    expected = [product_beyond_zero(p, q) for p, q in PAIRS.T]
    np.testing.assert_allclose(STEP.beyond(*PAIRS), expected, rtol=0, atol=2e-15)


def test_a_step_without_its_own_closed_form_of_the_product_integrates_it():
    by_quadrature = tts.AbstractStep.beyond(STEP, *jnp.asarray(PAIRS))
    np.testing.assert_allclose(by_quadrature, STEP.beyond(*PAIRS), rtol=0, atol=2e-15)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("second", [None, 0, 1])
def test_derivatives_of_the_product_beyond_zero_are_those_of_finite_differences(first, second):
    function = STEP.beyond if second is None else jax.grad(STEP.beyond, second)
    derivative = jax.jit(jax.vmap(jax.grad(function, first)))
    plain = jax.jit(jax.vmap(function))
    # Away from where a step counts as outside.
    p, q = jnp.asarray(PAIRS[:, (PAIRS > -0.499).all(axis=0)])
    h = 1e-6
    moved = (h, 0.0) if first == 0 else (0.0, h)
    change = plain(p + moved[0], q + moved[1]) - plain(p - moved[0], q - moved[1])
    np.testing.assert_allclose(derivative(p, q), change / (2 * h), rtol=0, atol=2e-5)
