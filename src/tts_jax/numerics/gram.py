"""Linear solves with Gram matrices, which are nearly singular whenever two neurons meet."""

import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from .._numbers import check_scalar
from .._types import Array, Float, Scalar

RIDGE = 1e-12
"""Default relative ridge of a solve: far above the rounding errors of a Gram matrix, and small
enough not to change what is computed from the solution."""


def solve_gram(
    gram: Float[Array, "p p"], moments: Array, *, ridge: float | Scalar = RIDGE
) -> Array:
    """Return the a (p,) that minimises a.H.a - 2 b.a + ridge * sum_i H_ii a_i^2.

    H is `gram`, and b the `moments`, (p,); those of shape (p, K) have an a in each column. The
    ridge is relative: scaling a feature scales its weight and changes nothing else. Features
    that coincide share their weight; a feature that vanishes gets none. Never NaN for finite
    input: the ridge is at least p times the rounding unit. A negative one is refused.
    """
    check_scalar("ridge", ridge, minimum=0.0, strict=False)
    diagonal = jnp.diagonal(gram)
    ridge = jnp.maximum(ridge, diagonal.size * jnp.finfo(gram.dtype).eps)
    present = diagonal > 0
    scale = jnp.where(present, jnp.where(present, diagonal, 1.0) ** -0.5, 0.0)
    scaled = gram * scale[:, None] * scale[None, :]
    # A feature that vanishes leaves a row of zeros: with a one on the diagonal its weight is 0.
    shift = jnp.where(present, ridge, 1.0)
    factor = cho_factor(scaled + jnp.diag(shift.astype(gram.dtype)), lower=True)
    columns = scale.reshape(-1, *(1 for _ in moments.shape[1:]))
    return columns * cho_solve(factor, columns * moments)
