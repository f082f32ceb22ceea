"""Integration by a solver of diffrax, with the statuses of this package."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import optimistix as optx

from ..._errors import Status
from ..._types import Array, Real, Scalar, Times, Tree
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
    term = diffrax.ODETerm(lambda t, y, args: velocity(y))
    order = solver.error_order(term)
    first, at_start = _first_step(velocity, start, rtol, atol, 5.0 if order is None else order)
    solution = diffrax.diffeqsolve(
        term,
        solver,
        t0=jnp.zeros_like(horizon),
        t1=horizon,
        dt0=first,
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
    status = jnp.where(all_finite(at_start), status, Status.NON_FINITE).astype(jnp.int32)
    return reached, status, stats


def _first_step(
    velocity: Callable[[Tree], Tree], y: Tree, rtol: Real, atol: Real, order: Real
) -> tuple[Scalar, Tree]:
    """Return the first step size that diffrax's `PIDController` chooses, and the velocity at y.

    Here since diffrax keeps that velocity to itself, and a place that asks for it once more is
    compiled once more. Source: E. Hairer, S. P. Norsett, G. Wanner, Solving Ordinary Differential
    Equations I, II.4.
    """
    y = jax.lax.stop_gradient(y)
    scale = jax.tree.map(lambda leaf: atol + jnp.abs(leaf) * rtol, y)

    def norm(tree: Tree) -> Scalar:
        return optx.rms_norm(jax.tree.map(jnp.divide, tree, scale))

    size = norm(y)

    # The velocity at y, and then after an explicit Euler step of size `trial`.
    def evaluate(turn: Array, found: tuple[Tree, Tree, Scalar]) -> tuple[Tree, Tree, Scalar]:
        before, _, trial = found
        after = velocity(jax.tree.map(lambda a, b: a + trial * b, y, before))
        speed = norm(after)
        small = (size < 1e-5) | (speed < 1e-5)
        guess = jnp.where(small, 1e-6, 0.01 * (size / jnp.where(small, 1.0, speed)))
        return after, before, jnp.where(turn == 0, guess, trial)

    zeros = jax.tree.map(jnp.zeros_like, y)
    ahead, first, trial = jax.lax.fori_loop(0, 2, evaluate, (zeros, zeros, jnp.zeros_like(size)))
    curvature = norm(jax.tree.map(jnp.subtract, ahead, first)) / trial
    largest = jnp.maximum(norm(first), curvature)
    guess = jnp.where(
        largest <= 1e-15, jnp.maximum(1e-6, trial * 1e-3), (0.01 / largest) ** (1.0 / order)
    )
    return jax.lax.stop_gradient(jnp.minimum(100.0 * trial, guess)), first
