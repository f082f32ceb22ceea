"""The relaxation of a fast layer against quadrature, and against exact fractions."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from tts_jax.integrators.lobatto import COEFFICIENTS, NODES
from tts_jax.integrators.relaxation import relaxation_weights

ENDS = np.asarray([1e-3, NODES[1], 0.5, NODES[3], 1.0])
weights = jax.jit(relaxation_weights)


def by_series(z, c):
    """The weights (5,) as sums of fractions: e^(-z c) times the Taylor series of its inverse."""
    z, c = Fraction(z), Fraction(c)
    found = np.zeros(5)
    for j, row in enumerate(COEFFICIENTS):
        total = Fraction(0)
        for power, coefficient in enumerate(row):
            # The integral of e^(-z (c - s)) s^k is c^(k+1) sum_n k! (-z c)^n / (k + 1 + n)!.
            term = c ** (power + 1) / (power + 1)
            part = Fraction(0)
            for n in range(120):
                part += term
                term = -term * z * c / (power + 2 + n)
            total += Fraction(coefficient) * part
        found[j] = float(total)
    return found


@pytest.mark.parametrize("z", [0.0, 1e-8, 0.1, 1.0, 5.99, 6.01, 12.0, 25.0])
def test_they_are_sums_of_exact_fractions(z):
    found = np.asarray(weights(jnp.asarray([z]), jnp.asarray(ENDS)))[:, :, 0]
    wanted = np.stack([by_series(z, c) for c in ENDS])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13 / max(1.0, z))


@pytest.mark.parametrize("z", [1e2, 1e4, 1e6, 1e9, 1e12])
def test_large_rates_leave_the_forcing_at_the_end(z):
    """By the asymptotic series in 1/z, whose fifth term is the last."""
    found = np.asarray(weights(jnp.asarray([z]), jnp.asarray(ENDS)))[:, :, 0]
    for row, c in zip(found, ENDS, strict=True):
        if z * c < 40:
            continue
        for j in range(5):
            derivative, series = np.polynomial.Polynomial(COEFFICIENTS[j]), 0.0
            for order in range(5):
                series += (-1) ** order * derivative(c) / z ** (order + 1)
                derivative = derivative.deriv()
            assert row[j] == pytest.approx(series, rel=1e-12, abs=1e-13 / z)


def integrand(s, z, coefficients):
    return math.exp(-z * (0.7 - s)) * np.polynomial.polynomial.polyval(s, coefficients)


def test_they_are_the_integrals_by_quadrature():
    for z in (0.5, 3.0, 30.0):
        found = np.asarray(weights(jnp.asarray([z]), jnp.asarray([0.7])))[0, :, 0]
        for j in range(5):
            wanted = quad(integrand, 0, 0.7, args=(z, COEFFICIENTS[j]), epsabs=1e-14)
            assert found[j] == pytest.approx(wanted[0], abs=1e-13)


def test_they_have_derivatives_by_the_rate():
    def total(z):
        return jnp.sum(relaxation_weights(z[None], jnp.asarray(ENDS)) ** 2)

    for z in (0.0, 2.0, 6.5, 1e5):
        step = 1e-5 * max(z, 1.0)
        difference = (total(jnp.asarray(z + step)) - total(jnp.asarray(z - step))) / (2 * step)
        found = jax.grad(total)(jnp.asarray(z))
        np.testing.assert_allclose(found, difference, rtol=1e-5, atol=1e-12)
