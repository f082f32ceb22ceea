"""Integration by a solver of diffrax, with the statuses of this package."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp

from ..._errors import Status
from ..._types import Array, Real, Times, Tree
from ..step_size import all_finite

_STATUS = (
    (diffrax.RESULTS.successful, Status.OK),
    (diffrax.RESULTS.max_steps_reached, Status.MAX_STEPS),
    (diffrax.RESULTS.dt_min_reached, Status.STAGNATION),
    (diffrax.RESULTS.nonlinear_max_steps_reached, Status.SOLVER),
    (diffrax.RESULTS.nonlinear_divergence, Status.SOLVER),
    (diffrax.RESULTS.singular, Status.SOLVER),
)


def integrate(
    solver: diffrax.AbstractSolver,
    velocity: Callable[[Tree], Tree],
    start: Tree,
    taus: Times,
    rtol: Real,
    atol: Real,
    max_steps: int,
    adjoint: diffrax.AbstractAdjoint | None,
) -> tuple[Tree, Array, dict[str, Any]]:
    """Integrate dy/dtau = velocity(y) from y(0) = start with a solver of diffrax.

    **Returns:** states at `taus`, with a leading axis (T,) and NaN at those not reached; the status
    code; counts of steps.
    """
    # Traced once for all places that ask for it.
    velocity = jax.jit(lambda y, of=velocity: of(y))
    horizon = taus[-1]
    controller = diffrax.PIDController(
        rtol=rtol,
        atol=atol,
        # Adding a smaller step to the time would round to the time itself.
        dtmin=2.0**-50 * horizon,
        force_dtmin=False,
    )
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: velocity(y)),
        solver,
        t0=jnp.zeros_like(horizon),
        t1=horizon,
        dt0=None,
        y0=start,
        saveat=diffrax.SaveAt(ts=taus),
        stepsize_controller=controller,
        max_steps=max_steps,
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        # Raising inside a jitted function would switch off JAX's persistent compilation cache.
        throw=False,
    )
    stats = {
        "steps": solution.stats["num_steps"],
        "accepted": solution.stats["num_accepted_steps"],
        "rejected": solution.stats["num_rejected_steps"],
    }
    # diffrax fills the records of times that it did not reach with infinities.
    reached = jax.tree.map(lambda y: jnp.where(jnp.isinf(y), jnp.nan, y), solution.ys)
    status = jnp.asarray(Status.NON_FINITE, jnp.int32)
    for result, code in _STATUS:
        status = jnp.where(solution.result == result, jnp.asarray(code, jnp.int32), status)
    status = jnp.where(all_finite(velocity(start)), status, Status.NON_FINITE).astype(jnp.int32)
    return reached, status, stats
