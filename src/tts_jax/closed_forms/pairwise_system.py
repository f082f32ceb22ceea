"""The gradient flow of a `PairwiseRisk`, as a system that the Rosenbrock method integrates.

The matrix of a solver's step is symmetric: a multiple of the mass of the two layers plus the
Hessian of L.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Float, Scalar, Tree
from ..batching.gpu_dispatch import vmap_to_kernel
from ..batching.gpu_kernel import on_gpu
from ..integrators.rosenbrock import SolverStep, positions_passed, rosenbrock_step, valid_step
from ..integrators.step_adjoint import AbstractSymmetricSystem
from ..numerics.symmetric import LayeredMatrix, layered_solver
from .error_norm import largest, position_error
from .gpu_matrix import fits
from .gpu_step import steps_on_gpu
from .gradient_system import fast_velocity
from .hessian_system import AbstractHessianSystem
from .pairwise import PairwiseRisk, PairwiseState


class PairwiseGradientSystem(AbstractSymmetricSystem, AbstractHessianSystem):
    """The gradient flow of a `PairwiseRisk`; for epsilon = 0 that is the reduced flow.

    The ridge adds ridge * sum_i G_ii a_i^2, with G_ii the integral of the square of feature i and
    the bias less the first value of the target, to the function that a descends, and nothing to the
    one that u descends.
    """

    risk: PairwiseRisk
    epsilon: Scalar
    ridge: Scalar

    def vector_field(self, y: PairwiseState) -> PairwiseState:
        return self.vector_field_from(y, self.risk.gradient(y))

    def vector_field_from(self, y: PairwiseState, gradient: PairwiseState) -> PairwiseState:
        """Return the vector field at y, from the gradient of the risk there."""
        ridge = 2 * self.ridge
        return PairwiseState(
            -gradient.bias - ridge * (y.bias - self.risk.offset),
            -gradient.a - ridge * self.risk.squares(y.u) * y.a,
            -gradient.u,
        )

    def vector_field_transposed(self, y: PairwiseState, left: PairwiseState) -> PairwiseState:
        # The Hessian is symmetric, and its product takes half as long in forward mode. The ridge
        # adds a part that is not symmetric, since it acts on a only.
        by_risk = jax.jvp(self.risk.gradient, (y,), (left,))[1]
        zeros = jax.tree.map(jnp.zeros_like, y)
        by_ridge = jax.vjp(lambda y: self.vector_field_from(y, zeros), y)[1](left)[0]
        return jax.tree.map(jnp.subtract, by_ridge, by_risk)

    def apply_mass(self, y: PairwiseState) -> PairwiseState:
        return PairwiseState(self.epsilon * y.bias, self.epsilon * y.a, y.u)

    def factorise(
        self, y: PairwiseState, shift: Scalar
    ) -> Callable[[PairwiseState], PairwiseState]:
        solve = layered_solver(self._matrix(y, shift))
        return lambda r: PairwiseState(*solve((r.bias, r.a, r.u)))

    def bilinear(
        self, y: PairwiseState, shift: Scalar, lefts: PairwiseState, rights: PairwiseState
    ) -> Scalar:
        return self._matrix(y, shift).bilinear(lefts, rights)

    def _matrix(self, y: PairwiseState, shift: Scalar) -> LayeredMatrix:
        hessian = self.risk.hessian(y)
        stiffness, ridge = shift * self.epsilon, 2 * self.ridge
        by_a = stiffness + ridge * self.risk.squares(y.u)
        eye = np.eye(y.u.size)
        return LayeredMatrix(
            block_00=2.0 + stiffness + ridge,
            block_0n=hessian.hess_0a,
            block_0m=hessian.hess_0u,
            block_nn=hessian.hess_aa + eye * by_a[None, :],
            block_nm=hessian.hess_au,
            block_mm=hessian.hess_uu + eye * shift,
        )

    def hessian(self, y: PairwiseState) -> Float[Array, "P P"]:
        blocks = self.risk.hessian(y)
        by_0a, by_0u = blocks.hess_0a[None, :], blocks.hess_0u[None, :]
        return jnp.block(
            [
                [jnp.full((1, 1), 2.0), by_0a, by_0u],
                [by_0a.T, blocks.hess_aa, blocks.hess_au],
                [by_0u.T, blocks.hess_au.T, blocks.hess_uu],
            ]
        )

    def diagonal(self, y: PairwiseState, shift: Scalar) -> Float[Array, " P"]:
        stiffness, ridge = shift * self.epsilon, 2 * self.ridge
        by_bias, by_a = stiffness + ridge, stiffness + ridge * self.risk.squares(y.u)
        return jnp.concatenate([by_bias[None], by_a, jnp.broadcast_to(shift, y.u.shape)])

    def step(self, y: PairwiseState, h: Scalar) -> SolverStep:
        """Return `rosenbrock_step`; under vmap on a GPU, one kernel takes the steps of all runs.

        A step that an `uncut` risk is not good for is NaN.
        """
        if self.risk.uncut:
            step = rosenbrock_step(self, y, h)
            return valid_step(step, ~self.risk.touches_ends(positions_passed(y.u, step)))
        if not on_gpu() or not fits(self, y.u.size):
            return rosenbrock_step(self, y, h)
        numbers, static = eqx.partition(self, eqx.is_array)

        def alone(numbers: Tree, y: PairwiseState, h: Scalar) -> SolverStep:
            return rosenbrock_step(eqx.combine(numbers, static), y, h)

        def kernel(is_batched: Tree, numbers: Tree, y: PairwiseState, h: Array) -> SolverStep:
            return steps_on_gpu(eqx.combine(numbers, static), is_batched, y, h)

        return vmap_to_kernel(alone, kernel)(numbers, y, h)

    def velocity(self, y: PairwiseState) -> PairwiseState:
        bias, a, u = self.vector_field(y)
        return PairwiseState(fast_velocity(bias, self.epsilon), fast_velocity(a, self.epsilon), u)

    def error_norm(
        self,
        error: PairwiseState,
        before: PairwiseState,
        after: PairwiseState,
        rtol: Scalar,
        atol: Scalar,
    ) -> Scalar:
        largest_error, old, new = (
            jnp.maximum(jnp.abs(y.bias), largest(y.a))
            for y in (error, self.risk.effective(before), self.risk.effective(after))
        )
        weights = largest_error / (atol + rtol * jnp.maximum(old, new))
        return position_error(self.risk.eta, self.epsilon, weights, error.u, rtol, atol)
