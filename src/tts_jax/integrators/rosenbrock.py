"""One step of Rodas5P, a Rosenbrock method of order 5 for M dy/dt = f(y).

A step has eight stages U_i and factorises one matrix, s M - f'(y) with s = 1 / (gamma h):

    (s M - f'(y)) U_i = f(y + sum_j a_ij U_j) + M sum_j (c_ij / h) U_j.

The new state is y + sum_j m_j U_j, and U_8 estimates the error, as the difference to an embedded
method of order 4. The method is L-stable and stiffly accurate, M may be singular, and the dense
output is of order 4.

Source of the coefficients: G. Steinebach, Construction of Rosenbrock-Wanner method Rodas5P and
numerical benchmarks within the Julia Differential Equations package, BIT 63:27 (2023).
"""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Bool, Scalar, Tree, pick, put, varying_as

ORDER = 5
GAMMA = 0.21193756319429014


def _numbers(text: str) -> np.ndarray:
    return np.asarray([float(number) for number in text.split()])


def _lower(text: str) -> np.ndarray:
    """Return a matrix (8, 8) whose entries below the diagonal are given row by row."""
    matrix = np.zeros((8, 8))
    matrix[np.tril_indices(8, -1)] = _numbers(text)
    return matrix


TABLEAU_M = _numbers("""
    -7.502846399306121 2.561846144803919 -11.627539656261098 -0.18268767659942256
    0.030198172008377946 1.0 1.0 1.0
""")
TABLEAU_A = _lower("""
    3.0
    2.849394379747939 0.45842242204463923
    -6.954028509809101 2.489845061869568 -10.358996098473584
    2.8029986275628964 0.5072464736228206 -0.3988312541770524 -0.04721187230404641
    -7.502846399306121 2.561846144803919 -11.627539656261098 -0.18268767659942256
        0.030198172008377946
    -7.502846399306121 2.561846144803919 -11.627539656261098 -0.18268767659942256
        0.030198172008377946 1.0
    -7.502846399306121 2.561846144803919 -11.627539656261098 -0.18268767659942256
        0.030198172008377946 1.0 1.0
""")
TABLEAU_C = _lower("""
    -14.155112264123755
    -17.97296035885952 -2.859693295451294
    147.12150275711716 -1.41221402718213 71.68940251302358
    165.43517024871676 -0.4592823456491126 42.90938336958603 -5.961986721573306
    24.854864614690072 -3.0009227002832186 47.4931110020768 5.5814197821558125
        -0.6610691825249471
    30.91273214028599 -3.1208243349937974 77.79954646070892 34.28646028294783
        -19.097331116725623 -28.087943162872662
    37.80277123390563 -3.2571969029072276 112.26918849496327 66.9347231244047
        -40.06618937091002 -54.66780262877968 -9.48861652309627
""")
TABLEAU_H = _numbers("""
    25.948786856663858 -2.5579724845846235 10.433815404888879 -2.3679251022685204
        0.524948541321073 1.1241088310450404 0.4272876194431874 -0.17202221070155493
    -9.91568850695171 -0.9689944594115154 3.0438037242978453 -24.495224566215796
        20.176138334709044 15.98066361424651 -6.789040303419874 -6.710236069923372
    11.419903575922262 2.8879645146136994 72.92137995996029 80.12511834622643
        -52.072871366152654 -59.78993625266729 -0.15582684282751913 4.883087185713722
""").reshape(3, 8)


class SolverStep(NamedTuple):
    """A solver's step: the state `after` it, like y, and the stages, with a leading axis (8,) on
    every leaf of y."""

    after: Tree
    stages: Tree


