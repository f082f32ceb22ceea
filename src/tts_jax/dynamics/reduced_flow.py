"""The reduced flow: the limit epsilon -> 0 at a finite transition width."""

import diffrax
import equinox as eqx
import jax

from .._errors import argument_error, check_scalar
from .._types import Key, Real, Times, Tree
from ..networks import Params
from ..problem import AbstractProblem
from ..solvers import stiff_solver
from .base import AbstractDynamics, Records, Samples, check_no_samples, only_real
from .gradient_flow import check_tolerances
from .integrate import integrate


class ReducedFlow(AbstractDynamics):
    """du/dtau = -grad_u L(a*(u), u), where a*(u) minimises L(a, u) in a.

    By the envelope theorem the derivative of a* is not needed. The outer layer of the start is
    ignored: at tau = 0 the record holds a*(u(0)).

    **Arguments:** `ridge`: relative ridge of the linear solve for a*(u), which keeps it finite
    where neurons meet. There rounding over ridge is noise in the velocity: a ridge below 1e-16/rtol
    can make steps fail without end when neurons coincide; where they stay apart, a smaller one is
    more exact. `rtol`, `atol`, `solver`, `max_steps`, `adjoint` as in `GradientFlow`.

    Differentiable in the start and the numbers of the problem.

    **Raises:** `ValueError` for a ridge or tolerance that is not positive.
    """

    ridge: Real = eqx.field(default=1e-8, kw_only=True)
    rtol: Real = eqx.field(default=1e-8, kw_only=True)
    atol: Real = eqx.field(default=1e-10, kw_only=True)
    solver: diffrax.AbstractSolver | None = eqx.field(default=None, kw_only=True)
    max_steps: int = eqx.field(static=True, default=100_000, kw_only=True)
    adjoint: diffrax.AbstractAdjoint = eqx.field(
        default=diffrax.RecursiveCheckpointAdjoint(), kw_only=True
    )

    def __check_init__(self):
        check_scalar("ridge", self.ridge, minimum=0.0, strict=True)
        check_tolerances(self.rtol, self.atol, self.max_steps)

    def check(
        self,
        problem: AbstractProblem,
        params: Params,
        taus: Times,
        key: Key | None,
        samples: Samples | None,
    ) -> None:
        check_no_samples(samples, "ReducedFlow")
        only_real(params.u, "params.u")
        if type(problem).best_outer is AbstractProblem.best_outer:
            raise argument_error(
                "problem", "one with a `best_outer(u, ridge=...)`", f"a {type(problem).__name__}"
            )

    def run(
        self,
        problem: AbstractProblem,
        params: Params,
        taus: Times,
        key: Key | None,
        samples: Samples | None,
    ) -> Records:
        def velocity(u: Tree) -> Tree:
            a = problem.best_outer(u, ridge=self.ridge)
            gradient = jax.grad(lambda inner: problem.risk(Params(a, inner)))(u)
            return jax.tree.map(lambda g: -g, gradient)

        us, status, stats = integrate(
            velocity,
            params.u,
            taus,
            solver=stiff_solver() if self.solver is None else self.solver,
            rtol=self.rtol,
            atol=self.atol,
            max_steps=self.max_steps,
            adjoint=self.adjoint,
        )
        outer = jax.vmap(lambda u: problem.best_outer(u, ridge=self.ridge))(us)
        ys = Params(outer, us)
        return Records(ys, jax.vmap(problem.risk)(ys), status, stats)
