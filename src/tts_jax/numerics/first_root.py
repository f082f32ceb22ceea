"""The first root of a polynomial on [0, 1], found without missing a pair of roots."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Float

_HALVINGS = 53


def first_root(coefficients: Float[Array, "n+1 *shape"]) -> Float[Array, "*shape"]:
    """Return the least t in [0, 1] at which polynomials are at most 0, infinity where there is
    none. `coefficients`: of 1, t, t^2, ..., on the first axis.

    Between consecutive roots of its derivative a polynomial is monotone, so that it has at most one
    root there, which bisection finds. The roots of the derivative come first, in the same way.
    """
    derivatives = [coefficients]
    while derivatives[-1].shape[0] > 2:
        last = derivatives[-1]
        powers = np.arange(1.0, last.shape[0]).reshape(-1, *(1,) * (last.ndim - 1))
        derivatives.append(jnp.asarray(powers) * last[1:])
    zero = jnp.zeros((1, *coefficients.shape[1:]), coefficients.dtype)
    ends = jnp.concatenate([zero, zero + 1.0])
    for derivative in reversed(derivatives[1:]):
        ends = jnp.concatenate([zero, _roots_between(derivative, ends), zero + 1.0])
    roots = jnp.concatenate([zero, _roots_between(coefficients, ends)])
    return jnp.min(jnp.where(_value(coefficients, ends) <= 0, roots, jnp.inf), axis=0)


def bernstein_minimum(coefficients: Float[Array, "n+1 *shape"]) -> Float[Array, "*shape"]:
    """Return a lower bound of polynomials on [0, 1], the least of their Bernstein coefficients."""
    degree = coefficients.shape[0] - 1
    matrix = np.zeros((degree + 1, degree + 1))
    for i in range(degree + 1):
        for k in range(i + 1):
            matrix[i, k] = math.comb(i, k) / math.comb(degree, k)
    return jnp.min(jnp.tensordot(jnp.asarray(matrix), coefficients, 1), axis=0)


def _roots_between(coefficients: Array, ends: Array) -> Array:
    """Return the root between each two consecutive ends, the upper end where there is none.

    The polynomials are monotone between the ends.
    """
    low, high = ends[:-1], ends[1:]
    sign = jnp.sign(_value(coefficients, low))

    def halve(_: Array, interval: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = interval
        middle = 0.5 * (low + high)
        before = sign * _value(coefficients, middle) > 0
        return jnp.where(before, middle, low), jnp.where(before, high, middle)

    return jax.lax.fori_loop(0, _HALVINGS, halve, (low, high))[1]


def _value(coefficients: Array, t: Array) -> Array:
    """Return the values at t (k, *shape), by Horner's rule."""
    total = jnp.zeros_like(t)
    for row in coefficients[::-1]:
        total = total * t + row[None]
    return total
