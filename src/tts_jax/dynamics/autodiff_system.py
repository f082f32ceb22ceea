"""The gradient flow of any risk as an ODE system, with the Hessian by automatic differentiation."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .._types import Array, Float, Scalar, Tree
from ..closed_forms.gradient_system import AbstractGradientSystem
from ..models.network import Params
from ..problems.base import AbstractProblem


class AutodiffGradientSystem(AbstractGradientSystem):
    """The gradient flow of `problem.risk`, for epsilon > 0 and without a ridge.

    The Hessian takes as long as a few gradients for every parameter: see `recommend`.
    """

    problem: AbstractProblem
    epsilon: Scalar

    def gradient(self, params: Params) -> Params:
        return jax.grad(self.problem.risk)(params)

    def hessian(self, params: Params) -> Float[Array, "P P"]:
        flat, unravel = ravel_pytree(params)
        return jax.hessian(lambda flat: self.problem.risk(unravel(flat)))(flat)

    def damping(self, params: Params) -> Tree:
        return jax.tree.map(jnp.zeros_like, params.a)
