"""The bivariate normal distribution function against 40 digits, Owen's T and its own limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from tts_jax.numerics.bivariate_normal import (
    bivariate_normal_cdf,
    bivariate_normal_excess,
    conditional_gap,
    level,
)

# h, k, p, q and Phi2(h, k; p/sqrt(p^2 + q^2)), the integral over the angle by mpmath, 40 digits.
KNOWN = np.array(
    [
        (0.3, -0.7, 1.0, 2.0, 0.2007510635954216805532),
        (1.5, 1.4, -1.0, 1.0, 0.8524419773995650733357),
        (-2.0, 0.5, 3.0, 0.5, 0.02275013194817920720028),
        (0.2, 0.25, 1.0, 0.1, 0.5716124006000259295393),
        (0.2, 0.2000001, 1.0, 1e-06, 0.5792595722084070698055),
        (-1.1, 1.1000000001, -1.0, 1e-09, 9.82372445714871077081e-11),
        (3.0, -2.5, -1.0, 0.375, 0.004969801825217172410111),
        (-6.0, -5.0, 1.0, 0.4, 9.536519205089689816483e-10),
        (0.0, 0.0, 2.0, 0.001, 0.4999204225350855072979),
        (0.001, -4.0, -5.0, 0.02, 0.0),
        (-3.0, -3.0, 1.0, 0.05, 0.001261651626271603724061),
        (2.2, 2.1, 0.001, 1.0, 0.9684820728644139343303),
    ]
)
COUNT = 600


@jax.jit
def cdf(h, k, p, q):
    """One compilation for all: (COUNT,) numbers."""
    return bivariate_normal_cdf(h, k, p, q)


def values(h, k, p, q):
    rows = np.broadcast_arrays(h, k, p, q)
    return np.asarray(cdf(*(np.resize(row, COUNT).astype(float) for row in rows)))[: rows[0].size]


def owen(h, k, r, s):
    """Phi2 by Owen's T (1956), for h and k that are not 0."""
    first = special.owens_t(h, (k - r * h) / (h * s))
    second = special.owens_t(k, (h - r * k) / (k * s))
    half = 0.5 * (special.ndtr(h) + special.ndtr(k))
    return half - first - second - 0.5 * (h * k < 0)


def test_values_are_those_of_forty_digits():
    h, k, p, q, wanted = KNOWN.T
    np.testing.assert_allclose(values(h, k, p, q), wanted, rtol=0, atol=3e-16)


@pytest.mark.parametrize("scale", [0.5, 2.0, 6.0])
def test_values_are_those_of_owens_t(scale):
    rng = np.random.default_rng(0)
    h, k = scale * rng.normal(size=(2, COUNT))
    angle = np.pi / 2 * np.tanh(2 * rng.normal(size=COUNT))
    r, s = np.sin(angle), np.cos(angle)
    # The argument of Owen's T has lost digits where s is small, not the function here.
    np.testing.assert_allclose(values(h, k, 3 * r, 3 * s), owen(h, k, r, s), atol=3e-15 / s.min())


def test_values_are_those_of_scipy():
    for r in (-0.9, 0.0, 0.4, 0.95):
        normal = stats.multivariate_normal([0.0, 0.0], [[1.0, r], [r, 1.0]])
        found = values([0.4, -1.0], [-0.3, 1.2], r, np.sqrt(1 - r * r))
        wanted = [normal.cdf([0.4, -0.3]), normal.cdf([-1.0, 1.2])]
        np.testing.assert_allclose(found, wanted, atol=1e-13)


def test_at_the_largest_and_least_correlation_the_variables_are_one():
    h = np.array([-1.0, 0.0, 0.3, 2.0, -40.0, 40.0])
    k = np.array([0.5, 0.0, 0.3, -1.0, 40.0, -40.0])
    np.testing.assert_allclose(values(h, k, 1.0, 0.0), special.ndtr(np.minimum(h, k)), atol=2e-16)
    below = np.maximum(special.ndtr(h) - special.ndtr(-k), 0.0)
    np.testing.assert_allclose(values(h, k, -1.0, 0.0), below, atol=2e-16)
    q = 10.0 ** -np.arange(3, 18)
    near = values(0.3, 0.3, 1.0, q)
    missing = np.exp(-0.045) * q / (2 * np.pi)
    np.testing.assert_allclose(special.ndtr(0.3) - near, missing, rtol=1e-3, atol=3e-16)
    assert np.all(np.diff(near) >= -3e-16)


