"""The gradient flow of a risk with a dense Hessian, as an ODE system for the Rosenbrock method."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .._types import Array, Float, Scalar, Tree
from ..models.network import Params
from ..numerics.symmetric import symmetric_solver
from .hessian_system import AbstractHessianSystem

MOST_DENSE = 500
"""Parameters up to which a dense Hessian is formed without asking what it costs."""


class AbstractGradientSystem(AbstractHessianSystem):
    """The system epsilon da/dtau = -grad_a L, du/dtau = -grad_u L, for a gradient and Hessian of L.

    Subclasses write both. A state is `Params`, of any pytrees of float64 arrays. For epsilon = 0
    the outer layer has no mass: it solves its normal equations. A ridge, which keeps the solution
    finite, adds `damping` times a to the gradient by a, and nothing to that by u.
    """

    epsilon: eqx.AbstractVar[Scalar]

    @abc.abstractmethod
    def gradient(self, params: Params) -> Params:
        """Return the gradient of L."""

    @abc.abstractmethod
    def hessian(self, params: Params) -> Float[Array, "P P"]:
        """Return the Hessian of L by all P parameters, in the order of `ravel_pytree(params)`."""

    @abc.abstractmethod
    def damping(self, params: Params) -> Tree:
        """Return the damping of every outer weight, as a pytree like a.

        That is 2 ridge times the mean square of the weight's feature, or zeros without a ridge.
        """

    def vector_field(self, y: Params) -> Params:
        by_a, by_u = self.gradient(y)
        by_a = jax.tree.map(lambda g, d, a: g + d * a, by_a, self.damping(y), y.a)
        return jax.tree.map(jnp.negative, Params(by_a, by_u))

    def apply_mass(self, y: Params) -> Params:
        return Params(jax.tree.map(lambda leaf: self.epsilon * leaf, y.a), y.u)

    def factorise(self, y: Params, shift: Scalar) -> Callable[[Params], Params]:
        unravel = ravel_pytree(y)[1]
        solve = symmetric_solver(self.hessian(y) + jnp.diag(self.diagonal(y, shift)))
        return lambda r: unravel(solve(ravel_pytree(r)[0]))

    def diagonal(self, y: Params, shift: Scalar) -> Float[Array, " P"]:
        mass = self.apply_mass(jax.tree.map(jnp.ones_like, y))
        added = Params(
            jax.tree.map(lambda m, d: shift * m + d, mass.a, self.damping(y)),
            jax.tree.map(lambda m: shift * m, mass.u),
        )
        return ravel_pytree(added)[0]

    def velocity(self, y: Params) -> Params:
        by_a, by_u = self.vector_field(y)
        return Params(jax.tree.map(lambda leaf: fast_velocity(leaf, self.epsilon), by_a), by_u)

    def error_norm(
        self, error: Params, before: Params, after: Params, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        error_, before_, after_ = (ravel_pytree(tree)[0] for tree in (error, before, after))
        size = jnp.maximum(jnp.abs(before_), jnp.abs(after_))
        return jnp.sqrt(jnp.mean((error_ / (atol + rtol * size)) ** 2))


def fast_velocity(vector_field: Array, epsilon: Scalar) -> Array:
    """Return the velocity of a variable with mass epsilon, zero where epsilon is 0."""
    moving = epsilon > 0
    return jnp.where(moving, vector_field / jnp.where(moving, epsilon, 1.0), 0.0)