class AbstractSystem(eqx.Module):
    """An ordinary differential equation with its method, as the loop over steps needs it.

    A state y is any pytree; it may hold what the next step needs to know of the last one. A step is
    any pytree too, with the state `after` it.
    """

    @abc.abstractmethod
    def first_step(self, y: Tree, rtol: Scalar, atol: Scalar) -> tuple[Scalar, Tree]:
        """Return a guess of the first step size, and the velocity at y, only to see whether it is
        finite."""

    @abc.abstractmethod
    def step(self, y: Tree, h: Scalar) -> Any:
        """Return the step of size h from y."""

    @abc.abstractmethod
    def step_error(self, step: Any, before: Tree, rtol: Scalar, atol: Scalar) -> Scalar:
        """Return the norm of the error of a step from `before`: at 1, the error is as large as the
        tolerances allow."""

    @abc.abstractmethod
    def field_at_start(self, step: Any) -> Tree:
        """Return something that is finite where the vector field is, where a step begins."""

    @abc.abstractmethod
    def interpolate(self, y: Tree, step: Any, part: Scalar) -> Tree:
        """Return what is recorded of the state at the fraction `part` of a step from y."""

    def recorded(self, y: Tree) -> Tree:
        """Return what is recorded of a state: by default all of it."""
        return y

    def after_rejection(self, y: Tree, step: Any) -> Tree:
        """Return the state from which to try again after a rejected step from y: by default y."""
        del step
        return y

    def reversible(self) -> "AbstractSystem":
        """Return the system with steps that autodiff takes back in reverse, by default itself."""
        return self


