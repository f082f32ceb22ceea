"""Pairs of weight vectors: their products, and the angle between them to its last digit.

What is known about two neurons with Gaussian inputs depends on their weights w and v through |w|^2,
|v|^2 and w.v alone. From these three the angle t loses half of its digits where w and v are nearly
parallel (arccos is off by 1e-8 there), and its derivative is none at t = 0. Here the angle has a
value from the difference of the unit vectors, and derivatives from the three products: derivatives
of any order pass through one product of matrices, and through nothing else that grows with the
number of inputs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Float
from ..numerics import products

FLOOR = 1e-60
"""The square of a length from which on a weight vector counts as 0."""

_PARALLEL = 1e-13
"""The sine of an angle below which two vectors count as parallel: rounding errors turn it."""

_UNROLLED = 4
"""Inputs that one turn of the loop over inputs takes."""


class Pairs(NamedTuple):
    """The m weight vectors w and the k weight vectors v in pairs. A pair with a vector that is 0
    counts as orthogonal."""

    square: Float[Array, "m 1"]
    """|w|^2."""
    other: Float[Array, "1 k"]
    """|v|^2."""
    product: Float[Array, "m k"]
    """w.v."""
    near: Float[Array, "m k"]
    """cos(t/2) for the angle t between w and v, with the derivative 0 where they are parallel."""
    far: Float[Array, "m k"]
    """sin(t/2)."""

    @property
    def cosine(self) -> Float[Array, "m k"]:
        return (self.near - self.far) * (self.near + self.far)

    @property
    def sine(self) -> Float[Array, "m k"]:
        return 2.0 * self.near * self.far

    @property
    def flipped(self) -> "Pairs":
        """The pairs of v and w, on the same axes."""
        return Pairs(self.other, self.square, self.product, self.near, self.far)

    def wedge(self) -> Float[Array, "m k"]:
        """Return |w|^2 |v|^2 - (w.v)^2 >= 0, without cancellation; smooth, also at 0."""
        value = self.square * self.other * self.sine**2
        return _wedge(jax.lax.stop_gradient(value), self.square, self.other, self.product)


def pairs(w: Float[Array, "m d"], v: Float[Array, "k d"]) -> Pairs:
    """Return the pairs of two sets of weight vectors; for one set and itself give it twice."""
    square = jnp.sum(w * w, axis=1)[:, None]
    other = square.T if v is w else jnp.sum(v * v, axis=1)[None, :]
    product = products.product(w, v.T)
    fixed = jax.lax.stop_gradient(w)
    near, far = _half_angles(fixed, fixed if v is w else jax.lax.stop_gradient(v))
    near, far = _with_slopes(near, far, floored(square), floored(other), product)
    return Pairs(square, other, product, near, far)


def floored(square: Array) -> Array:
    """Return the squares of lengths, where they are 0 by `FLOOR` as another number, a constant."""
    return jnp.where(square > FLOOR, square, FLOOR)


def _half_angles(w: Array, v: Array) -> tuple[Array, Array]:
    """Return cos(t/2) and sin(t/2), (m, k) each: half the lengths of the sum and the difference of
    the unit vectors."""
    some_w, some_v = (jnp.sum(x * x, axis=1) > FLOOR for x in (w, v))
    zero = jnp.zeros((w.shape[0], v.shape[0]), w.dtype)

    def add(sums: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple, None]:
        one, two = inputs[0][:, None], inputs[1][None, :]
        return (sums[0] + (one + two) ** 2, sums[1] + (one - two) ** 2), None

    # One input after the other: at once these squares would not fit into the cache. A QR
    # decomposition to fewer inputs first takes longer, on cores that other work keeps busy.
    columns = (_units(w).T, _units(v).T)
    sums = jax.lax.scan(add, (zero, zero), columns, unroll=min(_UNROLLED, w.shape[1]))[0]
    there = some_w[:, None] & some_v[None, :]
    near, far = (jnp.where(there, jnp.sqrt(total), 1.0) for total in sums)
    length = jnp.sqrt(near * near + far * far)  # 2 but for rounding errors, which grow with d
    return near / length, far / length


def _units(w: Array) -> Array:
    largest = jnp.max(jnp.abs(w), axis=1, keepdims=True)
    scaled = w / jnp.where(largest > 0, largest, 1.0)  # so that no square underflows
    length = jnp.sqrt(jnp.sum(scaled * scaled, axis=1, keepdims=True))
    return scaled / jnp.where(length > 0, length, 1.0)


@jax.custom_jvp
def _with_slopes(near: Array, far: Array, square: Array, other: Array, product: Array):
    """Return cos(t/2) and sin(t/2), with their derivatives by the three products."""
    del square, other, product
    return near, far


@_with_slopes.defjvp
def _with_slopes_jvp(primals, tangents):
    near, far = _with_slopes(*primals)
    _, _, square, other, product = primals
    _, _, by_square, by_other, by_product = tangents
    shares = by_square / square + by_other / other
    cosine = (by_product - 0.5 * product * shares) / (jnp.sqrt(square) * jnp.sqrt(other))
    sine = 2.0 * near * far
    turned = (sine > _PARALLEL) & (square > FLOOR) & (other > FLOOR)
    angle = jnp.where(turned, -cosine / jnp.where(turned, sine, 1.0), 0.0)
    return (near, far), (-0.5 * far * angle, 0.5 * near * angle)


@jax.custom_jvp
def _wedge(value: Array, square: Array, other: Array, product: Array) -> Array:
    """Return `value`, with the derivatives of square * other - product^2."""
    del square, other, product
    return value


@_wedge.defjvp
def _wedge_jvp(primals, tangents):
    _, square, other, product = primals
    _, by_square, by_other, by_product = tangents
    slope = other * by_square + square * by_other - 2.0 * product * by_product
    return _wedge(*primals), slope
