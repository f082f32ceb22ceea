"""The gradient flow of any risk as an ODE system, with its Hessian by automatic differentiation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .._types import Scalar
from ..integrators.rosenbrock import AbstractRosenbrockSystem
from ..models.network import Params
from ..numerics.symmetric import symmetric_solver
from ..problems.base import AbstractProblem


class AutodiffGradientSystem(AbstractRosenbrockSystem):
    """epsilon da/dtau = -grad_a L, du/dtau = -grad_u L, for any risk: its Hessian by autodiff."""

    problem: AbstractProblem
    epsilon: Scalar

    def vector_field(self, y: Params) -> Params:
        return jax.tree.map(jnp.negative, jax.grad(self.problem.risk)(y))

    def apply_mass(self, y: Params) -> Params:
        return Params(jax.tree.map(lambda leaf: self.epsilon * leaf, y.a), y.u)

    def factorise(self, y: Params, shift: Scalar) -> Callable[[Params], Params]:
        flat, whole = ravel_pytree(y)
        apply_mass = ravel_pytree(self.apply_mass(jax.tree.map(jnp.ones_like, y)))[0]
        hessian = jax.hessian(lambda flat: self.problem.risk(whole(flat)))(flat)
        solve = symmetric_solver(hessian + jnp.diag(shift * apply_mass))
        return lambda r: whole(solve(ravel_pytree(r)[0]))

    def velocity(self, y: Params) -> Params:
        vector_field = self.vector_field(y)
        return Params(
            jax.tree.map(lambda leaf: leaf / self.epsilon, vector_field.a), vector_field.u
        )

    def error(
        self, error: Params, before: Params, after: Params, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        error_, before_, after_ = (ravel_pytree(tree)[0] for tree in (error, before, after))
        size = jnp.maximum(jnp.abs(before_), jnp.abs(after_))
        return jnp.sqrt(jnp.mean((error_ / (atol + rtol * size)) ** 2))
