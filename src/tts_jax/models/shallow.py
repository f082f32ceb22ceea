"""The network of the paper: one input, one hidden layer, linear in its outer weights."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._errors import check_type
from .._numbers import as_floats, flag
from .._types import Array, Float
from ..batching.summation import plain_sum, sum_rows
from .activations import AbstractActivation
from .network import AbstractOneInputNetwork, Params, check_shapes


class ShallowNetwork(AbstractOneInputNetwork):
    """The network f(x; a, u) = a_0 + sum_j a_j sigma((x - u_j)/eta) of one input.

    Parameters: u (m,), in any order, and a (m+1,) with the bias a_0 first, or a (m,) where
    `bias=False`. Inputs x: any shape.
    """

    activation: AbstractActivation
    bias: bool = eqx.field(static=True, default=True, kw_only=True, converter=flag("bias"))

    def _sigma(self, u: Array, x: Array) -> Array:
        """Return the activations of the neurons, (m, *x.shape)."""
        return self.activation((x[None] - _add_input_axes(u, u, x)) * (1.0 / self.activation.eta))

    def features(self, u: Float[Array, " m"], x: Array) -> Array:
        sigma = jnp.moveaxis(self._sigma(u, x), 0, -1)
        if not self.bias:
            return sigma
        return jnp.concatenate([jnp.ones((*x.shape, 1), sigma.dtype), sigma], axis=-1)

    def __call__(self, params: Params, x: Array) -> Array:
        """Return f(x), of the shape of x.

        Runs may stand on the last axis: a (m+1, R), u (m, R) and x (..., R).
        """
        check_type("params", params, Params)
        x = as_floats("x", x)
        outer = _add_input_axes(params.a, params.u, x)
        sigma = self._sigma(params.u, x)
        total = sum_rows if params.u.ndim > 1 else plain_sum
        if not self.bias:
            return total(outer * sigma)
        return outer[0] + total(outer[1:] * sigma)

    def has_outer_bias(self) -> bool:
        # Not for a subclass by the user, whose features may be others.
        return type(self) is ShallowNetwork and self.bias

    def outer_shape(self, u: Array) -> tuple[int, ...]:
        return (np.shape(u)[0] + int(self.bias),)

    def input_shape(self, u: Array) -> tuple[int, ...]:
        del u
        return ()

    def cuts(self, u: Float[Array, " m"]) -> Array:
        shifts = jnp.asarray(self.activation.knots, u.dtype) * self.activation.eta
        return jnp.reshape(u[:, None] + shifts[None, :], -1)

    def positions(self, u: Array) -> Array:
        return u

    def check(self, params: Params) -> None:
        check_shapes(self, params, 1, "(m,)")


def _add_input_axes(values: Array, u: Array, x: Array) -> Array:
    """Return a or u, (k, *runs), as (k, 1, ..., 1, *runs), to combine with x (*inputs, *runs)."""
    inputs = (1,) * (jnp.ndim(x) - (u.ndim - 1))
    return jnp.reshape(values, (values.shape[0], *inputs, *values.shape[1:]))
