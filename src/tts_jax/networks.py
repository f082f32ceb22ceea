"""Networks with one hidden layer, linear in their outer weights."""

import abc
import numbers
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._errors import argument_error, check_finite, check_type
from ._types import Array, Float, Key, Tree
from .activations import AbstractActivation

_ROWS = 10
"""Rows that a turn of a loop over rows adds: few turns, and none so long that it spills."""


class Params(NamedTuple):
    """The two halves of the parameters: `a`, trained fast, and `u`, trained slowly.

    Each is an array or any pytree. In a trajectory both carry a leading axis of recorded times.
    """

    a: Tree
    u: Tree


class AbstractNetwork(eqx.Module):
    """A network f(x; a, u) = sum over the entries of a of a * features(u, x)."""

    activation: eqx.AbstractVar[AbstractActivation]

    def __check_init__(self):
        check_type("activation", self.activation, AbstractActivation)

    @abc.abstractmethod
    def features(self, u: Array, x: Array) -> Array:
        """What the outer layer sees: the axes of the inputs, then those of a."""

    @abc.abstractmethod
    def outer_shape(self, u: Array) -> tuple[int, ...]:
        """The shape of a that belongs to u."""

    @abc.abstractmethod
    def cuts(self, u: Array) -> Array:
        """Inputs (k,) where the pieces of the network meet, for a network of one input."""

    @abc.abstractmethod
    def check(self, params: Params) -> None:
        """Raise `ValueError` unless the shapes of the parameters fit the network."""

    @abc.abstractmethod
    def __call__(self, params: Params, x: Array) -> Array:
        """f(x), of the shape of the axes of inputs."""


class ShallowNetwork(AbstractNetwork):
    """One input: f(x; a, u) = a_0 + sum_j a_j sigma((x - u_j)/eta).

    Parameters: u (m,), in any order, and a (m+1,) with the bias a_0 first, or a (m,) where
    `bias=False`. Inputs x: any shape.
    """

    activation: AbstractActivation
    bias: bool = eqx.field(static=True, default=True, kw_only=True)

    def _sigma(self, u: Array, x: Array) -> Array:
        """What the neurons do, (m, *x.shape): inputs and runs fill the vector lanes."""
        return self.activation((x[None] - _beside(u, u, x)) * (1.0 / self.activation.eta))

    def features(self, u: Float[Array, " m"], x: Array) -> Array:
        sigma = jnp.moveaxis(self._sigma(u, x), 0, -1)
        if not self.bias:
            return sigma
        return jnp.concatenate([jnp.ones((*x.shape, 1), sigma.dtype), sigma], axis=-1)

    def __call__(self, params: Params, x: Array) -> Array:
        """f(x), of the shape of x; for R runs side by side a (m+1, R), u (m, R) and x (..., R)."""
        outer = _beside(params.a, params.u, x)
        sigma = self._sigma(params.u, x)
        total = _sum_rows if params.u.ndim > 1 else _sum
        if not self.bias:
            return total(outer * sigma)
        return outer[0] + total(outer[1:] * sigma)

    def outer_shape(self, u: Array) -> tuple[int, ...]:
        return (np.shape(u)[0] + int(self.bias),)

    def padded(self, params: Params, multiple: int) -> tuple["ShallowNetwork", Params]:
        """The same function and gradients by as many outer weights as neurons, a round number.

        For steps from 0 to 1. The bias becomes the weight of a neuron far left, and neurons far
        right, with weight 0, fill up: their derivatives are zero. `unpadded` undoes it.
        """
        far = 2.0 + 1e3 * jnp.asarray(self.activation.eta, params.u.dtype)
        count = params.a.shape[0]
        more = -count % multiple
        left = jnp.full(count - params.u.shape[0], -far)
        u = jnp.concatenate([left, params.u, jnp.full(more, far)])
        return ShallowNetwork(self.activation, bias=False), Params(jnp.pad(params.a, (0, more)), u)

    def unpadded(self, params: Params, width: int) -> Params:
        """The parameters of `width` neurons out of those that `padded` made, on the last axis."""
        first = int(self.bias)
        return Params(params.a[..., : width + first], params.u[..., first : width + first])

    def cuts(self, u: Float[Array, " m"]) -> Array:
        shifts = jnp.asarray(self.activation.knots, u.dtype) * self.activation.eta
        return jnp.reshape(u[:, None] + shifts[None, :], -1)

    def check(self, params: Params) -> None:
        _check_shapes(self, params, 1, "(m,)")


def _sum(rows: Array) -> Array:
    # Not a matrix product: XLA folds a sum into the SGD loop around, a product it does not.
    return jnp.sum(rows, axis=0)


@jax.custom_jvp
def _sum_rows(rows: Array) -> Array:
    """The same, a row at a time: XLA's sum has the neurons of a run in the vector lanes."""
    whole = rows.shape[0] // _ROWS

    def more(i: Array, total: Array) -> Array:
        return total + pairwise_sum(list(jax.lax.dynamic_slice_in_dim(rows, i * _ROWS, _ROWS)))

    total = jnp.zeros(rows.shape[1:], rows.dtype)
    if whole:
        total = jax.lax.fori_loop(0, whole, more, total)
    rest = list(rows[whole * _ROWS :])
    return total + pairwise_sum(rest) if rest else total


