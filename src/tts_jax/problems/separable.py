"""Separable problems: a network that is linear in its outer weights, and the squared loss."""

import abc
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_finite, check_type, is_concrete
from .._numbers import check_scalar, real, reals
from .._types import Array, Float, Key, Real, Scalar, Tree
from ..models.network import Params, as_params
from ..numerics.gram import RIDGE, solve_gram
from .base import AbstractProblem
from .losses import squared

BLOCK = 256
"""The largest number of inputs that features are computed for at once, about."""


class AbstractSeparableProblem(AbstractProblem):
    """A problem whose risk is quadratic in the outer weights:

        L(a, u) = E |features(u, x) @ a - y|^2 + penalty |a|^2.

    u is any pytree, and a an array (p,), or (p, K) for K outputs that share their features.
    """

    if TYPE_CHECKING:  # type checkers would take it for the first argument of a subclass

        @property
        def penalty(self) -> Real: ...
    else:
        penalty: eqx.AbstractVar[Real]

    @abc.abstractmethod
    def normal_equations(self, u: Tree) -> tuple[Float[Array, "p p"], Array]:
        """Return H = E features^T features (p, p), and b = E features^T y, (p,) or (p, K)."""

    def best_outer(self, u: Tree, *, ridge: float | Scalar = RIDGE) -> Array:
        gram, moments = self.normal_equations(u)
        gram = gram + jnp.asarray(self.penalty) * jnp.eye(gram.shape[0], dtype=gram.dtype)
        return solve_gram(gram, moments, ridge=ridge)

    def penalised(self, loss: Scalar, params: Params) -> Scalar:
        """Return a loss with the penalty of the outer weights."""
        return loss + jnp.asarray(self.penalty) * jnp.sum(jnp.asarray(params.a) ** 2)


