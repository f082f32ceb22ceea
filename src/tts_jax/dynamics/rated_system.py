"""The gradient flow with a rate for each inner parameter, as an ODE system."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .._types import Array, Scalar, Tree
from ..closed_forms.base import AbstractClosedForm
from ..closed_forms.hessian_system import AbstractHessianSystem
from ..integrators.rosenbrock import AbstractRosenbrockSystem
from ..numerics.symmetric import symmetric_solver


class RatedSystem(AbstractRosenbrockSystem):
    """The system epsilon da/dtau = -grad_a L, du/dtau = -rates grad_u L, of one without rates.

    `rates`: a tree like u of arrays of its shapes, at least 0.

    With u = sqrt(rates) v it is the plain gradient flow of v, whose Hessian is that of u times
    sqrt(rates) on both sides. So the matrix of a solver's step is as good as symmetric, while
    states, errors and tolerances are those of u. Differentiable in the rates, also at 0.
    """

    system: AbstractHessianSystem
    rates: Tree

    def vector_field(self, y: Tree) -> Tree:
        return self._rated(self.system.vector_field(y))

    def apply_mass(self, y: Tree) -> Tree:
        return self.system.apply_mass(y)

    def factorise(self, y: Tree, shift: Scalar) -> Callable[[Tree], Tree]:
        ones = jax.tree.map(jnp.ones_like, y)
        rates, unravel = ravel_pytree(ones._replace(u=self.rates))
        hessian, added = self.system.hessian(y), self.system.diagonal(y, shift)
        solves = _solves(*jax.lax.stop_gradient((hessian, rates, added)))

        def solve(right: Tree) -> Tree:
            # By this product, and not by roots, which have no derivative at a rate of 0.
            def product(x: Array) -> Array:
                return added * x + rates * (hessian @ x)

            flat = ravel_pytree(right)[0]
            return unravel(jax.lax.custom_linear_solve(product, flat, *solves))

        return solve

    def velocity(self, y: Tree) -> Tree:
        return self._rated(self.system.velocity(y))

    def error_norm(
        self, error: Tree, before: Tree, after: Tree, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        return self.system.error_norm(error, before, after, rtol, atol)

    def _rated(self, velocity: Tree) -> Tree:
        return velocity._replace(u=jax.tree.map(jnp.multiply, self.rates, velocity.u))


def _solves(hessian: Array, rates: Array, added: Array) -> tuple[Callable, Callable]:
    """Return the functions that solve with A = diag(added) + diag(rates) hessian, and with A^T.

    With S = sqrt(rates), A S = S K for the symmetric K = diag(added) + S hessian S. Numbers at rest
    have a row of A with nothing but its diagonal.
    """
    root = jnp.sqrt(rates)
    solve = symmetric_solver(root[:, None] * hessian * root[None, :] + jnp.diag(added))
    rests = root == 0
    inverse = jnp.where(rests, 0.0, 1.0 / jnp.where(rests, 1.0, root))
    at_rest = jnp.where(rests, 1.0 / jnp.where(rests, added, 1.0), 0.0)

    def forward(_: Callable, right: Array) -> Array:
        still = at_rest * right
        return still + root * solve(inverse * right - root * (hessian @ still))

    def transposed(_: Callable, right: Array) -> Array:
        moving = solve(root * right)
        return inverse * moving + at_rest * (right - hessian @ (root * moving))

    return forward, transposed


def takes_rates(form: AbstractClosedForm) -> bool:
    """Return whether the system of a closed form shows its Hessian, which rates are to scale."""
    none = jnp.zeros(())
    return isinstance(form.system(none, none), AbstractHessianSystem)
