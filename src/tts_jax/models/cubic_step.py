"""The cubic step of the paper and its integrals, elementwise, each with its derivatives.

sigma(z) is 0 below z = -1/2, 1 above 1/2, and cubic on either half between.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._types import Array


def _above(x: Array, power: int = 1) -> Array:
    # Not `maximum`, which takes three instructions to let a NaN through: this does it in one.
    return jax.lax.integer_pow(jnp.where(x < 0.0, 0.0, x), power)


def _with_derivative(function: Callable[[Array], Array], derivative: Callable[[Array], Array]):
    """An elementwise function whose derivative is written out.

    Autodiff would give the mean of two one-sided derivatives of |z| at z = 0, which is where equal
    positions are, and costs more; a test holds each derivative to finite differences.
    """
    wrapped = jax.custom_jvp(function)
    wrapped.defjvps(lambda dz, value, z: derivative(z) * dz)
    return wrapped


def _slope(z: Array) -> Array:
    return 12.0 * _above(0.5 - jnp.abs(z), 2)


@functools.partial(_with_derivative, derivative=_slope)
def cubic_step(z: Array) -> Array:
    c = jnp.where(z < -0.5, -0.5, jnp.where(z > 0.5, 0.5, z))
    b = jnp.abs(c)
    return 0.5 + c * (3.0 + b * (4.0 * b - 6.0))


@functools.partial(_with_derivative, derivative=cubic_step)
def primitive(z: Array) -> Array:
    return _above(z) + _above(0.5 - jnp.abs(z), 4)


def _overlap_curvature(t: Array) -> Array:
    s = jnp.abs(t)
    return 4.8 * _above(1.0 - s, 5) - 48.0 * _above(0.5 - s, 4)


@functools.partial(_with_derivative, derivative=_overlap_curvature)
def _overlap_slope(t: Array) -> Array:
    s = jnp.abs(t)
    tail = 0.8 * _above(1.0 - s, 6) - 9.6 * _above(0.5 - s, 5)
    return jnp.where(t > 0, 1.0 - tail, tail)


@functools.partial(_with_derivative, derivative=_overlap_slope)
def overlap(t: Array) -> Array:
    s = jnp.abs(t)
    return _above(t) + (0.8 / 7.0) * _above(1.0 - s, 7) - 1.6 * _above(0.5 - s, 6)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _powers(i: int, j: int, p: Array, q: Array) -> Array:
    """The integral of (y + p)_+^i (y + q)_+^j over y < 0.

    To be differentiated as often as the exponents allow: not by p for i = 0, nor by q for j = 0.
    """
    start = jnp.maximum(jnp.minimum(p, q), 0.0)
    p, q = p - start, q - start
    # One of the two is 0, and with it all mixed terms.
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


@jax.jit  # traced once: a flow asks for it in several places
def product_beyond_zero(p: Array, q: Array) -> Array:
    """The integral of sigma(y - p) sigma(y - q) over y < 0, for p and q of at least -1/2.

    There sigma(z) is 4 (z + 1/2)_+^3 - 12 z_+^2.
    """
    start, later = (0.5 - p, 0.5 - q), (-p, -q)
    both = 16.0 * _powers(3, 3, *start) + 144.0 * _powers(2, 2, *later)
    mixed = _powers(3, 2, start[0], later[1]) + _powers(2, 3, later[0], start[1])
    return both - 48.0 * mixed
