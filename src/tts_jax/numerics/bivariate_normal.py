"""The distribution function of two correlated normal variables, to rounding at any correlation.

The correlation r comes as the sine of an angle, r = p / sqrt(p^2 + q^2) with q >= 0: near r = 1 or
-1, where 1 - r^2 computed from r has lost its digits, q still has them all. The derivative by the
angle is bounded at every correlation, the one by r is not.

Source: A. Genz, "Numerical computation of rectangular bivariate and trivariate normal and t
probabilities", Statistics and Computing 14 (2004): his method of 20 points, for all correlations.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Float

FARTHEST = 40.0
"""Where a normal distribution function is 0 or 1 in float64, with all its derivatives: 37.5 is."""

_LARGE = 0.925
"""The correlation from which on the integral is taken from the correlation 1 downwards."""

_TINY = 1e-100
"""A sine below counts as 0: squares of it would be no normal numbers."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)


def normal_density(h: Array) -> Array:
    """Return the density phi(h) of the standard normal, elementwise."""
    return jnp.exp(-0.5 * h * h) / math.sqrt(2.0 * math.pi)


def normal_cdf(h: Array) -> Array:
    """Return the distribution function of the standard normal, elementwise.

    JAX's own `ndtr` is the same to rounding, but for |h| < 1 of a second formula, which is compiled
    and computed everywhere.
    """
    return 0.5 * jax.lax.erfc(-math.sqrt(0.5) * h)


def conditional_gap(h: Array, k: Array, r: Array, s: Array) -> Array:
    """Return k - r h, elementwise, for r = sin(t), s = cos(t) >= 0.

    Computed without cancellation for r near 1 or -1, where h and k may nearly be the same, too.
    """
    sign = jnp.where(r < 0, -1.0, 1.0).astype(r.dtype)
    # 1 - |r| = s^2/(1 + |r|), which is small where the difference of h and k is.
    return (k - sign * h) + sign * h * s * s / (1.0 + jnp.abs(r))


def level(gap: Array, s: Array) -> Array:
    """Return gap/s within +-FARTHEST, elementwise, for s >= 0.

    With the `conditional_gap` of (X, Y) at (h, k), Phi of it is the probability of Y < k where
    X = h. At s = 0 it is +-FARTHEST by the sign of the gap, and 0 where this is 0, too: halfway
    between the limits, with the derivative 0.
    """
    regular = s > _TINY
    inside = gap / jnp.where(regular, s, 1.0)
    return jnp.where(regular, jnp.clip(inside, -FARTHEST, FARTHEST), FARTHEST * jnp.sign(gap))


