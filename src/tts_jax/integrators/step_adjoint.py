"""The step of a symmetric system pulled back.

W, the matrix of the step, is symmetric here. Let left_i be W^-1 times the cotangent of U_i. From
the last stage to the first, the cotangent of Y_i = y + sum_j a_ij U_j is f'(Y_i)^T left_i, and that
of U_j, as a part of M sum_j (c_ij / h) U_j, is M left_i c_ij / h. That of W, - sum_i left_i U_i^T,
takes one derivative of the Hessian for all eight stages. Autodiff finds the same, but keeps and
reverses every loop inside of f.
"""

import abc
from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._types import Array, Scalar, Tree, put
from .rosenbrock import (
    GAMMA,
    TABLEAU_A,
    TABLEAU_C,
    TABLEAU_M,
    AbstractRosenbrockSystem,
    SolverStep,
    combine,
    rosenbrock_step,
    row_of,
)

Pull = Callable[[SolverStep], tuple[Tree, Tree]]
"""From the cotangents of a step to those of its numbers and its start."""


class AbstractSymmetricSystem(AbstractRosenbrockSystem):
    """A system whose `factorise` solves with a symmetric matrix W, be it only near shift M - f'(y).

    Its mass is symmetric too, and the same everywhere, and its step a `rosenbrock_step`.
    """

    @abc.abstractmethod
    def vector_field_transposed(self, y: Tree, left: Tree) -> Tree:
        """f'(y)^T left."""

    @abc.abstractmethod
    def bilinear(self, y: Tree, shift: Scalar, lefts: Tree, rights: Tree) -> Scalar:
        """sum_i lefts_i . W rights_i with the W of `linearise(y, shift)`, i on the leading axes."""


def pull_step(
    whole: Callable[[Tree], AbstractSymmetricSystem], numbers: Tree, y: Tree, h: Scalar
) -> tuple[SolverStep, Pull]:
    """`jax.vjp` of a step of `whole(numbers)` from y, by `numbers` and y."""
    system = whole(numbers)
    per_h = 1.0 / h
    shift = per_h / GAMMA
    solve = system.factorise(y, shift)
    step = rosenbrock_step(system, y, h, solve)

    def pull(cotangents: SolverStep) -> tuple[Tree, Tree]:
        def back(turn: Array, state: tuple[Tree, Tree, Tree, Tree]) -> tuple:
            stages, lefts, by_numbers, by_y = state
            i = 7 - turn
            row, coupling = row_of(TABLEAU_A, i), row_of(TABLEAU_C, i) * per_h
            place = jax.tree.map(jnp.add, y, combine(row, step.stages))
            pulled = combine(coupling, step.stages)
            left = solve(jax.tree.map(lambda rows: row_of(rows, i), stages))
            by_place = system.vector_field_transposed(place, left)

            def right_hand_side(numbers: Tree) -> Scalar:
                own = whole(numbers)
                return _dot(left, own.vector_field(place)) + _dot(left, own.apply_mass(pulled))

            stages = jax.tree.map(
                lambda rows, vector_field, apply_mass: (
                    rows + _outer(row, vector_field) + _outer(coupling, apply_mass)
                ),
                stages,
                by_place,
                system.apply_mass(left),
            )
            return (
                stages,
                jax.tree.map(lambda rows, one: put(rows, i, one), lefts, left),
                jax.tree.map(jnp.add, by_numbers, jax.grad(right_hand_side)(numbers)),
                jax.tree.map(jnp.add, by_y, by_place),
            )

        weights = jnp.asarray(TABLEAU_M)
        stages = jax.tree.map(
            lambda rows, after: rows + _outer(weights, after), *reversed(cotangents)
        )
        nothing = jax.tree.map(jnp.zeros_like, (stages, numbers))
        _, lefts, by_numbers, by_y = jax.lax.fori_loop(
            0, 8, back, (stages, *nothing, cotangents.after)
        )
        matrix = jax.grad(lambda n, y: whole(n).bilinear(y, shift, lefts, step.stages), (0, 1))
        return jax.tree.map(jnp.subtract, (by_numbers, by_y), matrix(numbers, y))

    return step, pull


def _outer(row: Array, leaf: Array) -> Array:
    return row.reshape(-1, *(1,) * leaf.ndim) * leaf[None]


def _dot(one: Tree, other: Tree) -> Scalar:
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), one, other)
    return sum(jax.tree.leaves(products), jnp.zeros(()))
