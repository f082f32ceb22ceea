"""The network of the paper: one input, one hidden layer, linear in its outer weights."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._types import Array, Float
from ..batching.summation import _sum, sum_rows
from .activations import AbstractActivation
from .network import AbstractOneInputNetwork, Params, check_shapes


class ShallowNetwork(AbstractOneInputNetwork):
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
        total = sum_rows if params.u.ndim > 1 else _sum
        if not self.bias:
            return total(outer * sigma)
        return outer[0] + total(outer[1:] * sigma)

    def outer_shape(self, u: Array) -> tuple[int, ...]:
        return (np.shape(u)[0] + int(self.bias),)

    def input_shape(self, u: Array) -> tuple[int, ...]:
        del u
        return ()

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
        check_shapes(self, params, 1, "(m,)")


def _beside(half: Array, u: Array, x: Array) -> Array:
    """Half of the parameters, (k, *runs), with axes of 1 for the inputs of x (*inputs, *runs)."""
    inputs = (1,) * (jnp.ndim(x) - (u.ndim - 1))
    return jnp.reshape(half, (half.shape[0], *inputs, *half.shape[1:]))
