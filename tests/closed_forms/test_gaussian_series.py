"""Hermite series of Gaussian inputs: against a rule that is exact, at any weights.

The mean product of two polynomials over three inputs is a sum over a grid of Gauss nodes, of which
automatic differentiation is exact too. The polynomials stand there by the powers of z.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_quadrature import (
    INPUTS,
    KINKED,
    SPECIAL,
    closed,
    evaluate,
    random_rows,
)
from numpy.polynomial import hermite_e

from tts_jax.closed_forms.gaussian_moments import covariances, gaussian_neurons, joined, means
from tts_jax.models.activations import HermiteSeries

CUBIC = HermiteSeries([0.5, 0.4, -0.3, 0.2], 1.3)
QUINTIC = HermiteSeries([0.1, 0.0, 0.7, -0.5, 0.2, 0.3])
_NODES, _WEIGHTS = hermite_e.hermegauss(6)
GRID = np.stack(np.meshgrid(*INPUTS * [_NODES], indexing="ij"), -1).reshape(-1, INPUTS)
SHARES = np.stack(np.meshgrid(*INPUTS * [_WEIGHTS], indexing="ij"), -1).reshape(-1, INPUTS)
SHARES = np.prod(SHARES, axis=1) / (2 * np.pi) ** (INPUTS / 2)


def powers(activation):
    """The coefficients of a series on 1, z, z^2, ..."""
    roots = [math.sqrt(math.factorial(k)) for k in range(len(activation.coefficients))]
    return hermite_e.herme2poly(np.asarray(activation.coefficients) / roots)


def on_grid(activation, w, b):
    z = (jnp.asarray(GRID) @ w + b) / activation.eta
    return sum(power * z**k for k, power in enumerate(powers(activation)))


def summed(first, second, bias):
    """The mean product of a row (w, b, v, c)."""

    def moment(x):
        w, b, v, c = x[:INPUTS], x[INPUTS], x[INPUTS + 1 : -1], x[-1]
        b, c = (b, c) if bias else (0.0 * b, 0.0 * c)
        return jnp.sum(jnp.asarray(SHARES) * on_grid(first, w, b) * on_grid(second, v, c))

    return moment


@pytest.mark.parametrize(
    "bias", [True, pytest.param(False, marks=pytest.mark.thorough)], ids=["bias", "no bias"]
)
def test_value_gradient_and_hessian_are_exact_at_any_weights(bias):
    """Also where neurons coincide, are opposite or vanish."""
    special = [*SPECIAL.values(), *KINKED.values()]
    for rows in (random_rows(0), special):
        found = evaluate(closed, CUBIC, QUINTIC, rows, bias=bias)
        wanted = evaluate(summed, CUBIC, QUINTIC, rows, bias=bias)
        for got, expected in zip(found, wanted, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


def unit(count, seed):
    w = np.random.default_rng(seed).normal(size=(count, INPUTS))
    return jnp.asarray(w / np.linalg.norm(w, axis=1, keepdims=True))


def test_of_unit_weights_it_is_the_power_series_of_the_cosine():
    plain = HermiteSeries(CUBIC.coefficients)
    left, right = (
        gaussian_neurons(plain, unit(3, 0), None),
        gaussian_neurons(QUINTIC, unit(2, 1), None),
    )
    cosine = np.asarray(left.w @ right.w.T)
    both = zip(plain.coefficients, QUINTIC.coefficients, strict=False)
    wanted = sum(s * t * cosine**k for k, (s, t) in enumerate(both) if k > 0)
    np.testing.assert_allclose(jax.jit(covariances)(left, right), wanted, atol=1e-15)
    np.testing.assert_allclose(means(left), plain.coefficients[0], atol=1e-15)


def test_joined_series_may_be_of_different_degrees():
    left = gaussian_neurons(CUBIC, unit(3, 0), jnp.ones(3))
    right = gaussian_neurons(QUINTIC, 2 * unit(2, 1), None)
    both = joined(left, right)
    whole, across, mean, *parts = jax.jit(
        lambda x, y, z: (covariances(x, x), covariances(y, z), means(x), means(y), means(z))
    )(both, left, right)
    np.testing.assert_allclose(whole[:3, 3:], across, atol=1e-14)
    np.testing.assert_allclose(mean, np.concatenate(parts), atol=1e-15)
    # The diagonal holds variances, against the rule.
    values = on_grid(CUBIC, unit(3, 0)[0], 1.0)
    variance = SHARES @ values**2 - (SHARES @ values) ** 2
    np.testing.assert_allclose(whole[0, 0], variance, rtol=1e-12)


def test_a_constant_has_no_covariance():
    one = gaussian_neurons(HermiteSeries([0.7]), unit(2, 0), jnp.ones(2))
    np.testing.assert_array_equal(covariances(one, one), np.zeros((2, 2)))
    np.testing.assert_array_equal(means(one), [0.7, 0.7])
