"""Hermite polynomials: against NumPy's, and their means against a quadrature rule."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import hermite_e

from tts_jax.numerics.hermite import hermite_means

COUNT = 7


def values(x):
    """he_k(x) (COUNT, n) by NumPy, whose polynomials have the mean square k!."""
    roots = np.sqrt([float(math.factorial(k)) for k in range(COUNT)])
    return hermite_e.hermevander(x, COUNT - 1).T / roots[:, None]


def test_without_a_variance_they_are_the_polynomials():
    x = np.linspace(-3.0, 3.0, 13)
    np.testing.assert_allclose(
        np.stack(hermite_means(jnp.asarray(x), 0.0, COUNT)), values(x), rtol=1e-13, atol=1e-13
    )


def test_means_and_their_derivatives_are_those_of_a_rule_that_is_exact():
    nodes, weights = hermite_e.hermegauss(COUNT)
    mean, variance = np.array([0.3, -1.2, 0.0, 0.7]), np.array([0.5, 2.0, 1.0, 0.0])
    x = mean[:, None] + np.sqrt(variance)[:, None] * nodes[None, :]
    wanted = values(x.ravel()).reshape(COUNT, *x.shape) @ weights / np.sqrt(2 * np.pi)
    found = jax.jit(lambda m, v: jnp.stack(hermite_means(m, v, COUNT)))
    np.testing.assert_allclose(found(mean, variance), wanted, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found(mean, variance)[1:, 2], 0.0, atol=0)
    # By the mean they are those of the next lower polynomial, times the root of its place.
    slope = jax.jit(jax.vmap(jax.jacfwd(lambda m, v: jnp.stack(hermite_means(m, v, COUNT)))))
    roots = np.sqrt(np.arange(1.0, COUNT))
    lower = roots[:, None] * wanted[:-1]
    np.testing.assert_allclose(slope(mean, variance).T[1:], lower, rtol=1e-12, atol=1e-13)


def test_as_few_as_asked_for():
    x = jnp.ones(2)
    assert [len(hermite_means(x, 0.0, count)) for count in (1, 2, 3)] == [1, 2, 3]
