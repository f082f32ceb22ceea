"""The mean product of two rectifiers of Gaussian inputs, twice differentiable wherever it is.

z1 = w.x + b and z2 = v.x + c with x ~ N(0, I_d). For functions f and g the derivatives of
E f(z1) g(z2) are means again, by the heat equation (Price's theorem):

    by b: E f' g, by c: E f g', by w.v: E f' g', by |w|^2: E f'' g / 2, by |v|^2: E f g'' / 2.

E z1+ z2+ is twice continuously differentiable wherever w and v are not 0, also where the two
neurons coincide or are opposite. There only its third derivatives are infinite. Automatic
differentiation of its formula divides by the sine of the angle; here every derivative up to the
second is written in bounded terms, in the means

    M = E z1+ z2+,  P = E [z1>0] [z2>0],  L1 = E [z1>0] z2+,  S1 = E delta(z1) z2+,
    Q1 = E delta(z1) [z2>0],  and L2, S2, Q2 with the neurons exchanged.

At w = 0, b = 0 the mean has a kink; there the derivative is the mean of those from either side, as
JAX's of max(z, 0) is, and the second derivative is 0 in place of infinity.
Without biases M is the arc-cosine kernel of Y. Cho and L. Saul, NeurIPS 2009.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Float
from ..numerics.bivariate_normal import (
    FARTHEST,
    bivariate_normal_cdf,
    conditional_gap,
    level,
    normal_cdf,
    normal_density,
)
from .gaussian_pairs import FLOOR, Pairs, floored


def relu_means(square: Float[Array, " m"], b: Float[Array, " m"] | None) -> Float[Array, " m"]:
    """Return E z+ of z = w.x + b, from |w|^2 and b, which None says is 0."""
    return _mean(square, jnp.zeros_like(square) if b is None else b)


def relu_products(
    pairs: Pairs, b: Float[Array, "m 1"] | None, c: Float[Array, "1 k"] | None
) -> Float[Array, "m k"]:
    """Return E z1+ z2+ of all pairs; biases of None are 0, and then all are."""
    if b is None or c is None:
        return _centred(pairs)
    h, k = level(b, _length(pairs.square)), level(c, _length(pairs.other))
    both = bivariate_normal_cdf(h, k, pairs.cosine, pairs.sine)
    edges = _edge(pairs, b, c), _edge(pairs.flipped, c, b)
    return _product(_Neurons(pairs, b, c, both, *edges))


@jax.custom_jvp
def _mean(square: Array, b: Array) -> Array:
    length = _length(square)
    h = level(b, length)
    return b * normal_cdf(h) + length * normal_density(h)


@_mean.defjvp
def _mean_jvp(primals, tangents):
    square, b = primals
    h = level(b, _length(square))
    by_square = 0.5 * _over_length(normal_density(h), square)
    return _mean(square, b), by_square * tangents[0] + normal_cdf(h) * tangents[1]


def _length(square: Array) -> Array:
    """Return |w|, with the derivative 0 where w is 0."""
    return jnp.where(square > FLOOR, jnp.sqrt(floored(square)), 0.0)


def _over_length(value: Array, square: Array) -> Array:
    """Return value/|w|, and 0 where w is 0."""
    return jnp.where(square > FLOOR, value / jnp.sqrt(floored(square)), 0.0)


@jax.custom_jvp
def _centred(pairs: Pairs) -> Array:
    """Return M without biases."""
    lengths = _length(pairs.square) * _length(pairs.other)
    obtuse = 2.0 * jnp.arctan2(pairs.near, pairs.far)  # pi - t
    return lengths * (pairs.sine + obtuse * pairs.cosine) / (2.0 * math.pi)


@_centred.defjvp
def _centred_jvp(primals, tangents):
    (at,), (by,) = primals, tangents
    both = jnp.arctan2(at.near, at.far) / math.pi
    sine = at.sine / (2.0 * math.pi)
    first = _over_length(_length(at.other) * sine, at.square)
    second = _over_length(_length(at.square) * sine, at.other)
    # The derivatives by |w|^2, |v|^2 and w.v are all there are: the angle is made of these.
    slope = both * by.product + 0.5 * (first * by.square + second * by.other)
    return _centred(at), slope


class _Edge(NamedTuple):
    """What is known about z2 where z1 = 0."""

    h: Array
    """b/|w|, within the range where the normal distribution function is neither 0 nor 1."""
    positive: Array
    """Q1 |w|."""
    mean: Array
    """S1 |w|."""
    corner: Array
    """The density of z1 and z2 at 0, each in units of its deviation where the other is given."""


class _Neurons(NamedTuple):
    """Pairs of neurons with biases b (m, 1) and c (1, k), and P and the edges, which take the
    longest."""

    pairs: Pairs
    b: Array
    c: Array
    both: Array
    first: _Edge
    second: _Edge
    """The one of the neurons exchanged."""

    @property
    def flipped(self) -> "_Neurons":
        return _Neurons(self.pairs.flipped, self.c, self.b, self.both, self.second, self.first)

    def edge(self) -> Array:
        """Return Q1."""
        return _over_length(self.first.positive, self.pairs.square)

    def surface(self) -> Array:
        """Return S1."""
        return _over_length(self.first.mean, self.pairs.square)


def _edge(pairs: Pairs, b: Array, c: Array) -> _Edge:
    length = _length(pairs.other)
    h, k = level(b, _length(pairs.square)), level(c, length)
    # Where the neurons nearly coincide, both means must be made of the same h and k.
    near = length * conditional_gap(h, k, pairs.cosine, pairs.sine)
    far = c - h * _over_length(pairs.product, pairs.square)
    mean = jnp.where((jnp.abs(k) < FARTHEST) & (pairs.other > FLOOR), near, far)
    deviation = length * pairs.sine
    z, density = level(mean, deviation), normal_density(h)
    positive = density * _positive_part(mean, deviation)
    return _Edge(h, density * normal_cdf(z), positive, density * normal_density(z))


@jax.custom_jvp
def _positive_part(mean: Array, deviation: Array) -> Array:
    """Return the mean of the positive part of a normal variable."""
    z = level(mean, deviation)
    return mean * normal_cdf(z) + deviation * normal_density(z)


@_positive_part.defjvp
def _positive_part_jvp(primals, tangents):
    z = level(*primals)
    slope = normal_cdf(z) * tangents[0] + normal_density(z) * tangents[1]
    return _positive_part(*primals), slope


# P, the edges, the angle and its slopes are functions of the three products and the biases: a
# derivative by these is whole. They are arguments beside them so that each is computed once for all
# orders.
@jax.custom_jvp
def _product(at: _Neurons) -> Array:
    """Return M."""
    n, k = _length(at.pairs.square), _length(at.pairs.other)
    sine = at.pairs.sine
    total = (n * k * at.pairs.cosine + at.b * at.c) * at.both
    total = total + at.b * k * at.second.positive + at.c * n * at.first.positive
    return total + n * k * sine * at.first.corner


@_product.defjvp
def _product_jvp(primals, tangents):
    (at,), (by,) = primals, tangents
    pairs = by.pairs
    slope = at.both * pairs.product + _half(at) * by.b + _half(at.flipped) * by.c
    slope = slope + 0.5 * (at.surface() * pairs.square + at.flipped.surface() * pairs.other)
    return _product(at), slope


@jax.custom_jvp
def _half(at: _Neurons) -> Array:
    """Return L1."""
    length = _length(at.pairs.other)
    edges = at.second.positive + at.pairs.cosine * at.first.positive
    return at.c * at.both + length * edges


@_half.defjvp
def _half_jvp(primals, tangents):
    (at,), (by,) = primals, tangents
    surface, edge = at.surface(), at.edge()
    # E delta'(z1) z2+, by parts: the slope of the density at z1 = 0, and of the mean of z2+ there.
    ratio = _over_length(_length(at.pairs.other) * at.pairs.cosine, at.pairs.square)
    by_square = -_over_length(at.first.h * surface, at.pairs.square) - ratio * edge
    slope = surface * by.b + at.both * by.c + edge * by.pairs.product
    slope = slope + 0.5 * (by_square * by.pairs.square + at.flipped.edge() * by.pairs.other)
    return _half(at), slope
