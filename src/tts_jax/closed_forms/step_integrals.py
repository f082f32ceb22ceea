"""Integrals in the risk of a network with a step activation against a piecewise constant target.

f* is the target less its first value, which a bias takes up: with labels of a large common value
the integrals would be differences of much larger numbers. With jumps v_k of heights w_k,

    F(u) = eta sum_k w_k primitive((u - v_k)/eta).

F' is f* with its jumps replaced by steps of the activation. `primitive` and `overlap` are
those of `AbstractStep`.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Array, Scalar
from ..models.activations import AbstractStep
from ..models.targets import PiecewiseConstant


class ProductIntegrals(NamedTuple):
    """Integrals of products of two steps, and their derivatives by the positions x of the steps.

    `by_first`: by the first position; `by_both`: by either once; `twice`: by the first twice.
    """

    value: Array
    by_first: Array
    by_both: Array
    twice: Array


class AbstractStepIntegrals(eqx.Module):
    """Integrals of steps of an activation, at positions u or x = u/eta, and of a target."""

    activation: AbstractStep
    target: PiecewiseConstant

    @property
    def eta(self) -> Array:
        return jnp.asarray(self.activation.eta)

    @property
    def per_eta(self) -> Array:
        """The factor 1/eta: a division of every number by eta takes several times as long."""
        return 1.0 / self.eta

    @property
    def offset(self) -> Scalar:
        """The first value of the target."""
        return jnp.asarray(self.target.values)[0]

    @property
    def values(self) -> Array:
        """The values of f*, the first of which is 0."""
        return jnp.asarray(self.target.values) - self.offset

    @property
    def largest_value(self) -> Scalar:
        """The largest absolute value of the target."""
        return jnp.max(jnp.abs(jnp.asarray(self.target.values)))

    def squares(self, u: Array) -> Array:
        """Return the integrals (m,) of the squared steps, as if 0 and 1 cut none of them.

        They are at least a hundredth of the transition width, also for a neuron beyond 1.
        """
        uncut = 1.0 - u - self.eta * self.activation.overlap(jnp.zeros(()))
        return jnp.clip(uncut, 0.01 * self.eta, 1.0)

    def _moments(self) -> tuple[Scalar, Scalar]:
        """Return the integrals of f* and of its square."""
        lengths = jnp.diff(jnp.asarray(self.target.jumps), prepend=0.0, append=1.0)
        return jnp.sum(lengths * self.values), jnp.sum(lengths * self.values**2)

    def _primitive(self, u: Array) -> Array:
        """Return F (m,)."""
        total = jnp.zeros_like(u)
        for z, height in self._by_jump(u):
            total = total + height * self.eta * self.activation.primitive(z)
        return total

    def smoothed(self, u: Array) -> Array:
        """Return F' (m,), f* with steps in place of its jumps."""
        total = jnp.zeros_like(u)
        for z, height in self._by_jump(u):
            total = total + height * self.activation(z)
        return total

    def slope(self, u: Array) -> Array:
        """Return F'' (m,)."""
        return jax.jvp(self.smoothed, (u,), (jnp.ones_like(u),))[1]

    def _levels(self, u: Array) -> tuple[Array, Array]:
        """Return F' and eta F'' (m,), computed by matrix products.

        For use inside matrices (m, m): XLA computes a product once, but sums again for every entry.
        """
        jumps, heights = jnp.asarray(self.target.jumps), self.target.heights
        steps, slopes = self._jet(self.per_eta * (u[:, None] - jumps[None, :]))
        return steps @ heights, slopes @ heights

    def _by_jump(self, u: Array) -> list[tuple[Array, Array]]:
        # A list over the jumps and not one more axis: sums over a short axis are not vectorised.
        jumps, heights = jnp.asarray(self.target.jumps), self.target.heights
        return [(self.per_eta * (u - jumps[k]), heights[k]) for k in range(jumps.size)]

    def beyond(self, p: Array, q: Array) -> ProductIntegrals:
        """Return the integrals of sigma(y - p) sigma(y - q) over y < 0, for p, q at least -1/2."""
        p, q = jnp.broadcast_arrays(p, q)
        ones, zeros = jnp.ones_like(q), jnp.zeros_like(q)

        def by_p(p: Array, q: Array) -> tuple[Array, Array]:
            return jax.jvp(self.activation.beyond, (p, q), (ones, zeros))

        (value, by_first), (_, by_both) = jax.jvp(by_p, (p, q), (zeros, ones))
        # By integration by parts: the integral of sigma'', which jumps at a knot, has two
        # one-sided derivatives where p = q.
        twice = self._jet(-p)[1] * self.activation(-q) - by_both
        return ProductIntegrals(value, by_first, by_both, twice)

    def overlap_jet(self, t: Array) -> tuple[Array, Array, Array]:
        """Return the overlap and its first two derivatives."""
        ones = jnp.ones_like(t)

        def value_and_slope(t: Array) -> tuple[Array, Array]:
            return jax.jvp(self.activation.overlap, (t,), (ones,))

        (value, slope), (_, twice) = jax.jvp(value_and_slope, (t,), (ones,))
        return value, slope, twice

    def _jet(self, z: Array) -> tuple[Array, Array]:
        """Return sigma(z) and sigma'(z)."""
        return jax.jvp(self.activation, (z,), (jnp.ones_like(z),))
