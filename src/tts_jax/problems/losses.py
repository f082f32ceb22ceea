"""Losses of a sample: how far predictions are from targets, sample by sample.

| name | f | y | loss of a sample |
|---|---|---|---|
| squared | (n,) or (n, K) | as f | the squared distance of f and y, without a factor 1/2 |
| huber | (n,) or (n, K) | as f | the sum of r^2/2 where abs(r) <= 1, of abs(r) - 1/2 elsewhere |
| logistic | (n,) | 0 to 1 | log(1 + e^f) - y f: f is the logit of y = 1 |
| softmax | (n, K) | (n,) classes 0 to K-1, or (n, K) shares | cross-entropy of softmax(f) |
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, is_concrete
from .._types import Array, Float

Loss = Callable[[Array, Array], Float[Array, " n"]]


def squared(f: Array, y: Array) -> Float[Array, " n"]:
    """Return the squared distance (n,) of f and y."""
    _check_shapes(f, y)
    return _by_sample((f - y) ** 2)


def huber(f: Array, y: Array) -> Float[Array, " n"]:
    """Return Huber's loss (n,), which large residuals enter with the power 1."""
    import optax  # here, since it takes long to import

    _check_shapes(f, y)
    return _by_sample(optax.losses.huber_loss(f, y))


def logistic(f: Float[Array, " n"], y: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return the cross-entropy (n,) of y, a probability, and the logistic function of f."""
    import optax

    _check_shapes(f, y)
    return optax.losses.sigmoid_binary_cross_entropy(f, y)


def softmax(f: Float[Array, "n K"], y: Array) -> Float[Array, " n"]:
    """Return the cross-entropy (n,) of y, classes or shares of classes, and softmax(f)."""
    import optax

    if f.ndim != 2 or (y.ndim == 2 and y.shape != f.shape):
        expected = f"of shape (n, K) for targets of shape {y.shape}"
        raise argument_error("params.a", expected, f"such that outputs have the shape {f.shape}")
    shares = jax.nn.one_hot(y.astype(jnp.int32), f.shape[1], dtype=f.dtype) if y.ndim == 1 else y
    return optax.losses.softmax_cross_entropy(f, shares)


LOSSES: dict[str, Loss] = {
    "squared": squared,
    "huber": huber,
    "logistic": logistic,
    "softmax": softmax,
}


def check_targets(loss: str, y: Array) -> None:
    """Raise `ValueError` unless y are targets of a loss, as far as their numbers are known."""
    if loss == "logistic" and np.ndim(y) != 1:
        raise argument_error("y", "of shape (N,) for a logistic loss", f"of shape {np.shape(y)}")
    if loss not in ("logistic", "softmax") or not is_concrete(y) or not np.size(y):
        return
    numbers = np.asarray(y)
    low, high = float(numbers.min()), float(numbers.max())
    if loss == "logistic" and (low < 0 or high > 1):
        raise argument_error("y", "from 0 to 1 for a logistic loss", f"from {low:g} to {high:g}")
    if loss == "softmax" and numbers.ndim == 1:
        if low < 0 or np.any(numbers != np.round(numbers)):
            raise argument_error("y", "classes 0, 1, ... for a softmax loss", f"{numbers[:5]} ...")
    elif loss == "softmax" and numbers.shape[1] == 1:
        raise argument_error("y", "of shape (N,) for classes (`y[:, 0]`)", f"of {numbers.shape}")
    elif loss == "softmax" and (low < 0 or np.any(np.abs(numbers.sum(axis=1) - 1) > 1e-6)):
        raise argument_error("y", "shares of classes that sum to 1 for a softmax loss", "others")


def outputs_for(loss: str, y: Array) -> tuple[int | None, ...]:
    """Return the axes of outputs that fit targets y: None is any number."""
    return (None,) if loss == "softmax" and np.ndim(y) == 1 else np.shape(y)[1:]


def _check_shapes(f: Array, y: Array) -> None:
    """Raise unless predictions and targets have one shape: else all would meet all others."""
    if f.shape != y.shape:
        expected = f"such that outputs have the shape of the targets, {y.shape}"
        raise argument_error("params.a", expected, f"such that they have {f.shape}")


def _by_sample(losses: Array) -> Float[Array, " n"]:
    """Return the sums (n,) over the outputs."""
    return jnp.sum(losses.reshape(losses.shape[0], -1), axis=1)
