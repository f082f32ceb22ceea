"""A solver of diffrax as a system of this package, for what diffrax's own loop does not offer.

`diffrax.Event` looks at the ends of steps, and ends with the first of several events. The loop of
this package sees every step with its dense output.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx

from ..._errors import argument_error
from ..._types import Scalar, Tree
from ..rosenbrock import AbstractSystem, first_step_size


class SolverState(NamedTuple):
    """A state y, and what the solver takes over from the last step: as floats, since whole numbers
    and truth values have no derivatives."""

    y: Tree
    kept: Any


class DiffraxStep(NamedTuple):
    """A step: the state `after` it, its size, its error like y, and what its dense output needs."""

    after: SolverState
    size: Scalar
    error: Tree
    dense: Any


class DiffraxSystem(AbstractSystem):
    """The equation dy/dt = velocity(y) with the steps of a solver of diffrax."""

    solver: diffrax.AbstractSolver
    velocity: Callable[[Tree], Tree]
    rtol: Scalar
    atol: Scalar

    def begin(self, y: Tree) -> SolverState:
        """Return the state of a start. Every step is taken from time 0: the equation does not
        depend on it."""
        return SolverState(y, _as_floats(self._kept_at_first(y)))

    def first_step(self, y: SolverState, rtol: Scalar, atol: Scalar) -> tuple[Scalar, Tree]:
        def norm(tree: Tree) -> Scalar:
            return _norm(tree, y.y, y.y, rtol, atol)

        return first_step_size(self.velocity, norm, y.y)

    def step(self, y: SolverState, h: Scalar) -> DiffraxStep:
        zero = jnp.zeros_like(h)
        like = jax.eval_shape(self._kept_at_first, y.y)
        kept = jax.tree.map(lambda v, wanted: jnp.asarray(v).astype(wanted.dtype), y.kept, like)
        after, error, dense, kept, result = self._solver().step(
            self._term(), zero, h, y.y, None, kept, made_jump=False
        )
        if error is None:
            expected = "one that estimates the error of its steps"
            raise argument_error("solver", expected, type(self.solver).__name__)
        failed = result != diffrax.RESULTS.successful
        error = jax.tree.map(lambda leaf: jnp.where(failed, jnp.nan, leaf), error)
        return DiffraxStep(SolverState(after, _as_floats(kept)), h, error, dense)

    def step_error(
        self, step: DiffraxStep, before: SolverState, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        return _norm(step.error, before.y, step.after.y, rtol, atol)

    def field_at_start(self, step: DiffraxStep) -> Tree:
        return step.error

    def interpolate(self, y: SolverState, step: DiffraxStep, part: Scalar) -> Tree:
        del y
        zero = jnp.zeros_like(step.size)
        dense = self.solver.interpolation_cls(t0=zero, t1=step.size, **step.dense)
        return dense.evaluate(part * step.size)

    def recorded(self, y: SolverState) -> Tree:
        return y.y

    def _kept_at_first(self, y: Tree) -> Any:
        zero = jnp.zeros_like(self.rtol)
        kept = self._solver().init(self._term(), zero, zero + 1.0, y, None)
        return jax.tree.map(jnp.asarray, kept)

    def _term(self) -> diffrax.ODETerm:
        return diffrax.ODETerm(lambda t, y, args: self.velocity(y))

    def _solver(self) -> diffrax.AbstractSolver:
        """Return the solver, an implicit one with the tolerances of the steps, as `diffeqsolve`
        gives them to a root finder without any of its own."""
        if not isinstance(self.solver, diffrax.AbstractImplicitSolver):
            return self.solver
        unset = diffrax.with_stepsize_controller_tols(diffrax.VeryChord)().rtol
        given = {"rtol": self.rtol, "atol": self.atol, "norm": optx.rms_norm}
        finder = self.solver.root_finder
        names = [name for name in given if getattr(finder, name) is unset]
        return eqx.tree_at(
            lambda solver: [getattr(solver.root_finder, name) for name in names],
            self.solver,
            [given[name] for name in names],
        )


def _as_floats(kept: Any) -> Any:
    def as_float(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        return leaf if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf.astype(float)

    return jax.tree.map(as_float, kept)


def _norm(error: Tree, before: Tree, after: Tree, rtol: Scalar, atol: Scalar) -> Scalar:
    """Return the norm of diffrax's `PIDController`: a root mean square over all numbers."""

    def scaled(error: Any, before: Any, after: Any) -> Any:
        return error / (atol + rtol * jnp.maximum(jnp.abs(before), jnp.abs(after)))

    return optx.rms_norm(jax.tree.map(scaled, error, before, after))
