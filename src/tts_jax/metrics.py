"""Metrics of parameters and trajectories.

Shapes such as (..., m) allow any leading axes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._errors import argument_error, check_type
from ._numbers import as_floats, as_real, check_scalar
from ._types import Array, Float, Scalar, Tree
from .models.network import Params
from .models.shallow import ShallowNetwork
from .models.targets import PiecewiseConstant
from .numerics.gram import RIDGE
from .problems.base import AbstractProblem
from .problems.population import Problem
from .trajectory import Trajectory

__all__ = [
    "MULTIPLE",
    "conserved_cubes",
    "conserved_drift",
    "covered",
    "distance",
    "floor",
    "nearest_neuron",
    "recovered",
    "recovery_threshold",
    "slaving_gap",
]


def __dir__() -> list[str]:
    return __all__


MULTIPLE = 2.5
"""How many times the `floor` of its problem a target's risk may be to count as recovered."""


def nearest_neuron(u: Float[Array, "... m"], target: PiecewiseConstant) -> Float[Array, "... n-1"]:
    """Return the distance from each jump of the target to its nearest neuron.

    Positions that are NaN do not count, such as those that fill up narrow networks in a sweep;
    without any other one the distance is NaN.
    """
    check_type("target", target, PiecewiseConstant)
    u = _positions(u)
    jumps = jnp.reshape(jnp.asarray(target.jumps), (1,) * (jnp.ndim(u) - 1) + (-1, 1))
    return jnp.nanmin(jnp.abs(u[..., None, :] - jumps), axis=-1)


def _positions(u: Any) -> Any:
    if "neuron" in getattr(u, "dims", ()):
        u = u.transpose(..., "neuron")  # of a sweep, with its axes in any order
    u = as_floats("u", u)
    if u.ndim == 0:
        raise argument_error("u", "positions of shape (..., m)", "a single number")
    return u


def covered(
    u: Float[Array, "... m"], target: PiecewiseConstant, *, eta: float | Scalar
) -> Float[Array, "... n-1"]:
    """Return which jumps are covered by a neuron within eta/2, whose transition contains them."""
    eta = as_real("eta", eta)
    check_scalar("eta", eta, minimum=0.0, strict=True)
    return nearest_neuron(u, target) <= eta / 2


def floor(problem: Problem) -> Scalar:
    """Return the risk of a network with one neuron on each jump, of the height of the jump.

    For a CubicStep and jumps more than eta apart that is eta * sum_k w_k^2 / 28. Several neurons on
    a jump, with outer weights fitted to them, reach slightly less. Where jumps are closer together
    than eta, the weights are fitted: those heights would not be the best by far.
    """
    target, network = _steps_of(problem)
    assert network.activation.limits is not None
    low, high = network.activation.limits
    weights = target.heights / (high - low)
    bias = jnp.asarray(target.values)[0] - low * jnp.sum(weights)
    jumps = jnp.asarray(target.jumps)
    risk = problem.risk(Params(jnp.concatenate([bias[None], weights]), jumps))
    if jumps.size < 2:
        return risk
    fitted = problem.risk(Params(problem.best_outer(jumps), jumps))
    are_close = jnp.min(jnp.diff(jumps)) < jnp.asarray(network.activation.eta)
    return jnp.where(are_close, jnp.minimum(risk, fitted), risk)


def recovery_threshold(problem: Problem, *, multiple: float = MULTIPLE) -> Scalar:
    """Return the risk below which a target counts as recovered.

    That is `multiple` times the `floor`, but at most half the risk of the best function of steps
    that misses one of the jumps. Between pieces of lengths l and l', a jump of height w that is
    missed costs w^2 l l' / (l + l'), which is less than the floor where eta is large or a piece is
    short: there a network that has learned nothing of the jump would count as well.
    """
    multiple = as_real("multiple", multiple)
    check_scalar("multiple", multiple, minimum=0.0, strict=True)
    limit = multiple * floor(problem)
    target, _ = _steps_of(problem)
    if np.size(target.jumps) == 0:
        return limit
    lengths = jnp.diff(jnp.asarray(target.jumps), prepend=0.0, append=1.0)
    missed = target.heights**2 * lengths[1:] * lengths[:-1] / (lengths[1:] + lengths[:-1])
    # A jump of no height is none.
    return jnp.minimum(limit, 0.5 * jnp.min(jnp.where(target.heights == 0, jnp.inf, missed)))


