"""Separable problems: a network that is linear in its outer weights, and the squared loss."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_type
from .._numbers import real, reals
from .._types import Array, Float, Real, Scalar, Tree
from ..models.network import Params
from ..numerics.gram import RIDGE, solve_gram
from .penalised import AbstractPenalisedProblem
from .sample import AbstractSampleProblem, as_weights, block_size, blocks_of


class AbstractSeparableProblem(AbstractPenalisedProblem):
    """A problem whose risk is quadratic in the outer weights:

        L(a, u) = E |features(u, x) @ a - y|^2 + penalty |a|^2.

    u is any pytree, and a an array (p,), or (p, K) for K outputs that share their features.
    """

    @abc.abstractmethod
    def normal_equations(self, u: Tree) -> tuple[Float[Array, "p p"], Array]:
        """Return H = E features^T features (p, p), and b = E features^T y, (p,) or (p, K)."""

    def best_outer(self, u: Tree, *, ridge: float | Scalar = RIDGE) -> Array:
        gram, moments = self.normal_equations(u)
        gram = gram + jnp.asarray(self.penalty) * jnp.eye(gram.shape[0], dtype=gram.dtype)
        return solve_gram(gram, moments, ridge=ridge)


class AbstractSeparableSample(AbstractSampleProblem, AbstractSeparableProblem):
    """A separable problem on a sample."""

    @abc.abstractmethod
    def features(self, u: Tree, x: Array) -> Array:
        """Return the features (n, p) of inputs x (n, ...)."""

    def predict(self, params: Params, x: Array) -> Array:
        """Return f(x; a, u) for inputs (n, ...): (n,), or (n, K)."""
        return self.features(params.u, x) @ params.a

    def normal_equations(self, u: Tree) -> tuple[Float[Array, "p p"], Array]:
        return self._normal_equations(u, jnp.asarray(self.y))

    def _normal_equations(self, u: Tree, y: Array) -> tuple[Array, Array]:
        """Return the normal equations for other targets y."""
        x, shares = jnp.asarray(self.x), self._shares()

        def of_block(block: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            x, y, shares = block
            phi = self.features(u, x)
            phi = phi.reshape(phi.shape[0], -1)
            weighted = phi * shares[:, None]
            return _product(phi.T, weighted), _product(weighted.T, y)

        size = block_size(x.shape[0])
        if size == x.shape[0]:
            return of_block((x, y, shares))
        # Blocks are filled up with samples that count nothing.
        blocks = tuple(blocks_of(v, size) for v in (x, y)), blocks_of(shares, size, mode="constant")
        each = jax.checkpoint(of_block)

        def add(total: tuple, block: tuple) -> tuple[tuple, None]:
            return jax.tree.map(jnp.add, total, each(block)), None

        flat = (*blocks[0], blocks[1])
        first = each(tuple(v[0] for v in flat))
        return jax.lax.scan(add, first, tuple(v[1:] for v in flat))[0]


class SeparableProblem(AbstractSeparableSample):
    """A sample, and features of your own: subclass it with a method `features(u, x)`.

    **Arguments:** `x` (N, ...), inputs of any shape; `y` (N,), or (N, K) for K outputs; `weights`
    (N,): how much each sample counts, by default all the same; `penalty`: the factor of |a|^2.

    The risk is the mean of |features(u, x_i) @ a - y_i|^2 by these weights, + penalty |a|^2. Every
    dynamics runs on it: flows, SGD, and the reduced flow by the normal equations.

    **Raises:** `ValueError` where shapes do not match or numbers are not finite.
    """

    x: Array = eqx.field(converter=reals("x"))
    y: Array = eqx.field(converter=reals("y"))
    weights: Array | None = eqx.field(default=None, kw_only=True, converter=as_weights)
    penalty: Real = eqx.field(default=0.0, kw_only=True, converter=real("penalty"))

    def check(self, params: Params) -> None:
        check_type("params", params, Params)
        asked = (jax.ShapeDtypeStruct(np.shape(v), jnp.result_type(v)) for v in (self.x, self.y))
        x, y = asked
        found = jax.eval_shape(self.features, params.u, x)
        if len(found.shape) != 2 or found.shape[0] != x.shape[0]:
            expected = f"with features of shape ({x.shape[0]}, p)"
            raise argument_error("problem", expected, f"with features of shape {found.shape}")
        wanted = (found.shape[1], *y.shape[1:])
        if np.shape(params.a) != wanted:
            got = f"of shape {np.shape(params.a)}"
            raise argument_error("params.a", f"of shape {wanted}, as the features and y", got)


def _product(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
