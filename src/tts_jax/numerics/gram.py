"""Linear solves with Gram matrices, which are nearly singular whenever two neurons meet."""

import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from .._types import Array, Float, Scalar

RIDGE = 1e-12
"""Relative ridge of a single solve: far above the rounding of a Gram matrix, below all else."""


def solve_gram(
    gram: Float[Array, "p p"], moments: Float[Array, " p"], *, ridge: float | Scalar = RIDGE
) -> Float[Array, " p"]:
    """The a that minimises a.H.a - 2 b.a + ridge * sum_i H_ii a_i^2, for H = gram, b = moments.

    The ridge is relative: scaling a feature scales its weight and changes nothing else. Features
    that coincide share their weight; a feature that vanishes gets none. Never NaN for finite
    input: the ridge is at least p times the rounding unit.
    """
    diagonal = jnp.diagonal(gram)
    ridge = jnp.maximum(ridge, diagonal.size * jnp.finfo(gram.dtype).eps)
    present = diagonal > 0
    scale = jnp.where(present, jnp.where(present, diagonal, 1.0) ** -0.5, 0.0)
    scaled = gram * scale[:, None] * scale[None, :]
    # A vanishing feature leaves a row of zeros: a one on its diagonal decouples it.
    shift = jnp.where(present, ridge, 1.0)
    factor = cho_factor(scaled + jnp.diag(shift.astype(gram.dtype)), lower=True)
    return scale * cho_solve(factor, scale * moments)
