"""Metrics of parameters and trajectories.

Shapes such as (..., m) allow any leading axes.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ._errors import argument_error, check_type
from ._numbers import as_floats, as_real, check_scalar
from ._types import Array, Float, Scalar
from .models.network import Params
from .models.shallow import ShallowNetwork
from .models.targets import PiecewiseConstant
from .numerics.gram import RIDGE
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
    "slaving_gap",
]


def __dir__() -> list[str]:
    return __all__


MULTIPLE = 2.5
"""A target is recovered when the risk is below so many times the `floor` of the problem."""


def nearest_neuron(u: Float[Array, "... m"], target: PiecewiseConstant) -> Float[Array, "... n-1"]:
    """Return the distance from each jump of the target to its nearest neuron."""
    check_type("target", target, PiecewiseConstant)
    u = _positions(u)
    jumps = jnp.reshape(jnp.asarray(target.jumps), (1,) * (jnp.ndim(u) - 1) + (-1, 1))
    return jnp.min(jnp.abs(u[..., None, :] - jumps), axis=-1)


def _positions(u: Any) -> Any:
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
    a jump, with outer weights fitted to them, reach slightly less.
    """
    check_type("problem", problem, Problem)
    target, network = problem.target, problem.network
    if not isinstance(target, PiecewiseConstant):
        raise argument_error("problem.target", "a PiecewiseConstant", type(target).__name__)
    limits = network.activation.limits
    if not isinstance(network, ShallowNetwork) or not network.bias or limits is None:
        raise argument_error("problem.network", "a ShallowNetwork of steps with a bias", network)
    weights = target.heights / (limits[1] - limits[0])
    bias = jnp.asarray(target.values)[0] - limits[0] * jnp.sum(weights)
    a = jnp.concatenate([bias[None], weights])
    return problem.risk(Params(a, jnp.asarray(target.jumps)))


def recovered(risk: Float[Array, "..."], problem: Problem, *, multiple: float = MULTIPLE) -> Array:
    """Return whether the target is recovered: the risk lies below `multiple` times the `floor`.

    One uncovered jump of height w adds about w^2 times a distance between neurons to the risk,
    which is far more.
    """
    risk, multiple = as_floats("risk", risk), as_real("multiple", multiple)
    check_scalar("multiple", multiple, minimum=0.0, strict=True)
    return risk < multiple * floor(problem)


def distance(first: Trajectory, second: Trajectory) -> tuple[Array, Array]:
    """Return how far apart two runs with the same recorded times are, such as two flows.

    **Returns:** |risk - risk'| (T,) and max_j |u_j - u'_j| (T,).

    **Raises:** `ValueError` if the recorded times differ.
    """
    check_type("first", first, Trajectory)
    check_type("second", second, Trajectory)
    if first.taus.shape != second.taus.shape or bool(jnp.any(first.taus != second.taus)):
        raise argument_error("second", "recorded at the same taus as first", "recorded at others")
    distances = [
        jnp.max(jnp.abs(p - q).reshape(p.shape[0], -1), axis=1)
        for p, q in zip(
            jax.tree.leaves(first.params.u), jax.tree.leaves(second.params.u), strict=True
        )
    ]
    return jnp.abs(first.risk - second.risk), jnp.max(jnp.stack(distances), axis=0)


def slaving_gap(
    problem: Problem, trajectory: Trajectory, *, ridge: float | Scalar = RIDGE
) -> Float[Array, " T"]:
    """Return L(a, u) - L(a*(u), u) along a run: how far the outer layer is from its best fit."""

    check_type("problem", problem, Problem)
    check_type("trajectory", trajectory, Trajectory)
    ridge = as_real("ridge", ridge)
    check_scalar("ridge", ridge, minimum=0.0, strict=True)

    def best(u: Array) -> Scalar:
        return problem.risk(Params(problem.best_outer(u, ridge=ridge), u))

    return trajectory.risk - jax.vmap(best)(trajectory.params.u)


def conserved_cubes(u: Float[Array, "... m"], target: PiecewiseConstant) -> Float[Array, "... n-1"]:
    """Return dL^3 - dR^3 for the neurons beside each jump, which the limit flow conserves.

    dL and dR are the distances to the nearest neuron on the left and on the right. The gradient
    flow conserves this number up to errors of the order of epsilon and eta, until a neuron arrives.
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
    """
    check_type("trajectory", trajectory, Trajectory)
    cubes = conserved_cubes(trajectory.params.u, target)
    return (cubes - cubes[:1]) * trajectory.params.u.shape[-1] ** 3
