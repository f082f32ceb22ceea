"""Gradient descent in two time scales, as the systems that the Rosenbrock method integrates.

The matrix of a step is symmetric: the mass of the two layers plus the Hessian of L.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .._types import Array, Scalar, Times
from ..activations import AbstractStep
from ..networks import Params, ShallowNetwork
from ..problem import AbstractProblem, Problem
from ..solvers import (
    AbstractSymmetricSystem,
    AbstractSystem,
    Layered,
    Step,
    in_turn,
    layered_solver,
    rosenbrock_step,
    symmetric_solver,
)
from ..steps import Layers, StepRisk
from ..targets import PiecewiseConstant
from .descent_columns import fits
from .descent_kernel import steps_in_kernel
from .kernels import by_device, on_gpu

_LIGHTER = 20.0
"""How much less the mass of a weight counts: see benchmarks/masses.py. Between 5 and 50 it makes
little difference."""

_MOST_JUMPS = 64
"""The closed form is written out over the jumps: with more, it would take long to compile."""


class PlainDescent(AbstractSystem):
    """epsilon da/dtau = -grad_a L, du/dtau = -grad_u L, for any risk: its Hessian by autodiff."""

    problem: AbstractProblem
    epsilon: Scalar

    def force(self, y: Params) -> Params:
        return jax.tree.map(jnp.negative, jax.grad(self.problem.risk)(y))

    def mass(self, y: Params) -> Params:
        return Params(jax.tree.map(lambda leaf: self.epsilon * leaf, y.a), y.u)

    def linearise(self, y: Params, shift: Scalar) -> Callable[[Params], Params]:
        flat, whole = ravel_pytree(y)
        mass = ravel_pytree(self.mass(jax.tree.map(jnp.ones_like, y)))[0]
        hessian = jax.hessian(lambda flat: self.problem.risk(whole(flat)))(flat)
        solve = symmetric_solver(hessian + jnp.diag(shift * mass))
        return lambda r: whole(solve(ravel_pytree(r)[0]))

    def velocity(self, y: Params) -> Params:
        force = self.force(y)
        return Params(jax.tree.map(lambda leaf: leaf / self.epsilon, force.a), force.u)

    def error(
        self, error: Params, before: Params, after: Params, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        error_, before_, after_ = (ravel_pytree(tree)[0] for tree in (error, before, after))
        size = jnp.maximum(jnp.abs(before_), jnp.abs(after_))
        return jnp.sqrt(jnp.mean((error_ / (atol + rtol * size)) ** 2))


class StepDescent(AbstractSymmetricSystem):
    """The same for a `StepRisk`, whose Hessian is known, and for epsilon = 0 too.

    The ridge adds ridge * sum_i G_ii a_i^2, with G_ii the square integral of feature i, to what a
    descends, and nothing to what u descends.
    """

    risk: StepRisk
    epsilon: Scalar
    ridge: Scalar

    def force(self, y: Layers) -> Layers:
        return self.force_from(y, self.risk.gradient(y))

    def force_from(self, y: Layers, half: Layers) -> Layers:
        """The force, from half of the gradient."""
        ridge = 2 * self.ridge
        return Layers(
            -2 * half.bias - ridge * y.bias,
            -2 * half.a - ridge * self.risk.squares(y.u) * y.a,
            -2 * half.u,
        )

    def force_transposed(self, y: Layers, left: Layers) -> Layers:
        # The Hessian is symmetric, and forward its product takes half as long. What the ridge adds
        # is not symmetric: u does not feel it.
        half = jax.jvp(self.risk.gradient, (y,), (left,))[1]
        nothing = jax.tree.map(jnp.zeros_like, y)
        by_ridge = jax.vjp(lambda y: self.force_from(y, nothing), y)[1](left)[0]
        return jax.tree.map(lambda ridge, risk: ridge - 2 * risk, by_ridge, half)

    def mass(self, y: Layers) -> Layers:
        return Layers(self.epsilon * y.bias, self.epsilon * y.a, y.u)

    def linearise(self, y: Layers, shift: Scalar) -> Callable[[Layers], Layers]:
        solve = layered_solver(self._matrix(y, shift))
        return lambda r: Layers(*solve((r.bias, r.a, r.u)))

    def bilinear(self, y: Layers, shift: Scalar, lefts: Layers, rights: Layers) -> Scalar:
        return self._matrix(y, shift).bilinear(lefts, rights)

    def _matrix(self, y: Layers, shift: Scalar) -> Layered:
        half = self.risk.hessian(y)
        stiffness, ridge = shift * self.epsilon, 2 * self.ridge
        by_a = stiffness + ridge * self.risk.squares(y.u)
        eye = np.eye(y.u.size)
        return Layered(
            corner=2.0 + stiffness + ridge,
            edge_n=2 * half.by_bias,
            edge_m=2 * half.by_bias_u,
            block_n=2 * half.by_a + eye * by_a[None, :],
            across=2 * half.by_a_u,
            block_m=2 * half.by_u + eye * shift,
        )

    def step(self, y: Layers, h: Scalar) -> Step:
        """`rosenbrock_step`; many together on a GPU take one in one kernel."""
        if not on_gpu() or not fits(self, y.u.size):
            return rosenbrock_step(self, y, h)
        numbers, rest = eqx.partition(self, eqx.is_array)

        def alone(numbers: "StepDescent", y: Layers, h: Scalar) -> Step:
            return rosenbrock_step(eqx.combine(numbers, rest), y, h)

        @jax.custom_jvp
        def step(numbers: "StepDescent", y: Layers, h: Scalar) -> Step:
            return together(numbers, y, h)

        @step.defjvp
        def _(primals: tuple, tangents: tuple) -> tuple[Step, Step]:
            return step(*primals), jax.jvp(alone, primals, tangents)[1]

        together = jax.custom_batching.custom_vmap(alone)

        @together.def_vmap
        def _(size: int, own: list, *given: Any) -> tuple[Step, Step]:
            def last(leaf: Array, is_own: bool) -> Array:
                return jnp.moveaxis(leaf, 0, -1) if is_own else leaf

            def every(leaf: Array, is_own: bool) -> Array:
                whole = leaf if is_own else jnp.broadcast_to(leaf, (size, *leaf.shape))
                return jnp.moveaxis(whole, 0, -1)

            def kernel(numbers: "StepDescent", y: Layers, h: Scalar) -> Step:
                mine = eqx.combine(jax.tree.map(last, numbers, own[0]), rest)
                out = steps_in_kernel(mine, own[0], *jax.tree.map(every, (y, h), tuple(own[1:])))
                return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), out)

            axes = jax.tree.map(lambda is_own: 0 if is_own else None, own)
            out = by_device(kernel, jax.vmap(alone, axes), *given)
            return out, jax.tree.map(lambda _: True, out)

        return step(numbers, y, h)

    def velocity(self, y: Layers) -> Layers:
        bias, a, u = self.force(y)
        return Layers(fast_velocity(bias, self.epsilon), fast_velocity(a, self.epsilon), u)

    def error(
        self, error: Layers, before: Layers, after: Layers, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        off, old, new = (jnp.maximum(jnp.abs(y.bias), largest(y.a)) for y in (error, before, after))
        weights = off / (atol + rtol * jnp.maximum(old, new))
        return position_error(self.risk.eta, self.epsilon, weights, error.u, rtol, atol)


def fast_velocity(force: Array, epsilon: Scalar) -> Array:
    """The velocity of what has the mass epsilon, zero without one."""
    moving = epsilon > 0
    return jnp.where(moving, force / jnp.where(moving, epsilon, 1.0), 0.0)


def position_error(
    eta: Scalar, epsilon: Scalar, weights: Scalar, error: Array, rtol: Scalar, atol: Scalar
) -> Scalar:
    """The size of an error: of weights, which count against the largest, and of positions (m,).

    A position counts against eta: that is what moves the risk. Of the two, each counts by how long
    its errors last, which is by its mass: epsilon of a weight, eta^2 of a position in units of eta.
    """
    off = largest(error) / eta
    # Not by less than a tenth: the risk shows every error of a weight while they move fast. Nor by
    # more than at epsilon = 1, above which the inner layer is the fast one.
    ratio = jnp.maximum(jnp.minimum(epsilon, 1.0) / (_LIGHTER * eta**2), 0.1)
    # Without a mass weights only follow, and are rounded off where neurons meet.
    weights = jnp.where(epsilon > 0, ratio * weights, 0.0)
    # Where weights are slow they count more and positions less, each by the square root of it.
    size = jnp.maximum(weights, off / (atol + rtol)) * jax.lax.rsqrt(jnp.maximum(ratio, 1.0))
    # But at any tolerance a step must not carry neurons past what lies within a transition.
    return jnp.maximum(size, 10.0 * off)


def step_risk(problem: AbstractProblem) -> StepRisk | None:
    """The risk of a problem in closed form, where it has one."""
    if type(problem) is not Problem:
        return None
    network, target = problem.network, problem.target
    if not isinstance(network, ShallowNetwork) or not isinstance(target, PiecewiseConstant):
        return None
    if not network.bias or not isinstance(network.activation, AbstractStep):
        return None
    return StepRisk(network.activation, target) if np.size(target.jumps) <= _MOST_JUMPS else None


def risks(problem: AbstractProblem, params: Params) -> Times:
    """(T,) the risk of parameters with a leading axis (T,)."""
    risk = step_risk(problem)
    if risk is None:
        return jax.vmap(problem.risk)(params)
    numbers, rest = eqx.partition(risk, eqx.is_inexact_array)
    return in_turn(lambda n, ys: jax.lax.map(eqx.combine(n, rest), ys))(numbers, params)


def largest(v: Array) -> Scalar:
    return jnp.max(jnp.abs(v))