def test_infinite_and_far_arguments():
    inf = np.inf
    h, k = np.array([inf, -inf, 0.7, 1e200, -1e200]), np.array([1.0, 1.0, inf, 1e200, 3.0])
    for p, q in ((1.0, 2.0), (-1.0, 0.01), (1.0, 0.0)):
        wanted = special.ndtr([1.0, -inf, 0.7, inf, -inf])
        np.testing.assert_allclose(values(h, k, p, q), wanted, atol=1e-16)


def test_a_small_covariance_has_all_its_digits():
    h, k = 0.5, -1.2
    density = np.exp(-0.5 * (h * h + k * k)) / (2 * np.pi)
    for r in (1e-3, 1e-9, -1e-30):
        found = bivariate_normal_excess(*map(jnp.asarray, (h, k, r, 1.0)))
        np.testing.assert_allclose(found, density * r * (1 + h * k * r / 2), rtol=2e-6)


def at(h, k, p, q):
    return jnp.array([h, k, p, q])


def one(v):
    return bivariate_normal_cdf(*v)


@jax.jit
def derivatives(v):
    """The value, the gradient, and the Hessian of either order of modes."""
    back = jax.jacrev(jax.jacfwd(one))(v)
    bend, (slope, value) = jax.jacfwd(
        lambda v: (lambda found: (found[1], found[::-1]))(jax.value_and_grad(one)(v)), has_aux=True
    )(v)
    return value, slope, bend, back


@pytest.mark.thorough
@pytest.mark.parametrize(
    "where", [(0.4, -0.9, 0.3, 1.1), (0.4, 0.5, 1.0, 0.05), (1.0, 1.1, -2.0, 0.3)]
)
def test_derivatives_are_those_of_finite_differences(where):
    v = at(*where)
    value, slope, bend, back = derivatives(v)
    assert value == derivatives(v)[0]
    above, below = ([derivatives(v + e)[:2] for e in sign * 1e-5 * np.eye(4)] for sign in (1, -1))
    for order, derivative in ((0, slope), (1, bend)):
        pairs = zip(above, below, strict=True)
        found = jnp.stack([(one[order] - two[order]) / 2e-5 for one, two in pairs], -1)
        size = max(float(jnp.max(jnp.abs(derivative))), 1.0)
        np.testing.assert_allclose(derivative, found, rtol=1e-7, atol=2e-8 * size)
    np.testing.assert_allclose(back, bend, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "where", [(0.3, 0.3, 1.0, 0.0), (0.3, 0.2, 1.0, 0.0), (0.3, -0.3, -1.0, 0.0)]
)
def test_derivatives_are_finite_at_the_ends(where):
    found = derivatives(at(*where))
    assert all(np.all(np.isfinite(part)) for part in found)
    h, k, p, _ = where
    # Halfway between 0 and the density where both limits of the probability meet.
    share = 0.5 if k == p * h else float(p * h < k)
    np.testing.assert_allclose(
        found[1][0], share * np.exp(-h * h / 2) / np.sqrt(2 * np.pi), atol=1e-16
    )


def test_the_gap_has_its_digits_near_both_ends():
    h, tiny = 1.7, 1e-9
    s = np.sin(tiny)
    for sign in (1.0, -1.0):
        k = sign * h
        gap = conditional_gap(*map(jnp.asarray, (h, k, sign * np.cos(tiny), s)))
        np.testing.assert_allclose(gap, sign * h * 2 * np.sin(tiny / 2) ** 2, rtol=1e-12)
    assert level(jnp.zeros(()), jnp.zeros(())) == 0.0
    np.testing.assert_array_equal(level(jnp.array([1.0, -1.0]), jnp.zeros(2)), [40.0, -40.0])
