"""Integrals that the risk of a network of steps against a target of steps is made of."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Array, Scalar
from ..models.activations import AbstractStep
from ..models.targets import PiecewiseConstant


class ProductIntegrals(NamedTuple):
    """Integrals of products of two steps, one each, and their derivatives by their x."""

    value: Array
    by_first: Array
    by_both: Array
    twice: Array


class AbstractStepIntegrals(eqx.Module):
    """Steps at u, with x = u/eta, against a target of steps."""

    activation: AbstractStep
    target: PiecewiseConstant

    @property
    def eta(self) -> Array:
        return jnp.asarray(self.activation.eta)

    @property
    def per_eta(self) -> Array:
        """What to multiply by: a division for every number takes several times as long."""
        return 1.0 / self.eta

    def squares(self, u: Array) -> Array:
        """(m,) the square integrals of the steps, up to what 0 or 1 cuts off them.

        At least a hundredth of the transition width, also for a neuron beyond 1.
        """
        own = 1.0 - u - self.eta * self.activation.overlap(jnp.zeros(()))
        return jnp.clip(own, 0.01 * self.eta, 1.0)

    def _moments(self) -> tuple[Scalar, Scalar]:
        """The integrals of f* and of its square."""
        lengths = jnp.diff(jnp.asarray(self.target.jumps), prepend=0.0, append=1.0)
        values = jnp.asarray(self.target.values)
        return jnp.sum(lengths * values), jnp.sum(lengths * values**2)

    def _primitive(self, u: Array) -> Array:
        """(m,) F."""
        total = jnp.asarray(self.target.values)[0] * u
        for z, height in self._by_jump(u):
            total = total + height * self.eta * self.activation.primitive(z)
        return total

    def smoothed(self, u: Array) -> Array:
        """(m,) F', the target with steps in place of its jumps."""
        total = jnp.asarray(self.target.values)[0]
        for z, height in self._by_jump(u):
            total = total + height * self.activation(z)
        return total

    def slope(self, u: Array) -> Array:
        """(m,) F''."""
        return jax.jvp(self.smoothed, (u,), (jnp.ones_like(u),))[1]

    def _levels(self, u: Array) -> tuple[Array, Array]:
        """(m,) F' and eta F''.

        For matrices to add to: as products, which XLA does not compute again for every entry.
        """
        values, jumps = jnp.asarray(self.target.values), jnp.asarray(self.target.jumps)
        heights = self.target.heights
        steps, slopes = self._jet(self.per_eta * (u[:, None] - jumps[None, :]))
        return values[0] + steps @ heights, slopes @ heights

    def _by_jump(self, u: Array) -> list[tuple[Array, Array]]:
        # Written out and not one more axis: sums over a short axis are not vectorised.
        jumps, heights = jnp.asarray(self.target.jumps), self.target.heights
        return [(self.per_eta * (u - jumps[k]), heights[k]) for k in range(jumps.size)]

    def beyond(self, p: Array, q: Array) -> ProductIntegrals:
        """Integrals of sigma(y - p) sigma(y - q) over y < 0, for p and q of at least -1/2."""
        p, q = jnp.broadcast_arrays(p, q)
        ones, none = jnp.ones_like(q), jnp.zeros_like(q)

        def once(p: Array, q: Array) -> tuple[Array, Array]:
            return jax.jvp(self.activation.beyond, (p, q), (ones, none))

        (value, by_first), (_, by_both) = jax.jvp(once, (p, q), (none, ones))
        # By parts: the integral of sigma'', which jumps at a knot, would have no right derivative
        # where p = q.
        twice = self._jet(-p)[1] * self.activation(-q) - by_both
        return ProductIntegrals(value, by_first, by_both, twice)

    def overlap_jet(self, t: Array) -> tuple[Array, Array, Array]:
        """The overlap and its first two derivatives."""
        ones = jnp.ones_like(t)

        def once(t: Array) -> tuple[Array, Array]:
            return jax.jvp(self.activation.overlap, (t,), (ones,))

        (value, slope), (_, twice) = jax.jvp(once, (t,), (ones,))
        return value, slope, twice

    def _jet(self, z: Array) -> tuple[Array, Array]:
        """sigma and its derivative."""
        return jax.jvp(self.activation, (z,), (jnp.ones_like(z),))
