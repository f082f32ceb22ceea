"""One call of diffrax for all flows: tolerances, recording, a status instead of an exception."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

from .._errors import Status, argument_error, check_scalar
from .._types import Array, Real, Times, Tree, as_real
from ..solvers import stiff_solver
from .base import AbstractDynamics

_STATUS = (
    (diffrax.RESULTS.successful, Status.OK),
    (diffrax.RESULTS.max_steps_reached, Status.MAX_STEPS),
    (diffrax.RESULTS.dt_min_reached, Status.STAGNATION),
    (diffrax.RESULTS.nonlinear_max_steps_reached, Status.SOLVER),
    (diffrax.RESULTS.nonlinear_divergence, Status.SOLVER),
    (diffrax.RESULTS.singular, Status.SOLVER),
)


def _status(result: diffrax.RESULTS) -> Array:
    code = jnp.asarray(Status.NON_FINITE, jnp.int32)
    for known, status in _STATUS:
        code = jnp.where(result == known, jnp.asarray(status, jnp.int32), code)
    return code


class AbstractFlow(AbstractDynamics):
    """What the flows that are integrated share: tolerances, a solver and how to differentiate."""

    rtol: Real = eqx.field(default=1e-8, converter=as_real, kw_only=True)
    atol: Real = eqx.field(default=1e-10, converter=as_real, kw_only=True)
    solver: diffrax.AbstractSolver | None = eqx.field(default=None, kw_only=True)
    max_steps: int = eqx.field(static=True, default=100_000, kw_only=True)
    adjoint: diffrax.AbstractAdjoint = eqx.field(
        default=diffrax.RecursiveCheckpointAdjoint(), kw_only=True
    )

    def __check_init__(self):
        check_scalar("rtol", self.rtol, minimum=0.0, strict=True)
        check_scalar("atol", self.atol, minimum=0.0, strict=True)
        if self.max_steps < 1:
            raise argument_error("max_steps", "at least 1", self.max_steps)

    def _integrate(
        self, velocity: Callable[[Tree], Tree], start: Tree, taus: Times
    ) -> tuple[Tree, Array, dict[str, Any]]:
        """Integrate dy/dtau = velocity(y) from y(0) = start.

        **Returns:** y at `taus` with a leading axis (T,), NaN at the times not reached; the status
        code; counts of steps.
        """
        horizon = taus[-1]
        controller = diffrax.PIDController(
            rtol=self.rtol,
            atol=self.atol,
            # Steps under the resolution of the clock would leave it standing still.
            dtmin=2.0**-50 * horizon,
            force_dtmin=False,
        )
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: velocity(y)),
            stiff_solver() if self.solver is None else self.solver,
            t0=jnp.zeros_like(horizon),
            t1=horizon,
            dt0=None,
            y0=start,
            saveat=diffrax.SaveAt(ts=taus),
            stepsize_controller=controller,
            max_steps=self.max_steps,
            adjoint=self.adjoint,
            # Raising inside a jitted function would switch off JAX's persistent compilation cache.
            throw=False,
        )
        stats = {
            "steps": solution.stats["num_steps"],
            "accepted": solution.stats["num_accepted_steps"],
            "rejected": solution.stats["num_rejected_steps"],
        }
        # diffrax fills what it did not reach with infinities.
        reached = jax.tree.map(lambda y: jnp.where(jnp.isinf(y), jnp.nan, y), solution.ys)
        moving = jax.tree.map(lambda v: jnp.all(jnp.isfinite(v)), velocity(start))
        begun = jnp.all(jnp.stack(jax.tree.leaves(moving)))
        status = jnp.where(
            begun, _status(solution.result), jnp.asarray(Status.NON_FINITE, jnp.int32)
        )
        return reached, status, stats