class AbstractSampleProblem(AbstractSeparableProblem):
    """A separable problem on a sample (x_i, y_i), i = 1..N, of which the i-th counts `weights`_i.

    Inputs x (N, ...) may have any shape; y (N,), or (N, K) for K outputs.
    """

    if TYPE_CHECKING:  # type checkers would take them for the first arguments of a subclass

        @property
        def x(self) -> Array: ...
        @property
        def y(self) -> Array: ...
        @property
        def weights(self) -> Array | None: ...
    else:
        x: eqx.AbstractVar[Array]
        y: eqx.AbstractVar[Array]
        weights: eqx.AbstractVar[Array | None]

    @abc.abstractmethod
    def features(self, u: Tree, x: Array) -> Array:
        """Return the features (n, p) of inputs x (n, ...)."""

    def predict(self, params: Params, x: Array) -> Array:
        """Return f(x; a, u) for inputs (n, ...): (n,), or (n, K)."""
        return self.features(params.u, x) @ params.a

    def losses(self, f: Array, y: Array) -> Float[Array, " n"]:
        """Return the loss (n,) of each prediction: by default |f - y|^2."""
        return squared(f, y)

    def __check_init__(self):
        check_scalar("penalty", self.penalty, minimum=0.0, strict=False)
        if np.ndim(self.x) < 1 or np.shape(self.x)[0] == 0:
            raise argument_error("x", "of shape (N, ...), N > 0", f"of shape {np.shape(self.x)}")
        count = np.shape(self.x)[:1]
        check_finite("x", self.x)
        if np.shape(self.y)[:1] != count or np.ndim(self.y) not in (1, 2):
            expected = f"of shape {count} or ({count[0]}, K), one for each input"
            raise argument_error("y", expected, f"of shape {np.shape(self.y)}")
        check_finite("y", self.y)
        if self.weights is None:
            return
        if np.shape(self.weights) != count:
            raise argument_error("weights", f"of shape {count}", f"of {np.shape(self.weights)}")
        check_finite("weights", self.weights)
        if is_concrete(self.weights):
            numbers = np.asarray(self.weights)
            if numbers.min() < 0 or numbers.sum() <= 0:
                raise argument_error("weights", "at least 0, and not all 0", f"{numbers.min():g}")

    def risk(self, params: Params) -> Scalar:
        """Return the loss on the whole sample."""
        params = jax.tree.map(jnp.asarray, as_params(params))
        x, y = jnp.asarray(self.x), jnp.asarray(self.y)
        if self.weights is None:
            return self.sample_loss(params, x, y)
        losses = self.losses(self._in_blocks(params, x), y)
        return self.penalised(jnp.sum(self._shares() * losses), params)

    def sample_loss(self, params: Params, x: Array, y: Array) -> Scalar:
        """Return the mean loss of a batch, with the penalty."""
        return self.penalised(jnp.mean(self.losses(self._in_blocks(params, x), y)), params)

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

        size = _block_size(x.shape[0])
        if size == x.shape[0]:
            return of_block((x, y, shares))
        # Blocks are filled up with samples that count nothing.
        blocks = tuple(_blocks(v, size) for v in (x, y)), _blocks(shares, size, mode="constant")
        each = jax.checkpoint(of_block)

        def add(total: tuple, block: tuple) -> tuple[tuple, None]:
            return jax.tree.map(jnp.add, total, each(block)), None

        flat = (*blocks[0], blocks[1])
        first = each(tuple(v[0] for v in flat))
        return jax.lax.scan(add, first, tuple(v[1:] for v in flat))[0]

    def draw(self, key: Key, count: int) -> tuple[Array, Array]:
        """Return `count` of the samples, drawn with replacement by their weights."""
        if self.weights is None:
            index = jax.random.randint(key, (count,), 0, self.x.shape[0])
        else:
            ends = jnp.cumsum(self._shares())
            v = jax.random.uniform(key, (count,), ends.dtype) * ends[-1]
            index = jnp.minimum(jnp.searchsorted(ends, v, side="right"), self.x.shape[0] - 1)
        return jnp.asarray(self.x)[index], jnp.asarray(self.y)[index]

    def replayed(self, x: Array) -> tuple[Array, Array]:
        """Return the samples of given numbers."""
        return jnp.asarray(self.x)[x], jnp.asarray(self.y)[x]

    def check_samples(self, x: Array) -> None:
        count = self.x.shape[0]
        if not jnp.issubdtype(x.dtype, jnp.integer):
            expected = f"(index, noise), the index of whole numbers from 0 to {count - 1}"
            raise argument_error("samples", expected, f"of dtype {x.dtype}")
        if is_concrete(x) and np.size(x):
            # As NumPy's: inside a transformation JAX would trace the minimum of any array.
            low, high = int(np.min(np.asarray(x))), int(np.max(np.asarray(x)))
            if low < 0 or high >= count:
                expected = f"with an index from 0 to {count - 1}"
                raise argument_error("samples", expected, f"from {low} to {high}")

    def _shares(self) -> Float[Array, " N"]:
        """Return what each sample counts, in all 1."""
        count = self.x.shape[0]
        if self.weights is None:
            return jnp.full(count, 1.0 / count)
        weights = jnp.asarray(self.weights)
        return weights / jnp.sum(weights)

    def _in_blocks(self, params: Params, x: Array) -> Array:
        """Return f(x), computed for one block of inputs after the other.

        The features of a block fit into the cache. With checkpoints the backward pass computes them
        again instead of reading them from memory, so that memory does not grow with the inputs.
        """
        count = x.shape[0]
        size = _block_size(count)
        if size == count:
            return self.predict(params, x)
        each = jax.checkpoint(lambda part: self.predict(params, part))
        values = jax.lax.map(each, _blocks(x, size))
        return values.reshape(-1, *values.shape[2:])[:count]


class SeparableProblem(AbstractSampleProblem):
    """A sample, and features of your own: subclass it with a method `features(u, x)`.

    **Arguments:** `x` (N, ...), inputs of any shape; `y` (N,), or (N, K) for K outputs; `weights`
    (N,): how much each sample counts, by default all the same; `penalty`: the factor of |a|^2.

    The risk is the mean of |features(u, x_i) @ a - y_i|^2 by these weights, + penalty |a|^2. Every
    dynamics runs on it: flows, SGD, and the reduced flow by the normal equations.

    **Raises:** `ValueError` where shapes do not match or numbers are not finite.
    """

    x: Array = eqx.field(converter=reals("x"))
    y: Array = eqx.field(converter=reals("y"))
    weights: Array | None = eqx.field(
        default=None, kw_only=True, converter=lambda w: w if w is None else reals("weights")(w)
    )
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


def _block_size(count: int) -> int:
    blocks = -(-count // BLOCK)
    return -(-count // blocks)


def _blocks(values: Array, size: int, mode: str = "edge") -> Array:
    """Return values (n, ...) as (blocks, size, ...), filled up by the last value or by zeros."""
    blocks = -(-values.shape[0] // size)
    more = [(0, blocks * size - values.shape[0])] + [(0, 0)] * (values.ndim - 1)
    return jnp.pad(values, more, mode=mode).reshape(blocks, size, *values.shape[1:])


def _product(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