def pairwise_sum(rows: list[Array]) -> Array:
    """The sum of some arrays of one shape."""
    # One after the other each addition waits for the one before, which few runs cannot hide.
    while len(rows) > 1:
        pairs = [a + b for a, b in zip(rows[::2], rows[1::2], strict=False)]
        rows = pairs + rows[2 * len(pairs) :]
    return rows[0]


@_sum_rows.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _sum_rows(*primals), _sum(*tangents)


def _beside(half: Array, u: Array, x: Array) -> Array:
    """Half of the parameters, (k, *runs), with axes of 1 for the inputs of x (*inputs, *runs)."""
    inputs = (1,) * (jnp.ndim(x) - (u.ndim - 1))
    return jnp.reshape(half, (half.shape[0], *inputs, *half.shape[1:]))


def _rows(activation: AbstractActivation, u: Array, columns: Array) -> Array:
    """z (d m, N) for u (d, m) and columns (d, N): the inputs fill the vector lanes."""
    z = (columns[:, None, :] - u[:, :, None]) / activation.eta
    return z.reshape(-1, z.shape[-1])


def _plain_additive(activation: AbstractActivation, a: Array, u: Array, columns: Array) -> Array:
    return _dot(a.ravel(), activation(_rows(activation, u, columns)))


def _dot(weights: Array, rows: Array) -> Array:
    return jnp.matmul(weights, rows, precision="highest")


# The layer as autodiff would have it, with its derivative by a and u written as matrix products:
# autodiff's own sum over the inputs is one long chain of additions, which XLA leaves as it is.
# Nothing is differentiated by hand but z = (x - u)/eta, and a test holds the two equal.
_additive = eqx.filter_custom_jvp(_plain_additive)


@_additive.def_jvp
def _additive_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    activation, a, u, columns = primals
    by_activation, by_a, by_u, by_columns = tangents
    if jax.tree.leaves((by_activation, by_columns)):
        return eqx.filter_jvp(_plain_additive, primals, tangents)
    z = _rows(activation, u, columns)
    sigma, slope = jax.jvp(activation, (z,), (jnp.ones_like(z),))
    tangent = jnp.zeros(z.shape[1:], z.dtype)
    if by_a is not None:
        tangent = tangent + _dot(by_a.ravel(), sigma)
    if by_u is not None:
        tangent = tangent - _dot((a * by_u / activation.eta).ravel(), slope)
    return _dot(a.ravel(), sigma), tangent


class AdditiveNetwork(AbstractNetwork):
    """d inputs: f(x; a, u) = sum_{k, j} a_kj sigma((x_k - u_kj)/eta), without a bias.

    Parameters: u (d, m) and a (d, m). Inputs x: (..., d).
    """

    activation: AbstractActivation

    def features(self, u: Float[Array, "d m"], x: Array) -> Array:
        inner = jnp.reshape(u, (1,) * (jnp.ndim(x) - 1) + u.shape)
        return self.activation((x[..., None] - inner) / self.activation.eta)

    def __call__(self, params: Params, x: Array) -> Array:
        columns = x.reshape(-1, x.shape[-1]).T
        return _additive(self.activation, params.a, params.u, columns).reshape(x.shape[:-1])

    def outer_shape(self, u: Array) -> tuple[int, ...]:
        return np.shape(u)

    def cuts(self, u: Array) -> Array:
        raise NotImplementedError("An AdditiveNetwork has d inputs: its cuts are not points.")

    def check(self, params: Params) -> None:
        _check_shapes(self, params, 2, "(d, m)")


def _check_shapes(network: AbstractNetwork, params: Params, inner_axes: int, what: str) -> None:
    for name, half in (("params.a", params.a), ("params.u", params.u)):
        if not hasattr(half, "dtype"):
            raise argument_error(name, "one array", f"a {type(half).__name__}")
    if np.ndim(params.u) != inner_axes:
        raise argument_error("params.u", f"of shape {what}", f"of shape {np.shape(params.u)}")
    expected = type(network).outer_shape(network, params.u)  # see `simulate`
    if np.shape(params.a) != expected:
        raise argument_error(
            "params.a",
            f"of shape {expected} for inner positions of shape {np.shape(params.u)}",
            f"of shape {np.shape(params.a)}",
        )
    for name, half in (("params.a", params.a), ("params.u", params.u)):
        if not jnp.issubdtype(half.dtype, jnp.floating):
            raise argument_error(name, "of a floating dtype", f"of {half.dtype}")
    check_finite("params.a", params.a)
    check_finite("params.u", params.u)


def init_uniform(key: Key, width: int) -> Params:
    """The start of the paper for a `ShallowNetwork`: u sorted i.i.d. U[0, 1], a = 0.

    **Returns:** Params(a=(width+1,), u=(width,)).
    """
    check_type("key", key, jax.Array, hint=", a jax.random.key")
    if not isinstance(width, numbers.Integral) or width < 1:
        raise argument_error("width", "a whole number of at least 1", width)
    return Params(a=jnp.zeros(width + 1), u=jnp.sort(jax.random.uniform(key, (width,))))
