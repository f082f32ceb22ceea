"""The vector-Jacobian product (VJP) of a solver's step of a symmetric system.

A step solves W U_i = f(Y_i) + M sum_j (c_ij / h) U_j with Y_i = y + sum_j a_ij U_j (see
`rosenbrock`); here its matrix W is symmetric. Let left_i be W^-1 times the cotangent of U_i. From
the last stage to the first, the cotangent of Y_i is f'(Y_i)^T left_i, and U_j gets, through the
mass term, the cotangent M left_i c_ij / h. The cotangent of W, - sum_i left_i U_i^T, takes one
derivative of the Hessian for all eight stages. These are the rules of reverse mode applied to the
equation of a stage; autodiff finds them too, but stores and reverses every loop inside f.
"""

import abc
from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._types import Array, Scalar, Tree, pick, put
from .rosenbrock import (
    GAMMA,
    TABLEAU_A,
    TABLEAU_C,
    TABLEAU_M,
    AbstractRosenbrockSystem,
    SolverStep,
    combine,
    rosenbrock_step,
)

Pull = Callable[[SolverStep], tuple[Tree, Tree]]
"""The VJP of a step: from the cotangents of the step to those of its numbers and its start."""


class AbstractSymmetricSystem(AbstractRosenbrockSystem):
    """A system whose `factorise` solves with a symmetric matrix W, at least near shift M - f'(y).

    The mass M is symmetric too and does not depend on y, and the step is a `rosenbrock_step`.
    """

    @abc.abstractmethod
    def vector_field_transposed(self, y: Tree, left: Tree) -> Tree:
        """Return f'(y)^T left."""

    @abc.abstractmethod
    def bilinear(self, y: Tree, shift: Scalar, lefts: Tree, rights: Tree) -> Scalar:
        """Return sum_i lefts_i . W rights_i for the W of `factorise(y, shift)`.

        The vectors i = 1, 2, ... are on the leading axis of every leaf.
        """


def pull_step(
    system_of: Callable[[Tree], AbstractSymmetricSystem], numbers: Tree, y: Tree, h: Scalar
) -> tuple[SolverStep, Pull]:
    """Return the step of `system_of(numbers)` from y, and its VJP by `numbers` and y.

    The values are those of `jax.vjp`.
    """
    system = system_of(numbers)
    per_h = 1.0 / h
    shift = per_h / GAMMA
    solve = system.factorise(y, shift)
    step = rosenbrock_step(system, y, h, solve)

    def pull(cotangents: SolverStep) -> tuple[Tree, Tree]:
        def stage_back(turn: Array, state: tuple[Tree, Tree, Tree, Tree]) -> tuple:
            stages, lefts, by_numbers, by_y = state
            i = 7 - turn
            row, coupling = pick(TABLEAU_A, i), pick(TABLEAU_C, i) * per_h
            place = jax.tree.map(jnp.add, y, combine(row, step.stages))
            combined = combine(coupling, step.stages)
            left = solve(jax.tree.map(lambda rows: pick(rows, i), stages))
            by_place = system.vector_field_transposed(place, left)

            def right_hand_side(numbers: Tree) -> Scalar:
                varied = system_of(numbers)
                return _dot(left, varied.vector_field(place)) + _dot(
                    left, varied.apply_mass(combined)
                )

            stages = jax.tree.map(
                lambda rows, through_field, through_mass: (
                    rows + _outer(row, through_field) + _outer(coupling, through_mass)
                ),
                stages,
                by_place,
                system.apply_mass(left),
            )
            return (
                stages,
                jax.tree.map(lambda rows, new: put(rows, i, new), lefts, left),
                jax.tree.map(jnp.add, by_numbers, jax.grad(right_hand_side)(numbers)),
                jax.tree.map(jnp.add, by_y, by_place),
            )

        weights = jnp.asarray(TABLEAU_M)
        stages = jax.tree.map(
            lambda rows, after: rows + _outer(weights, after), *reversed(cotangents)
        )
        zeros = jax.tree.map(jnp.zeros_like, (stages, numbers))
        _, lefts, by_numbers, by_y = jax.lax.fori_loop(
            0, 8, stage_back, (stages, *zeros, cotangents.after)
        )
        by_matrix = jax.grad(
            lambda n, y: system_of(n).bilinear(y, shift, lefts, step.stages), (0, 1)
        )
        return jax.tree.map(jnp.subtract, (by_numbers, by_y), by_matrix(numbers, y))

    return step, pull


def _outer(row: Array, leaf: Array) -> Array:
    return row.reshape(-1, *(1,) * leaf.ndim) * leaf[None]


def _dot(left: Tree, right: Tree) -> Scalar:
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), left, right)
    return sum(jax.tree.leaves(products), jnp.zeros(()))
