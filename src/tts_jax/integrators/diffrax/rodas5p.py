"""The Rosenbrock method as a solver of diffrax, for diffrax's events and adjoints."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import lu_factor, lu_solve

from ..._types import Scalar, Tree
from ..rosenbrock import (
    ORDER,
    AbstractRosenbrockSystem,
    AbstractStagedSystem,
    SolverStep,
    interpolate,
    last_stage,
    rosenbrock_step,
)


class _DenseOutput(diffrax.AbstractLocalInterpolation):
    """The dense output of the method, an interpolation of order 4."""

    t0: Any
    t1: Any
    y: Tree
    taken: SolverStep

    def evaluate(self, t0: Any, t1: Any | None = None, left: bool = True) -> Tree:
        del left
        if t1 is not None:
            return jax.tree.map(jnp.subtract, self.evaluate(t1), self.evaluate(t0))
        span = jnp.where(self.t1 > self.t0, self.t1 - self.t0, 1.0)
        return interpolate(self.y, self.taken, (t0 - self.t0) / span)


class _Autonomous(AbstractRosenbrockSystem):
    """The system dy/dt = f(t, y), made autonomous by the time as one more component of y."""

    terms: diffrax.AbstractTerm
    args: Any

    def vector_field(self, y: tuple[Scalar, Tree]) -> tuple[Scalar, Tree]:
        return jnp.ones_like(y[0]), self.terms.vf(y[0], y[1], self.args)

    def apply_mass(self, y: tuple[Scalar, Tree]) -> tuple[Scalar, Tree]:
        return y

    def factorise(self, y: tuple[Scalar, Tree], shift: Scalar) -> Callable:
        flat, unravel = ravel_pytree(y)
        jacobian = jax.jacfwd(lambda flat: ravel_pytree(self.vector_field(unravel(flat)))[0])(flat)
        factors = lu_factor(shift * jnp.eye(flat.size) - jacobian)
        return lambda r: unravel(lu_solve(factors, ravel_pytree(r)[0]))

    def velocity(self, y: tuple[Scalar, Tree]) -> tuple[Scalar, Tree]:
        return self.vector_field(y)

    def error_norm(
        self, error: Tree, before: Tree, after: Tree, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        raise NotImplementedError("The step size controller of diffrax has its own error norm.")


class Rodas5P(diffrax.AbstractSolver):
    """Rodas5P for `diffrax.diffeqsolve`: order 5, L-stable, eight stages and one factorisation.

    **Arguments:** `system`: a system of this package, which factorises the matrix of a step itself;
    the terms must be its velocity. By default the Jacobian of the terms comes from autodiff and is
    factorised by LU.

    Source: G. Steinebach, BIT 63:27 (2023); see integrators/rosenbrock.py.
    """

    system: AbstractStagedSystem | None = None

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = _DenseOutput

    def order(self, terms: Any) -> int:
        return ORDER

    def init(self, terms: Any, t0: Any, t1: Any, y0: Tree, args: Any) -> None:
        return None

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: Tree, args: Any, solver_state: Any, made_jump: Any
    ) -> tuple[Tree, Tree, dict[str, Any], None, diffrax.RESULTS]:
        if self.system is not None:
            taken = self.system.step(y0, t1 - t0)
        else:
            with_time = rosenbrock_step(_Autonomous(terms, args), (jnp.asarray(t0), y0), t1 - t0)
            taken = SolverStep(with_time.after[1], with_time.stages[1])
        dense = {"y": y0, "taken": taken}
        return taken.after, last_stage(taken), dense, None, diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: Tree, args: Any) -> Any:
        return terms.vf(t0, y0, args)