def recovered(risk: Float[Array, "..."], problem: Problem, *, multiple: float = MULTIPLE) -> Array:
    """Return whether the target is recovered: the risk lies below the `recovery_threshold`."""
    return as_floats("risk", risk) < recovery_threshold(problem, multiple=multiple)


def _steps_of(problem: Problem) -> tuple[PiecewiseConstant, ShallowNetwork]:
    """Return the target and the network of a problem that has a floor, of jumps and steps."""
    check_type("problem", problem, Problem)
    target, network = problem.target, problem.network
    if not isinstance(target, PiecewiseConstant):
        raise argument_error("problem.target", "a PiecewiseConstant", type(target).__name__)
    limits = network.activation.limits
    if not isinstance(network, ShallowNetwork) or not network.bias or limits is None:
        raise argument_error("problem.network", "a ShallowNetwork of steps with a bias", network)
    return target, network


def distance(first: Trajectory, second: Trajectory) -> tuple[Array, Array]:
    """Return how far apart two runs with the same recorded times are, such as two flows.

    **Returns:** |risk - risk'| (T,) and max_j |u_j - u'_j| (T,), with the leading axes of a batch.

    **Raises:** `ValueError` if the recorded times, or the shapes of u, differ.
    """
    check_type("first", first, Trajectory)
    check_type("second", second, Trajectory)
    if first.taus.shape != second.taus.shape or bool(jnp.any(first.taus != second.taus)):
        raise argument_error("second", "recorded at the same taus as first", "recorded at others")
    of_first, of_second = (jax.tree.map(np.shape, run.params.u) for run in (first, second))
    if of_first != of_second:
        raise argument_error("second", "of parameters u with the shapes of first", "of others")
    batch = jnp.ndim(first.risk)
    distances = [
        jnp.max(jnp.abs(p - q).reshape(*p.shape[:batch], -1), axis=-1)
        for p, q in zip(
            jax.tree.leaves(first.params.u), jax.tree.leaves(second.params.u), strict=True
        )
    ]
    return jnp.abs(first.risk - second.risk), jnp.max(jnp.stack(distances), axis=0)


def slaving_gap(
    problem: AbstractProblem, trajectory: Trajectory, *, ridge: float | Scalar = RIDGE
) -> Float[Array, " T"]:
    """Return L(a, u) - L(a*(u), u) along a run: how far the outer layer is from its best fit.

    The shape is that of the risk, also of a batch of runs.

    **Raises:** `ValueError` for a problem without a best outer layer.
    """
    check_type("problem", problem, AbstractProblem)
    if not problem.has_best_outer():
        raise argument_error("problem", "one with a best outer layer", type(problem).__name__)
    check_type("trajectory", trajectory, Trajectory)
    ridge = as_real("ridge", ridge)
    check_scalar("ridge", ridge, minimum=0.0, strict=True)

    def best(u: Tree) -> Scalar:
        return problem.risk(Params(problem.best_outer(u, ridge=ridge), u))

    for _ in range(jnp.ndim(trajectory.risk)):
        best = jax.vmap(best)
    return trajectory.risk - best(trajectory.params.u)


def conserved_cubes(u: Float[Array, "... m"], target: PiecewiseConstant) -> Float[Array, "... n-1"]:
    """Return dL^3 - dR^3 for the neurons beside each jump, which the limit flow conserves.

    dL and dR are the distances to the nearest neuron on the left and on the right. The gradient
    flow conserves this number up to errors of the order of epsilon and eta, until a neuron arrives.
    Positions that are NaN do not count.
    """
    check_type("target", target, PiecewiseConstant)
    u = _positions(u)
    jumps = jnp.reshape(jnp.asarray(target.jumps), (1,) * (jnp.ndim(u) - 1) + (-1, 1))
    offset = u[..., None, :] - jumps
    left = jnp.min(jnp.where(offset <= 0, -offset, jnp.inf), axis=-1)
    right = jnp.min(jnp.where(offset > 0, offset, jnp.inf), axis=-1)
    return left**3 - right**3


def conserved_drift(trajectory: Trajectory, target: PiecewiseConstant) -> Float[Array, "T n-1"]:
    """Return the change of `conserved_cubes` since the first recorded time, relative to 1/m^3.

    1/m is the typical distance between m neurons: a drift of 1 is as large as the cubes themselves.
    Of a batch of runs it has the leading axes of the batch.
    """
    check_type("trajectory", trajectory, Trajectory)
    cubes = conserved_cubes(trajectory.params.u, target)
    return (cubes - cubes[..., :1, :]) * trajectory.params.u.shape[-1] ** 3
