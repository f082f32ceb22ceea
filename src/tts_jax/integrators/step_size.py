"""The size of the next step, from the error of the last one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Bool, Scalar, Tree
from .rosenbrock import ORDER

_SAFETY, _SMALLEST, _LARGEST = 0.85, 0.2, 6.0
_PROPORTIONAL, _INTEGRAL = 0.4 / ORDER, 1.0 / ORDER


class StepControl(NamedTuple):
    """Where an adaptive run ends (`horizon`), its tolerances, and how many steps it may try."""

    horizon: Scalar
    rtol: Scalar
    atol: Scalar
    max_steps: Array


def resized(h: Scalar, error: Scalar, last_error: Scalar, accepted: Bool[Array, ""]) -> Scalar:
    """Return the size of the step to try after one of size h, from the last two error norms.

    A proportional-integral controller; after a rejection only the new error counts. With less
    weight on the new error, steps grow too late behind a kink and a run needs more of them to reach
    an error; the safety factor keeps that error near the tolerance.
    """
    grown = _SAFETY * error ** (-_INTEGRAL) * last_error**_PROPORTIONAL
    shrunk = _SAFETY * error ** (-1.0 / ORDER)
    return h * jnp.where(
        accepted,
        jnp.clip(grown, _SMALLEST, _LARGEST),
        jnp.clip(shrunk, 0.5 * _SMALLEST, 1.0),
    )


def all_finite(tree: Tree) -> Bool[Array, ""]:
    """Return whether no number in the tree is infinite or NaN."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
