"""The mean product of two Hermite series of Gaussian inputs.

z1 = w.x + b and z2 = v.x + c with x ~ N(0, I_d). The expansion of sigma(z1) in Hermite polynomials
of z1 - b divided by its deviation |w| has the coefficients |w|^k d_k with

    d_k = E sigma^(k)(z1) / sqrt(k!)

(by parts), and polynomials of different degrees are orthogonal, so that

    E sigma(z1) sigma'(z2) = sum_k d_k d'_k (w.v)^k.

No length is divided by: of polynomials this is a polynomial in |w|^2, |v|^2, w.v, b and c, exact
and smooth also where neurons coincide, are opposite or vanish. For b = c = 0 and |w| = |v| = 1 it
is the sum of s_k s'_k (w.v)^k over the coefficients of both.
"""

import math

import jax.numpy as jnp
import numpy as np

from .._types import Array, Float
from ..numerics.hermite import hermite_means


def series_slopes(
    coefficients: Float[Array, "m p"], square: Float[Array, " m"], b: Float[Array, " m"] | None
) -> Float[Array, "m p"]:
    """Return d_k (m, p) of sum_j s_j he_j(z) with the coefficients s_j, from |w|^2 and b, which
    None says is 0."""
    count = coefficients.shape[1]
    b = jnp.zeros_like(square) if b is None else b
    means = jnp.stack(hermite_means(b, square, count), axis=1)

    def slope(k: int) -> Array:
        # The derivative of he_j of order k is he_(j-k) times the root of j!/(j-k)!.
        roots = np.sqrt([float(math.comb(j, k)) for j in range(k, count)])
        terms = coefficients[:, k:] * means[:, : count - k]
        return jnp.sum(terms * jnp.asarray(roots, terms.dtype)[None, :], axis=1)

    return jnp.stack([slope(k) for k in range(count)], axis=1)


def series_covariances(
    left: Float[Array, "m p"], right: Float[Array, "k p"], product: Float[Array, "m k"]
) -> Float[Array, "m k"]:
    """Return the covariances (m, k) of neurons from their d_k and w.v: the sum without k = 0."""
    total = jnp.zeros_like(product)
    for k in range(left.shape[1] - 1, 0, -1):
        total = (total + left[:, k][:, None] * right[:, k][None, :]) * product
    return total