class AbstractStagedSystem(AbstractSystem):
    """A system whose steps are those of this file."""

    @abc.abstractmethod
    def velocity(self, y: Tree) -> Tree:
        """Return dy/dt, with zeros where M is singular. Only for a first guess of the step size."""

    @abc.abstractmethod
    def error_norm(
        self, error: Tree, before: Tree, after: Tree, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        """Return the norm of the error of a step from `before` to `after`: at 1, the error is as
        large as the tolerances allow."""

    @abc.abstractmethod
    def step(self, y: Tree, h: Scalar) -> SolverStep:
        """Return the step of size h from y."""

    def step_error(self, step: SolverStep, before: Tree, rtol: Scalar, atol: Scalar) -> Scalar:
        return self.error_norm(last_stage(step), before, step.after, rtol, atol)

    def field_at_start(self, step: SolverStep) -> Tree:
        # The first stage is the vector field at the start, times the inverse of the matrix.
        return jax.tree.map(lambda leaf: leaf[0], step.stages)

    def interpolate(self, y: Tree, step: SolverStep, part: Scalar) -> Tree:
        return interpolate(y, step, part)

    def first_step(self, y: Tree, rtol: Scalar, atol: Scalar) -> tuple[Scalar, Tree]:
        return first_step_size(
            self.velocity, lambda tree: self.error_norm(tree, y, y, rtol, atol), y
        )


def first_step_size(
    velocity: Callable[[Tree], Tree], norm: Callable[[Tree], Scalar], y: Tree
) -> tuple[Scalar, Tree]:
    """Return a guess of the first step size of a method of order 5 from y, and the velocity at y.

    Source: E. Hairer, S. P. Norsett, G. Wanner, Solving Ordinary Differential Equations I, II.4.
    """
    size = norm(y)

    # The velocity at y, and then after an explicit Euler step of size `trial` from y. In a loop of
    # two turns: written twice, the velocity would be compiled twice.
    def evaluate(turn: Array, state: tuple[Tree, Tree, Scalar]) -> tuple[Tree, Tree, Scalar]:
        del turn
        before, _, trial = state
        place = jax.tree.map(lambda a, b: a + trial * b, y, before)
        after = velocity(place)
        speed = jnp.maximum(norm(after), 1e-15)
        trial = jnp.where(trial > 0, trial, 0.01 * jnp.maximum(size, 1.0) / speed)
        return after, before, trial

    zeros = jax.tree.map(jnp.zeros_like, y)
    ahead, first, trial = jax.lax.fori_loop(0, 2, evaluate, (zeros, zeros, jnp.zeros_like(size)))
    speed = jnp.maximum(norm(first), 1e-15)
    acceleration = norm(jax.tree.map(jnp.subtract, ahead, first)) / trial
    guess = (0.01 / jnp.maximum(speed, acceleration)) ** (1.0 / (ORDER + 1))
    return jax.lax.stop_gradient(jnp.minimum(100.0 * trial, guess)), first


class AbstractRosenbrockSystem(AbstractStagedSystem):
    """The autonomous equation M dy/dt = f(y), with what a Rosenbrock step needs of it."""

    @abc.abstractmethod
    def vector_field(self, y: Tree) -> Tree:
        """Return f(y)."""

    @abc.abstractmethod
    def apply_mass(self, y: Tree) -> Tree:
        """Return M y."""

    @abc.abstractmethod
    def factorise(self, y: Tree, shift: Scalar) -> Callable[[Tree], Tree]:
        """Return the function r -> (shift M - f'(y))^-1 r, with the matrix factorised once."""

    def step(self, y: Tree, h: Scalar) -> SolverStep:
        return rosenbrock_step(self, y, h)


def rosenbrock_step(
    system: AbstractRosenbrockSystem,
    y: Tree,
    h: Scalar,
    solve: Callable[[Tree], Tree] | None = None,
) -> SolverStep:
    """Return the step of size h from y.

    `solve`: what `system.factorise(y, 1 / (GAMMA * h))` returns, if the caller has it already.
    """
    per_h = 1.0 / h
    solve = system.factorise(y, per_h / GAMMA) if solve is None else solve

    def stage(i: Array, stages: Tree) -> Tree:
        row, coupling = pick(TABLEAU_A, i), pick(TABLEAU_C, i)
        vector_field = system.vector_field(jax.tree.map(jnp.add, y, combine(row, stages)))
        mass_term = system.apply_mass(combine(coupling, stages))
        new = solve(jax.tree.map(lambda f, g: f + g * per_h, vector_field, mass_term))
        return jax.tree.map(lambda rows, leaf: put(rows, i, leaf), stages, new)

    stages = jax.tree.map(lambda leaf: jnp.zeros((8, *leaf.shape), leaf.dtype), y)
    stages = jax.lax.fori_loop(0, 8, stage, varying_as((y, h), stages))
    return SolverStep(jax.tree.map(jnp.add, y, combine(jnp.asarray(TABLEAU_M), stages)), stages)


def positions_passed(u: Array, step: SolverStep) -> Array:
    """Return all places (9, m) of the positions u (m,) of a state at which a step from there has
    asked for the vector field, the last of which is where it ends."""
    stages: Any = step.stages
    # With a product of matrices a short loop of a flow would not be one kernel on a CPU, and take
    # half as long again.
    moved = jnp.sum(jnp.asarray(TABLEAU_A)[:, :, None] * stages.u[None], axis=1)
    return jnp.concatenate([u[None, :] + moved, step.after.u[None, :]])


def valid_step(step: SolverStep, valid: Bool[Array, ""]) -> SolverStep:
    """Return a step, with NaN for its stages unless it is valid: then the loop rejects it."""
    stages = jax.tree.map(lambda leaf: jnp.where(valid, leaf, jnp.nan), step.stages)
    return step._replace(stages=stages)


def last_stage(step: SolverStep) -> Tree:
    """Return the last stage of a step, which is its error estimate."""
    return jax.tree.map(lambda leaf: leaf[7], step.stages)


def interpolate(y: Tree, step: SolverStep, part: Scalar) -> Tree:
    """Return the state at the fraction `part` of a step from y, by the dense output."""

    first, second, third = (jnp.asarray(row) for row in TABLEAU_H)
    weights = first + part * (second + part * third)

    def interpolated(before: Array, after: Array, stages: Array) -> Array:
        return (1.0 - part) * before + part * (after + (1.0 - part) * _combined(weights, stages))

    return jax.tree.map(interpolated, y, step.after, step.stages)


def combine(row: Array, stages: Tree) -> Tree:
    """Return the sum of the stages, each times its entry of `row` (8,)."""
    return jax.tree.map(lambda leaf: _combined(row, leaf), stages)


def _combined(row: Array, leaf: Array) -> Array:
    return jnp.sum(row.reshape(-1, *(1,) * (leaf.ndim - 1)) * leaf, axis=0)