def bivariate_normal_cdf(
    h: Float[Array, "*shape"],
    k: Float[Array, "*shape"],
    p: Float[Array, "*shape"],
    q: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
    """Return Phi2(h, k; r), the probability of X < h and Y < k, elementwise.

    X and Y are standard normal with the correlation r = p / sqrt(p^2 + q^2), q >= 0, not both 0.
    Shapes broadcast. The error is below 1e-15, about; h and k may be infinite.
    """
    h, k = _bounded(h), _bounded(k)
    excess = bivariate_normal_excess(h, k, p, q)
    return normal_cdf(h) * normal_cdf(k) + excess


def bivariate_normal_excess(h: Array, k: Array, p: Array, q: Array) -> Array:
    """Return Phi2(h, k; r) - Phi(h) Phi(k), the covariance of [X < h] and [Y < k], elementwise.

    The arguments are those of `bivariate_normal_cdf`. A covariance that is small because r is has
    all its digits. Differentiable any number of times, forward and in reverse; at r = 1 and -1 the
    derivatives by h and k are halfway between their limits from either side.
    """
    return _excess(*jnp.broadcast_arrays(_bounded(h), _bounded(k), p, q))


def _bounded(h: Array) -> Array:
    return jnp.clip(h, -FARTHEST, FARTHEST)


@jax.custom_jvp
def _excess(h: Array, k: Array, p: Array, q: Array) -> Array:
    length = jnp.hypot(p, q)
    r, s = p / length, q / length
    # Both integrands where either is needed: few correlations in a batch would all be of one kind.
    return jnp.where(jnp.abs(r) < _LARGE, _from_zero(h, k, r, s), _from_one(h, k, r, s))


@_excess.defjvp
def _excess_jvp(primals, tangents):
    h, k, p, q = primals
    dh, dk, dp, dq = tangents
    square = p * p + q * q
    length = jnp.sqrt(square)
    r, s = p / length, q / length
    on_h = level(conditional_gap(h, k, r, s), s)
    on_k = level(conditional_gap(k, h, r, s), s)
    by_h = normal_density(h) * (normal_cdf(on_h) - normal_cdf(k))
    by_k = normal_density(k) * (normal_cdf(on_k) - normal_cdf(h))
    # The density of (X, Y) at (h, k) times s: that of X, and that of Y given X.
    by_angle = normal_density(h) * normal_density(on_h)
    angle = (q * dp - p * dq) / square
    return _excess(h, k, p, q), by_h * dh + by_k * dk + by_angle * angle


def _sum_over_nodes(integrand, like: Array) -> Array:
    """Return the sum over the nodes v of (-1, 1) of weight * integrand(v), of the shape of `like`.

    One node after the other: all at once would take twenty times the memory.
    """
    nodes = jnp.asarray(np.stack([_NODES, _WEIGHTS], axis=1), like.dtype)

    def add(total: Array, node: Array) -> tuple[Array, None]:
        return total + node[1] * integrand(node[0]), None

    return jax.lax.scan(add, jnp.zeros_like(like), nodes)[0]


def _from_zero(h: Array, k: Array, r: Array, s: Array) -> Array:
    """Return the integral of the density by the angle from r = 0."""
    # Beyond the largest angle the result counts for nothing, but shall be finite.
    half = 0.5 * jnp.clip(jnp.arctan2(r, s), -math.asin(_LARGE), math.asin(_LARGE))
    product, squares = h * k, 0.5 * (h * h + k * k)

    def integrand(v: Array) -> Array:
        sine = jnp.sin(half * (v + 1.0))
        return jnp.exp((sine * product - squares) / (1.0 - sine * sine))

    return half * _sum_over_nodes(integrand, h) / (2.0 * math.pi)


def _from_one(h: Array, k: Array, r: Array, s: Array) -> Array:
    """Return the excess at r = 1 or -1 less the integral of the density from there.

    In x = the cosine of the angle the integrand is exp(-(h - k)^2/(2 x^2)) times what is smooth in
    x^2. The first three terms of that are integrated exactly, the rest by quadrature.
    """
    s = jnp.minimum(s, math.sqrt(1.0 - _LARGE**2))  # as above: finite where it counts for nothing
    sign = jnp.where(r < 0, -1.0, 1.0).astype(r.dtype)
    other = sign * k
    product, square = h * other, (h - other) ** 2
    gap = jnp.abs(h - other)
    c, d = (4.0 - product) / 8.0, (12.0 - product) / 16.0
    safe = jnp.maximum(s, _TINY)
    decay = jnp.exp(-0.5 * (square / (safe * safe) + product))
    terms = 1.0 - c * (square - s * s) * (1.0 - d * square / 5.0) / 3.0 + c * d * s**4 / 5.0
    exact = s * decay * terms
    # Where the exponent is above 50, the gap is above 50 s, and the tail 0.
    tail = (
        math.sqrt(2.0 * math.pi)
        * jnp.exp(jnp.minimum(-0.5 * product, 50.0))
        * normal_cdf(-gap / safe)
    )
    exact = exact - tail * gap * (1.0 - c * square * (1.0 - d * square / 5.0) / 3.0)

    def integrand(v: Array) -> Array:
        x2 = jnp.maximum(0.5 * safe * (v + 1.0), _TINY) ** 2
        sine = jnp.sqrt(1.0 - x2)
        whole = jnp.exp(-0.5 * product * x2 / (1.0 + sine) ** 2) / sine
        return jnp.exp(-0.5 * (square / x2 + product)) * (whole - (1.0 + c * x2 * (1.0 + d * x2)))

    missing = (exact + 0.5 * s * _sum_over_nodes(integrand, h)) / (2.0 * math.pi)
    # At r = 1 the probability of both is that of the smaller bound; at r = -1 that of Y < k minus
    # that of X > h.
    low, high = jnp.minimum(h, other), jnp.maximum(h, other)
    at_one = normal_cdf(low) * normal_cdf(-high)
    return sign * (at_one - missing)
