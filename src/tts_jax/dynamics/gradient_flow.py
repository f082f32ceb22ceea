"""The slow-fast gradient flow at any epsilon."""

import diffrax
import equinox as eqx
import jax

from .._errors import argument_error, check_scalar
from .._types import Key, Real, Times
from ..networks import Params
from ..problem import AbstractProblem
from ..solvers import stiff_solver
from .base import AbstractDynamics, Records, Samples, check_no_samples, only_real
from .integrate import integrate


class GradientFlow(AbstractDynamics):
    """epsilon da/dtau = -grad_a L, du/dtau = -grad_u L, in slow time tau = epsilon t.

    **Arguments:** `epsilon`, the ratio of the step sizes, from 1e-7 to 1e3; `rtol`, `atol`:
    tolerances of the step size control (the error reached is usually 1 to 100 times rtol, since
    the flow has kinks); `solver`: any diffrax solver, by default `solvers.stiff_solver()`;
    `max_steps`, after which a run ends with the status MAX_STEPS; `adjoint`: diffrax's way to
    differentiate, by default reverse mode with checkpoints (`diffrax.ForwardMode()` for jvp).

    Differentiable in epsilon, the start, and the numbers of the problem.

    **Raises:** `ValueError` for an epsilon or tolerance that is not positive.
    """

    epsilon: Real
    rtol: Real = eqx.field(default=1e-8, kw_only=True)
    atol: Real = eqx.field(default=1e-10, kw_only=True)
    solver: diffrax.AbstractSolver | None = eqx.field(default=None, kw_only=True)
    max_steps: int = eqx.field(static=True, default=100_000, kw_only=True)
    adjoint: diffrax.AbstractAdjoint = eqx.field(
        default=diffrax.RecursiveCheckpointAdjoint(), kw_only=True
    )

    def __check_init__(self):
        check_scalar("epsilon", self.epsilon, minimum=0.0, strict=True)
        check_tolerances(self.rtol, self.atol, self.max_steps)

    def check(
        self,
        problem: AbstractProblem,
        params: Params,
        taus: Times,
        key: Key | None,
        samples: Samples | None,
    ) -> None:
        check_no_samples(samples, "GradientFlow")
        only_real(params, "params")

    def run(
        self,
        problem: AbstractProblem,
        params: Params,
        taus: Times,
        key: Key | None,
        samples: Samples | None,
    ) -> Records:
        def velocity(y: Params) -> Params:
            gradient = jax.grad(problem.risk)(y)
            return Params(
                a=jax.tree.map(lambda g: -g / self.epsilon, gradient.a),
                u=jax.tree.map(lambda g: -g, gradient.u),
            )

        ys, status, stats = integrate(
            velocity,
            params,
            taus,
            solver=stiff_solver() if self.solver is None else self.solver,
            rtol=self.rtol,
            atol=self.atol,
            max_steps=self.max_steps,
            adjoint=self.adjoint,
        )
        return Records(ys, jax.vmap(problem.risk)(ys), status, stats)


def check_tolerances(rtol: Real, atol: Real, max_steps: int) -> None:
    check_scalar("rtol", rtol, minimum=0.0, strict=True)
    check_scalar("atol", atol, minimum=0.0, strict=True)
    if max_steps < 1:
        raise argument_error("max_steps", "at least 1", max_steps)
