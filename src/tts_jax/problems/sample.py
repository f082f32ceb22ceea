"""Problems on a sample: their risk, batches of samples, and large samples block by block."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_finite, is_concrete
from .._numbers import check_scalar, reals
from .._types import Array, Float, Key, Scalar, Tree
from ..models.network import Params, as_params
from ..numerics.products import summed_over_blocks
from .losses import squared
from .penalised import AbstractPenalisedProblem

BLOCK = 256
"""The largest number of inputs that features are computed for at once, about."""


class AbstractSampleProblem(AbstractPenalisedProblem):
    """A problem on a sample (x_i, y_i), i = 1..N, of which the i-th counts `weights`_i.

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
    def predict(self, params: Params, x: Array) -> Array:
        """Return f(x; a, u) for inputs (n, ...): (n,), or (n, K)."""

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
            raise argument_error(
                "weights", f"of shape {count}", f"of shape {np.shape(self.weights)}"
            )
        check_finite("weights", self.weights)
        if is_concrete(self.weights):
            numbers = np.asarray(self.weights)
            if numbers.min() < 0 or not 1e-300 <= numbers.max() <= 1e300:
                expected = "at least 0, and not all 0, the largest from 1e-300 to 1e300"
                got = f"from {numbers.min():g} to {numbers.max():g}"
                raise argument_error("weights", expected, got)

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
        weights = jnp.asarray(self.weights).astype(jnp.result_type(float))
        weights = weights / jnp.max(weights)  # the sum of very large or small ones has no digits
        return weights / jnp.sum(weights)

    def _in_blocks(self, params: Params, x: Array) -> Array:
        """Return f(x), computed for one block of inputs after the other.

        The features of a block fit into the cache. With checkpoints the backward pass computes them
        again instead of reading them from memory, so that memory does not grow with the inputs.
        """
        count = x.shape[0]
        blocks = -(-count // BLOCK)
        if blocks == 1:
            return self.predict(params, x)
        size = -(-count // blocks)
        more = [(0, blocks * size - count)] + [(0, 0)] * (x.ndim - 1)
        parts = jnp.pad(x, more, mode="edge").reshape(blocks, size, *x.shape[1:])
        values = jax.lax.map(jax.checkpoint(lambda part: self.predict(params, part)), parts)
        return values.reshape(-1, *values.shape[2:])[:count]

    def _summed(self, of_block: Callable[[tuple[Array, Array, Array]], Tree], y: Array) -> Tree:
        """Return the sum over the sample, block by block, of a function of (x, y, shares)."""
        return summed_over_blocks(of_block, (jnp.asarray(self.x), y, self._shares()), BLOCK)


def as_weights(given: Any) -> Any:
    """Return the weights of samples as an array, or None."""
    return None if given is None else reals("weights")(given)
