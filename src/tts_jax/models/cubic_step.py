"""The cubic step of the paper and its integrals, elementwise, each with its derivatives.

sigma(z) = 0 for z <= -1/2; 4 (z + 1/2)^3 on [-1/2, 0]; 1 - 4 (1/2 - z)^3 on [0, 1/2]; 1 above.
Source of sigma: arXiv 2304.09576. The integrals follow from the pieces; tests hold each function
to quadrature and each derivative to finite differences.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._types import Array


def _positive_part(x: Array, power: int = 1) -> Array:
    """Return max(x, 0)^power, NaN where x is NaN."""
    # Not `maximum`, which also keeps a NaN but takes longer.
    return jax.lax.integer_pow(jnp.where(x < 0.0, 0.0, x), power)


def _with_derivative(function: Callable[[Array], Array], derivative: Callable[[Array], Array]):
    """Return an elementwise function with a given derivative.

    Autodiff would give the mean of the two one-sided derivatives of |z| at z = 0, which occurs
    wherever two positions are equal, and takes longer.
    """
    wrapped = jax.custom_jvp(function)
    wrapped.defjvps(lambda dz, value, z: derivative(z) * dz)
    return wrapped


def _slope(z: Array) -> Array:
    return 12.0 * _positive_part(0.5 - jnp.abs(z), 2)


@functools.partial(_with_derivative, derivative=_slope)
def cubic_step(z: Array) -> Array:
    """Return sigma(z)."""
    c = jnp.where(z < -0.5, -0.5, jnp.where(z > 0.5, 0.5, z))
    b = jnp.abs(c)
    return 0.5 + c * (3.0 + b * (4.0 * b - 6.0))


@functools.partial(_with_derivative, derivative=cubic_step)
def primitive(z: Array) -> Array:
    """Return the integral of sigma(y) over y < z."""
    return _positive_part(z) + _positive_part(0.5 - jnp.abs(z), 4)


def _overlap_curvature(t: Array) -> Array:
    s = jnp.abs(t)
    return 4.8 * _positive_part(1.0 - s, 5) - 48.0 * _positive_part(0.5 - s, 4)


@functools.partial(_with_derivative, derivative=_overlap_curvature)
def _overlap_slope(t: Array) -> Array:
    s = jnp.abs(t)
    tail = 0.8 * _positive_part(1.0 - s, 6) - 9.6 * _positive_part(0.5 - s, 5)
    return jnp.where(t > 0, 1.0 - tail, tail)


@functools.partial(_with_derivative, derivative=_overlap_slope)
def overlap(t: Array) -> Array:
    """Return the function of `AbstractStep.overlap`."""
    s = jnp.abs(t)
    return (
        _positive_part(t)
        + (0.8 / 7.0) * _positive_part(1.0 - s, 7)
        - 1.6 * _positive_part(0.5 - s, 6)
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _powers(i: int, j: int, p: Array, q: Array) -> Array:
    """Return the integral of (y + p)_+^i (y + q)_+^j over y < 0.

    A derivative by p lowers i and one by q lowers j: none may be taken below 0.
    """
    start = jnp.maximum(jnp.minimum(p, q), 0.0)
    p, q = p - start, q - start
    # Now p or q is 0, and so are all terms of the expansion with powers of both.
    total = start**i / (i + j + 1)
    for k in range(i):
        total = total + math.comb(i, k) / (j + k + 1) * p ** (i - k) * start**k
    total = total * start ** (j + 1)
    for k in range(j):
        total = total + math.comb(j, k) / (i + k + 1) * q ** (j - k) * start ** (i + k + 1)
    return total


@_powers.defjvp
def _(i: int, j: int, at: tuple[Array, Array], moved: tuple[Array, Array]) -> tuple[Array, Array]:
    p, q = at
    slope = jnp.zeros_like(p)
    if i > 0:
        slope = slope + i * _powers(i - 1, j, p, q) * moved[0]
    if j > 0:
        slope = slope + j * _powers(i, j - 1, p, q) * moved[1]
    return _powers(i, j, p, q), slope


@jax.jit  # so that it is traced once: a flow needs it in several places
def product_beyond_zero(p: Array, q: Array) -> Array:
    """Return the integral of sigma(y - p) sigma(y - q) over y < 0, for p and q of at least -1/2.

    There z = y - p is at most 1/2, and sigma(z) = 4 (z + 1/2)_+^3 - 12 z_+^2.
    """
    start, later = (0.5 - p, 0.5 - q), (-p, -q)
    pure = 16.0 * _powers(3, 3, *start) + 144.0 * _powers(2, 2, *later)
    mixed = _powers(3, 2, start[0], later[1]) + _powers(2, 3, later[0], start[1])
    return pure - 48.0 * mixed
