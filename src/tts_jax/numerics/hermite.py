"""Hermite polynomials, normalised for the standard normal g: E he_j(g) he_k(g) = [j = k].

he_0 = 1, he_1 = x, he_2 = (x^2 - 1)/sqrt(2), he_3 = (x^3 - 3x)/sqrt(6), and so on.
"""

import math

import jax.numpy as jnp

from .._types import Array


def hermite_means(mean: Array, variance: Array | float, count: int) -> list[Array]:
    """Return E he_k(z), k = 0, ..., count - 1, for normal variables z, elementwise.

    With the variance 0 these are the values he_k(mean). They obey the recurrence of the polynomials
    with variance - 1 in place of -1, since a mean over g solves the heat equation; so they are
    polynomials in the mean and the variance, and at mean 0 and variance 1 all but the first are 0.
    """
    found = [jnp.ones_like(mean), mean]
    for k in range(1, count - 1):
        following = mean * found[k] + (variance - 1.0) * math.sqrt(k) * found[k - 1]
        found.append(following / math.sqrt(k + 1))
    return found[:count]
