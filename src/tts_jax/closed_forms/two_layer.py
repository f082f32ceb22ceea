"""The gradient and the Hessian of a two-layer network's squared loss on a sample.

With features phi, pre-activations z, T = sigma'(z), r = f - y, s_i what sample i counts, X the
inputs with a 1 for the bias, c the factor of the sum over neurons, divided by eta, and
J = [phi, c T x X] (x: all products of a neuron's slope with an input),

    Hessian = 2 J^T diag(s) J, where what belongs to neuron j is multiplied by a_j
              + for each neuron, 2 sum_i s_i r_i (c T_ij X_i) between a_j and its inner weights,
                and 2 sum_i s_i r_i a_j (c / eta) sigma''(z_ij) X_i X_i^T among these.

All of it is one matrix product and a block for each neuron.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Float, Scalar, Times, Tree
from ..models.network import Params
from ..models.two_layer import TwoLayerNetwork
from ..numerics.products import product, summed_over_blocks
from .base import AbstractClosedForm
from .gradient_system import AbstractGradientSystem

_BLOCK = 2048
"""Samples that are worked on at once: more of them would not fit into the cache."""

_HESSIAN = 0.1
"""The time of a solver's step per parameter, in gradients of the risk. Measured, by the parts
`sample` and `flow` of benchmarks/general.py: .1 to .2."""


class Sample(NamedTuple):
    """Inputs x (N, d), targets y (N, K), and what each sample counts (N,), in all 1."""

    x: Array
    y: Array
    shares: Array


class TwoLayerSystem(AbstractGradientSystem):
    """The gradient flow of a `TwoLayerNetwork` on a sample; for epsilon = 0 the reduced flow."""

    network: TwoLayerNetwork
    sample: Sample
    penalty: Scalar
    common: Float[Array, " K"]
    """What the outer biases of a state lack."""
    epsilon: Scalar
    ridge: Scalar

    def gradient(self, params: Params) -> Params:
        a, outer, inner = self._halves(params)

        def of_block(sample: Sample) -> tuple[Array, Tree]:
            z, back = jax.vjp(lambda u: self.network.preactivations(u, sample.x), params.u)
            sigma, slope = _jet(self.network.activation, z)
            phi = self.network.features_of(sigma)
            weighted = sample.shares[:, None] * (product(phi, a) - sample.y)
            by_z = self._scale(z) * slope * product(weighted, inner.T)
            return product(phi.T, weighted), back(by_z)[0]

        by_a, by_u = self._summed(of_block)
        whole = a.at[:outer].add(self.common[None]) if outer else a
        by_a = 2 * (by_a + self.penalty * whole)
        return Params(by_a.reshape(params.a.shape), jax.tree.map(lambda leaf: 2 * leaf, by_u))

    def hessian(self, params: Params) -> Float[Array, "P P"]:
        a, outer, inner = self._halves(params)
        p, (m, d) = a.shape[0], np.shape(params.u["w"])

        def of_block(sample: Sample) -> tuple[Array, Array, Array]:
            z = self.network.preactivations(params.u, sample.x)
            (sigma, slope), bend = _jet(self.network.activation, z), _bend(self.network, z)
            phi, factor = (
                self.network.features_of(sigma),
                self._scale(z) / self.network.activation.eta,
            )
            with_one = self.network.inputs_of(sample.x)
            of_inner = factor * (slope[:, None, :] * with_one[:, :, None]).reshape(z.shape[0], -1)
            root = jnp.sqrt(sample.shares)[:, None]
            both = root * jnp.concatenate([phi, of_inner], axis=1)
            weighted = sample.shares[:, None] * (product(phi, a) - sample.y)
            curved = factor / self.network.activation.eta * bend * product(weighted, inner.T)
            blocks = jax.vmap(lambda c: product(with_one.T, c[:, None] * with_one))(curved.T)
            return product(both.T, both), product(weighted.T, of_inner), blocks

        gram, mixed, blocks = self._summed(of_block)
        size = gram.shape[0] - p  # of the inner weights, input by input and then by neuron
        inputs, outputs = size // m, a.shape[1]
        weights = jnp.tile(inner, (inputs, 1))
        by_u = gram[p:, p:] * (weights @ weights.T)
        eye = np.eye(m)
        blocks = blocks.transpose(1, 0, 2)[..., None] * eye[None, :, None]
        by_u = by_u.reshape(inputs, m, inputs, m) + blocks
        # For each output: of all features with the inner weights, then of a neuron with its own.
        by_a_u = gram[:p, p:][:, None, :] * weights.T[None]
        own = eye[:, None, None, :] * mixed.reshape(1, outputs, inputs, m)
        by_a_u = by_a_u.at[outer:].add(own.reshape(m, outputs, size))
        by_a = gram[:p, :p] + self.penalty * np.eye(p)
        by_a = jnp.kron(by_a, np.eye(outputs))
        by_a_u, by_u = by_a_u.reshape(p * outputs, size), by_u.reshape(size, size)
        order = self._order(m, d)
        by_a_u, by_u = by_a_u[:, order], by_u[order][:, order]
        return 2 * jnp.block([[by_a, by_a_u], [by_a_u.T, by_u]])

    def damping(self, params: Params) -> Array:
        def of_block(sample: Sample) -> Array:
            return sample.shares @ self.network.features(params.u, sample.x) ** 2

        a, squares = params.a, self._summed(of_block)
        # A feature that vanishes gets the weight 0, as in `solve_gram`.
        squares = jnp.where(squares > 0, squares, 1.0).reshape(-1, *(1 for _ in a.shape[1:]))
        return 2 * self.ridge * jnp.broadcast_to(squares, a.shape)

    def _halves(self, params: Params) -> tuple[Array, int, Array]:
        """Return a (p, K), the number of outer biases, and the weights (m, K) of the neurons."""
        a, outer = params.a.reshape(params.a.shape[0], -1), int(self.network.outer_bias)
        return a, outer, a[outer:]

    def _scale(self, z: Array) -> float:
        return self.network.scale(z.shape[-1])

    def _order(self, m: int, d: int) -> np.ndarray:
        """Return where the inner weights, in the order of `ravel_pytree`, stand input by input."""
        biases = np.arange(m) if self.network.bias else np.arange(0)
        weights = biases.size + np.arange(d * m).reshape(d, m).T.ravel()
        return np.concatenate([biases, weights])

    def _summed(self, of_block: Callable[[Sample], Tree]) -> Tree:
        """Return the sum of what blocks of the sample add."""
        return summed_over_blocks(of_block, self.sample, _BLOCK)


class TwoLayerForm(AbstractClosedForm):
    """The risk of a `TwoLayerNetwork` on a sample, for flows with a dense Hessian.

    In a state the outer bias is less the first targets, and so are all targets: the ridge of a
    reduced flow would pull the bias from a large common value of all targets to 0.
    """

    network: TwoLayerNetwork
    sample: Sample
    penalty: Scalar
    risk: Callable[[Params], Scalar]

    def to_state(self, params: Params) -> tuple[Params, Any]:
        a, u = jax.tree.map(jnp.asarray, params)
        return Params(self._raised(a, a.ndim, -1.0), u), a.ndim

    def to_params(self, states: Params, kept: Any) -> Params:
        return states._replace(a=self._raised(states.a, kept, 1.0))

    def _common(self) -> Float[Array, " K"]:
        """Return what is taken out of the outer bias and of all targets."""
        first = self.sample.y[0]
        return first if self.network.outer_bias else jnp.zeros_like(first)

    def _raised(self, a: Array, axes: int, sign: float) -> Array:
        """Return the outer weights, with any leading axes before their own, the bias raised."""
        if not self.network.outer_bias:
            return a
        place = (..., 0, *(slice(None) for _ in range(axes - 1)))
        return a.at[place].add(sign * self._common().reshape(a.shape[a.ndim - axes + 1 :]))

    def system(self, epsilon: Scalar, ridge: Scalar) -> TwoLayerSystem:
        return TwoLayerSystem(
            network=self.network,
            sample=self.sample._replace(y=self.sample.y - self._common()[None]),
            penalty=self.penalty,
            common=self._common(),
            epsilon=epsilon,
            ridge=ridge,
        )

    def risks(self, params: Params) -> Times:
        return jax.lax.map(self.risk, params)

    def hessian_work(self) -> float:
        return _HESSIAN

    def relative_work(self, width: int) -> float:
        count, inputs = self.sample.x.shape
        return (1 + count / 2e3) * (width * (inputs + 2) / 40) ** 2


def _jet(activation: Callable[[Array], Array], z: Array) -> tuple[Array, Array]:
    """Return sigma and its derivative."""
    return jax.jvp(activation, (z,), (jnp.ones_like(z),))


def _bend(network: TwoLayerNetwork, z: Array) -> Array:
    """Return the second derivative of sigma."""
    ones = jnp.ones_like(z)
    return jax.jvp(lambda z: _jet(network.activation, z)[1], (z,), (ones,))[1]


def parameters_of(network: TwoLayerNetwork, width: int, inputs: int, outputs: int) -> int:
    """Return how many numbers a network of this size has."""
    return outputs * (width + int(network.outer_bias)) + width * (inputs + int(network.bias))
