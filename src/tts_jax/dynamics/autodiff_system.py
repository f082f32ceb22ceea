"""The gradient flow of any risk as an ODE system, with its Hessian by automatic differentiation."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .._types import Scalar, Times
from ..batching.sequential import in_turn
from ..closed_forms.pairwise import PairwiseRisk
from ..integrators.rosenbrock import AbstractRosenbrockSystem
from ..models.activations import AbstractStep
from ..models.network import Params
from ..models.shallow import ShallowNetwork
from ..models.targets import PiecewiseConstant
from ..numerics.symmetric import symmetric_solver
from ..problems.base import AbstractProblem
from ..problems.population import Problem

_MOST_JUMPS = 64
"""The closed form is written out over the jumps: with more, it would take long to compile."""


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


def step_risk(problem: AbstractProblem) -> PairwiseRisk | None:
    """The risk of a problem in closed form, where it has one."""
    if type(problem) is not Problem:
        return None
    network, target = problem.network, problem.target
    if not isinstance(network, ShallowNetwork) or not isinstance(target, PiecewiseConstant):
        return None
    if not network.bias or not isinstance(network.activation, AbstractStep):
        return None
    return (
        PairwiseRisk(network.activation, target) if np.size(target.jumps) <= _MOST_JUMPS else None
    )


def risks(problem: AbstractProblem, params: Params) -> Times:
    """(T,) the risk of parameters with a leading axis (T,)."""
    risk = step_risk(problem)
    if risk is None:
        return jax.vmap(problem.risk)(params)
    numbers, rest = eqx.partition(risk, eqx.is_inexact_array)
    return in_turn(lambda n, ys: jax.lax.map(eqx.combine(n, rest), ys))(numbers, params)
