"""The additive network of several inputs: a sum of networks of one input each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_type
from .._numbers import as_floats
from .._types import Array, Float
from ..numerics.products import product
from .activations import AbstractActivation
from .network import AbstractNetwork, Params, check_shapes


def _rows(activation: AbstractActivation, u: Array, columns: Array) -> Array:
    """Return z (d m, N) for u (d, m) and columns (d, N), with the N inputs on the last axis."""
    z = (columns[:, None, :] - u[:, :, None]) / activation.eta
    return z.reshape(-1, z.shape[-1])


def _plain_additive(activation: AbstractActivation, a: Array, u: Array, columns: Array) -> Array:
    return product(a.ravel(), activation(_rows(activation, u, columns)))


# The network with its derivative by a and u written as matrix products. Autodiff would sum over the
# inputs in one long chain of additions, which takes longer. Only z = (x - u)/eta is differentiated
# by hand, and a test holds the derivative equal to that of autodiff.
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
        tangent = tangent + product(by_a.ravel(), sigma)
    if by_u is not None:
        tangent = tangent - product((a * by_u / activation.eta).ravel(), slope)
    return product(a.ravel(), sigma), tangent


class AdditiveNetwork(AbstractNetwork):
    """The network f(x; a, u) = sum_{k, j} a_kj sigma((x_k - u_kj)/eta) of d inputs, without a bias.

    Parameters: u (d, m) and a (d, m). Inputs x: (..., d).
    """

    activation: AbstractActivation

    def features(self, u: Float[Array, "d m"], x: Array) -> Array:
        inner = jnp.reshape(u, (1,) * (jnp.ndim(x) - 1) + u.shape)
        return self.activation((x[..., None] - inner) / self.activation.eta)

    def __call__(self, params: Params, x: Array) -> Array:
        check_type("params", params, Params)
        x = as_floats("x", x)
        if x.shape[-1:] != np.shape(params.u)[:1]:
            expected = f"of shape (..., d) for u (d, m) of shape {np.shape(params.u)}"
            raise argument_error("x", expected, f"of shape {x.shape}")
        columns = x.reshape(-1, x.shape[-1]).T
        return _additive(self.activation, params.a, params.u, columns).reshape(x.shape[:-1])

    def outer_shape(self, u: Array) -> tuple[int, ...]:
        return np.shape(u)

    def input_shape(self, u: Array) -> tuple[int, ...]:
        return np.shape(u)[:1]

    def positions(self, u: Array) -> Array:
        return u

    def check(self, params: Params) -> None:
        check_shapes(self, params, 2, "(d, m)")
