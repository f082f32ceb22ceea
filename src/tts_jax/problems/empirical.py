"""Problems on a given sample, of one or several inputs, in full batch or minibatches."""

import math
import warnings
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import OffScaleWarning, argument_error, check_finite, check_type, is_concrete
from .._memory import check_memory
from .._numbers import as_whole, check_key, reals, word
from .._types import Array, Key, Scalar
from ..models.network import AbstractNetwork, AbstractOneInputNetwork, Params, as_params
from ..models.shallow import has_bias
from ..models.targets import AbstractLabels
from ..numerics.gram import RIDGE, solve_gram
from .base import AbstractProblem

BLOCK = 256
"""The largest number of inputs that a network is evaluated for at once."""


class EmpiricalProblem(AbstractProblem):
    """A network fitted to a sample (x_i, y_i), i = 1..N.

    **Arguments:** `network`; `x` (N,) for a `ShallowNetwork` or (N, d) for an `AdditiveNetwork`;
    `y` (N,); `loss`: with residuals r_i = f(x_i) - y_i of the n samples in a batch, "squared" is
    the mean of r_i^2 and "norm" is ||r||_2 / n, the loss of the paper's notebooks.

    **Raises:** `ValueError` where shapes do not match or numbers are not finite.
    """

    network: AbstractNetwork
    x: Array = eqx.field(converter=reals("x"))
    y: Array = eqx.field(converter=reals("y"))
    loss: Literal["squared", "norm"] = eqx.field(
        static=True, default="squared", kw_only=True, converter=word("loss", "squared", "norm")
    )

    def __check_init__(self):
        check_type("network", self.network, AbstractNetwork)
        if np.ndim(self.x) not in (1, 2) or np.shape(self.x)[0] == 0:
            raise argument_error("x", "of shape (N,) or (N, d)", f"of shape {np.shape(self.x)}")
        if isinstance(self.network, AbstractOneInputNetwork) and np.ndim(self.x) != 1:
            expected = f"of shape (N,) for a {type(self.network).__name__}, which has one input"
            one = " (`x[:, 0]` has it)" if np.shape(self.x)[1] == 1 else ""
            raise argument_error("x", expected + one, f"of shape {np.shape(self.x)}")
        check_finite("x", self.x)
        if np.shape(self.y) != np.shape(self.x)[:1]:
            expected = f"of shape {np.shape(self.x)[:1]}, one number for each input"
            raise argument_error("y", expected, f"of shape {np.shape(self.y)}")
        check_finite("y", self.y)

    def risk(self, params: Params) -> Scalar:
        """Return the loss on the whole sample."""
        params = jax.tree.map(jnp.asarray, as_params(params))
        return self.sample_loss(params, jnp.asarray(self.x), jnp.asarray(self.y))

    def predict(self, params: Params, x: Array) -> Array:
        """Return f(x; a, u) for inputs x (n,) or (n, d)."""
        return self.network(params, x)

    def draw(self, key: Key, count: int) -> tuple[Array, Array]:
        """Return `count` of the samples, drawn with replacement."""
        index = jax.random.randint(key, (count,), 0, self.x.shape[0])
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

    def _in_blocks(self, params: Params, x: Array) -> Array:
        """Return f(x), computed for one block of inputs after the other.

        The features of a block fit into the cache. With checkpoints the backward pass computes them
        again instead of reading them from memory, so that memory does not grow with the inputs.
        """
        count = x.shape[0]
        blocks = -(-count // BLOCK)
        if blocks == 1:
            return self.network(params, x)
        size = -(-count // blocks)
        padded = jnp.pad(x, [(0, blocks * size - count)] + [(0, 0)] * (x.ndim - 1), mode="edge")
        parts = padded.reshape(blocks, size, *x.shape[1:])
        values = jax.lax.map(jax.checkpoint(lambda part: self.network(params, part)), parts)
        return values.ravel()[:count]

    def sample_loss(self, params: Params, x: Array, y: Array) -> Scalar:
        residual = self._in_blocks(params, x) - y
        if self.loss == "squared":
            return jnp.mean(residual**2)
        square = jnp.sum(residual**2)
        # The norm has no derivative at an exact fit: zero is taken, so that the fit stays exact.
        positive = square > 0
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0) / y.shape[0]

    def best_outer(self, u: Array, *, ridge: float | Scalar = RIDGE) -> Array:
        """Return the a of least squares, which minimises either loss."""
        features = self.network.features(u, jnp.asarray(self.x))
        count = features.shape[0]
        flat = jnp.reshape(features, (count, -1))
        # The ridge would pull the bias from a large common value of all labels to 0.
        offset = jnp.asarray(self.y)[0] if has_bias(self.network) else 0.0
        moments = (jnp.asarray(self.y) - offset) @ flat / count
        a = solve_gram(flat.T @ flat / count, moments, ridge=ridge).at[0].add(offset)
        return jnp.reshape(a, features.shape[1:])

    def check(self, params: Params) -> None:
        self.network.check(params)
        wanted = self.network.input_shape(params.u)
        if len(wanted) != self.x.ndim - 1:
            expected = "of shape (N, d)" if wanted else "of shape (N,)"
            kind = type(self.network).__name__
            raise argument_error("x", f"{expected} for a {kind}", f"of shape {self.x.shape}")
        if self.x.shape[1:] != wanted:
            raise argument_error(
                "params.u",
                f"made for inputs x of shape {self.x.shape}",
                f"of shape {np.shape(params.u)}",
            )
        positions = self.network.positions(params.u)
        if positions is not None and np.size(positions) and is_concrete(positions):
            self.warn_off_scale(*_range_of(positions))

    def warn_off_scale(self, low: float, high: float) -> None:
        # Starts elsewhere than on [0, 1] are somebody's choice, who knows the inputs.
        if not is_concrete(self.x) or low < 0 or high > 1:
            return
        least, most = _range_of(self.x)
        if least < 0 or most > 1 or 0 < most - least < _SMALL_RANGE:
            warnings.warn(
                f"The inputs `x` lie in [{least:g}, {most:g}], but all neurons start in [0, 1]: "
                "there hardly any neuron is where the inputs are. Scale the inputs, such as by "
                "`(x - x.min()) / (x.max() - x.min())`, or start with neurons where inputs are.",
                OffScaleWarning,
                stacklevel=5,
            )


_SMALL_RANGE = 0.05
"""Part of [0, 1] below which inputs are off the scale: few of 20 neurons start among them."""


def _range_of(values: Array) -> tuple[float, float]:
    numbers = np.asarray(values)  # else NumPy asks JAX, which compiles
    return float(numbers.min()), float(numbers.max())


def sample_problem(
    key: Key,
    network: AbstractNetwork,
    target: AbstractLabels,
    count: int,
    *,
    inputs: int | None = None,
    loss: Literal["squared", "norm"] = "squared",
) -> EmpiricalProblem:
    """Return an `EmpiricalProblem` on `count` inputs, labelled by the target without noise.

    The inputs are drawn from U[0, 1], or from U[0, 1]^inputs if `inputs` is given.

    **Raises:** `ValueError` for bad arguments, and for more numbers than there is memory for,
    before anything is drawn.
    """
    check_key("key", key)
    check_type("network", network, AbstractNetwork)
    check_type("target", target, AbstractLabels, hint=" (tts.Function wraps a function)")
    count = as_whole("count", count)
    inputs = None if inputs is None else as_whole("inputs", inputs)
    if inputs is not None and isinstance(network, AbstractOneInputNetwork):
        expected = f"None for a {type(network).__name__}, which has one input"
        raise argument_error("inputs", expected, inputs)
    shape = (count,) if inputs is None else (count, inputs)
    larger = "count" if inputs is None or inputs < count else "inputs"
    check_memory(larger, math.prod(shape), at_once=_AT_ONCE)
    _check_labels(target, shape)
    x = jax.random.uniform(key, shape)
    return EmpiricalProblem(network, x, target(x), loss=loss)


_AT_ONCE = 4
"""Copies of the inputs, about, while they are drawn and labelled."""


def _check_labels(target: AbstractLabels, shape: tuple[int, ...]) -> None:
    """Raise unless a target has a label for each input. It is traced, and not computed."""
    expected = f"one that labels inputs of shape {shape}"
    asked = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
    try:
        # A function of the package around it: JAX would keep a reference to the user's object.
        found = jax.eval_shape(lambda x: target(x), asked).shape
    except Exception as error:  # of the user's target, which may fail in any way
        got = f"a {type(target).__name__}, which fails with {type(error).__name__}"
        raise argument_error("target", expected, got) from error
    if found != shape[:1]:
        got = f"a {type(target).__name__}, which returns labels of shape {found}"
        raise argument_error("target", expected, got)
