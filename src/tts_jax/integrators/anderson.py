"""Anderson acceleration of a fixed-point iteration x = g(x).

The next iterate combines the last images g(x_i) so that the same combination of their residuals
g(x_i) - x_i is as small as can be. On a linear iteration that is GMRES: the few directions in which
g hardly contracts, or even expands, cost an iteration each and then no more.

Sources: D. G. Anderson, J. ACM 12:547 (1965); J. Huang, J. Jia, M. Minion, J. Comput. Phys. 214:633
(2006), for deferred corrections.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Scalar, Tree
from ..numerics.products import product

_DEPTH = 3
"""Earlier iterates that are kept: about as many directions are stiff in a long step."""

_SINGULAR = 1e-12
"""Added to the diagonal of the normal equations, 1 otherwise: differences may be dependent."""


class History(NamedTuple):
    """The latest images and residuals, newest first, on leading axes, and how many are known."""

    images: Tree
    residuals: Tree
    known: Scalar


def no_history(x: Tree) -> History:
    """Return the history before the first iterate x."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros((_DEPTH, *leaf.shape), leaf.dtype), x)
    return History(zeros, zeros, jnp.zeros((), jax.tree.leaves(x)[0].dtype))


def accelerated(history: History, x: Tree, image: Tree) -> tuple[Tree, History]:
    """Return the iterate after x, whose image under g is given, and the history with it.

    It is differentiable with its coefficients: without their derivatives those of the solution
    would converge like a plain iteration, or not at all.
    """
    residual = jax.tree.map(jnp.subtract, image, x)
    known = jnp.arange(_DEPTH, dtype=history.known.dtype) < history.known

    def differences(new: Tree, old: Tree) -> Tree:
        def of_leaf(new: Array, old: Array) -> Array:
            mask = known.reshape(-1, *(1 for _ in new.shape))
            return jnp.where(mask, new[None] - old, 0.0)

        return jax.tree.map(of_leaf, new, old)

    flat = _flat(differences(residual, history.residuals))
    now = _flat(jax.tree.map(lambda leaf: leaf[None], residual))
    squares = jax.lax.stop_gradient(jnp.sum(flat**2, axis=1))
    sizes = jnp.sqrt(jnp.where(squares > 0, squares, 1.0))
    flat = flat / sizes[:, None]
    gram = product(flat, flat.T) + _SINGULAR * jnp.eye(_DEPTH, dtype=flat.dtype)
    weights = jnp.linalg.solve(gram, product(flat, now.T))[:, 0] / sizes
    apart = differences(image, history.images)
    following = jax.tree.map(lambda g, d: g - jnp.tensordot(weights, d, 1), image, apart)

    def push(new: Tree, old: Tree) -> Tree:
        return jax.tree.map(lambda n, o: jnp.concatenate([n[None], o[:-1]]), new, old)

    after = History(
        push(image, history.images), push(residual, history.residuals), known=history.known + 1
    )
    return following, after


def _flat(tree: Tree) -> Array:
    """Return the leaves side by side, each as a matrix with the leading axis of all."""
    return jnp.concatenate([v.reshape(v.shape[0], -1) for v in jax.tree.leaves(tree)], axis=1)
