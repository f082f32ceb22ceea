"""The gradient flow with a rate for each inner parameter, as an ODE system."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .._types import Scalar, Tree
from ..closed_forms.base import AbstractClosedForm
from ..closed_forms.hessian_system import AbstractHessianSystem
from ..integrators.rosenbrock import AbstractRosenbrockSystem
from ..numerics.symmetric import symmetric_solver


class RatedSystem(AbstractRosenbrockSystem):
    """The system epsilon da/dtau = -grad_a L, du/dtau = -rates grad_u L, of one without rates.

    `rates`: a tree like u of arrays of its shapes, at least 0.

    With u = sqrt(rates) v it is the plain gradient flow of v, whose Hessian is that of u times
    sqrt(rates) on both sides. So the matrix of a solver's step is symmetric here too, and is solved
    for v, while states, errors and tolerances are those of u.
    """

    system: AbstractHessianSystem
    rates: Tree

    def vector_field(self, y: Tree) -> Tree:
        return self._rated(self.system.vector_field(y))

    def apply_mass(self, y: Tree) -> Tree:
        return self.system.apply_mass(y)

    def factorise(self, y: Tree, shift: Scalar) -> Callable[[Tree], Tree]:
        # The root leaf by leaf: that of a rate of 0 has no derivative, which nobody asks for where
        # only other leaves have a derivative.
        roots = jax.tree.map(jnp.ones_like, y)._replace(u=jax.tree.map(jnp.sqrt, self.rates))
        root, unravel = ravel_pytree(roots)
        scaled = root[:, None] * self.system.hessian(y) * root[None, :]
        solve = symmetric_solver(scaled + jnp.diag(self.system.diagonal(y, shift)))
        # What rests has a right-hand side of 0 and stays there.
        moves = root > 0
        inverse = jnp.where(moves, 1.0 / jnp.where(moves, root, 1.0), 0.0)
        return lambda r: unravel(root * solve(inverse * ravel_pytree(r)[0]))

    def velocity(self, y: Tree) -> Tree:
        return self._rated(self.system.velocity(y))

    def error_norm(
        self, error: Tree, before: Tree, after: Tree, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        return self.system.error_norm(error, before, after, rtol, atol)

    def _rated(self, velocity: Tree) -> Tree:
        return velocity._replace(u=jax.tree.map(jnp.multiply, self.rates, velocity.u))


def takes_rates(form: AbstractClosedForm) -> bool:
    """Return whether the system of a closed form shows its Hessian, which rates are to scale."""
    none = jnp.zeros(())
    return isinstance(form.system(none, none), AbstractHessianSystem)
