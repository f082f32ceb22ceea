"""The limit flow, epsilon -> 0 and eta -> 0, in closed form for every jump of the target.

A jump of height w between its two flanking neurons at distances dL and dR obeys
d(dL)/dtau = -w^2 (dR/(dL+dR))^2 and d(dR)/dtau = -w^2 (dL/(dL+dR))^2; everything else rests. With
s the smaller distance and b the larger, b^3 - s^3 = k^3 is conserved, so that
ds/dtau = -w^2 / (1 + s/b)^2, and w^2 tau = F(s(0)) - F(s(tau)) with

    F(s) = integral_0^s (1 + x/(x^3 + k^3)^(1/3))^2 dx = s + b - k + 2 (b t^2 - k I(t)),
    t = s/b,   I(t) = integral_0^t x (1 - x^3)^(-1/3) dx = B(t^3; 2/3, 2/3)/3,

an incomplete beta function, which is y^(2/3) times a power series in y = t^3. B(y; 2/3, 2/3) and
B(1 - y; 2/3, 2/3) have the sum B(2/3, 2/3), so the series is used up to y = 1/2 only. The nearer
neuron arrives at tau = F(s(0))/w^2, when the other one is at distance k.

Source of the equations: arXiv 2304.09576. Their solution, and F, follow by separation of variables.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import (
    Status,
    argument_error,
    check_64_bit,
    check_finite,
    check_type,
    is_concrete,
)
from .._numbers import as_floats
from .._types import Array, Float, Scalar
from ..models.network import Params
from ..models.shallow import ShallowNetwork
from ..models.targets import PiecewiseConstant
from ..problems.base import AbstractProblem
from ..problems.population import Problem
from .base import AbstractDynamics, RunInputs, RunOutputs, check_no_samples, only_real

_POWERS = np.arange(52)
_BINOMIALS = np.cumprod([1.0, *((_POWERS[1:] - 2 / 3) / _POWERS[1:])])
_SERIES = _BINOMIALS / (_POWERS + 2 / 3)
"""Coefficients of B(y; 2/3, 2/3) / y^(2/3), from the binomial series of (1 - y)^(-1/3). At y = 1/2
the first term left out is below 1e-18."""

_COMPLETE_BETA = math.gamma(2 / 3) ** 2 / math.gamma(4 / 3)
"""The complete beta function B(2/3, 2/3)."""

_SECONDS = 1e-5
"""Seconds of one core that a run takes for each recorded time, about."""

_NEWTON_STEPS = 10
"""Iterations of Newton's method. F is convex with slopes between 1 and 4: from above, fewer reach
rounding."""


def _larger(near: Array, cube: Array) -> Array:
    """Return the larger distance b, from the smaller s and the conserved cube b^3 - s^3."""
    total = near**3 + cube
    return jnp.where(total > 0, jnp.cbrt(jnp.where(total > 0, total, 1.0)), 0.0)


def _complement(cube: Array, far: Array) -> Array:
    """Return 1 - t^3 for t = s/b, without cancellation, from the conserved cube."""
    return jnp.where(far > 0, cube / jnp.where(far > 0, far, 1.0) ** 3, 1.0)


def _ratio(near: Array, far: Array) -> Array:
    """Return t = s/b, and 0 if both are 0."""
    return near / jnp.where(far > 0, far, 1.0)


def _moment(t: Array, complement: Array) -> Array:
    """Return I(t), where complement = 1 - t^3."""
    small = t**3 < 0.5
    root = jnp.where(small, t, jnp.cbrt(complement))
    y, series = root**3, jnp.zeros_like(t)
    for coefficient in _SERIES[::-1]:
        series = series * y + coefficient
    part = root**2 * series / 3
    return jnp.where(small, part, _COMPLETE_BETA / 3 - part)


@jax.custom_jvp
def _primitive(near: Array, cube: Array) -> Array:
    """Return F at the smaller distance `near`, for k^3 = `cube`.

    k is not recomputed from two distances: where they are nearly equal, that would lose half of
    the digits.
    """
    far, k = _larger(near, cube), jnp.cbrt(cube)
    t = _ratio(near, far)
    return near + far - k + 2 * (near * t - k * _moment(t, _complement(cube, far)))


@_primitive.defjvp
def _primitive_jvp(primals, tangents):
    # Autodiff would multiply the infinite derivative of the beta function at t = 0 and 1 by zero.
    (near, cube), (d_near, d_cube) = primals, tangents
    far = _larger(near, cube)
    t = _ratio(near, far)
    # At equal distances, k = 0, the derivative is infinite, and 0 is returned instead.
    differ = cube > 0
    far, k = jnp.where(differ, far, 1.0), jnp.where(differ, jnp.cbrt(cube), 1.0)
    moment = _moment(t, _complement(cube, far))
    by_cube = jnp.where(differ, (1 / far**2 - (1 + 2 * moment) / k**2) / 3, 0.0)
    return _primitive(near, cube), (1 + t) ** 2 * d_near + by_cube * d_cube


def _distances(near: Array, far: Array, spent: Array) -> tuple[Array, Array]:
    """Return the smaller and the larger distance when F has fallen by `spent`."""
    cube = far**3 - near**3
    wanted = jnp.maximum(_primitive(near, cube) - spent, 0.0)

    def newton(s: Array, cube: Array, wanted: Array) -> Array:
        slope = (1 + _ratio(s, _larger(s, cube))) ** 2
        return s - (_primitive(s, cube) - wanted) / slope

    # The iterations find the root. One more, which alone is differentiated, gives the root the
    # derivative of the implicit function. A loop compiles the beta function once.
    top, *constants = jax.lax.stop_gradient((near, cube, wanted))
    root = jax.lax.fori_loop(
        0, _NEWTON_STEPS, lambda i, s: jnp.clip(newton(s, *constants), 0.0, top), top
    )
    s = jnp.where(wanted > 0, newton(root, cube, wanted), 0.0)
    return s, _larger(s, cube)


def _flanks(u: Float[Array, " m"], target: PiecewiseConstant) -> tuple[Array, Array, Array]:
    """Return the index of the left neuron of each jump, and both distances, for sorted u."""
    jumps = jnp.asarray(target.jumps)
    left = jnp.searchsorted(u, jumps, side="right") - 1
    return left, jumps - u[left], u[left + 1] - jumps


def hit_times(u: Float[Array, " m"], target: PiecewiseConstant) -> Float[Array, " n-1"]:
    """Return the slow times tau at which the first neuron arrives at each jump in the limit flow.

    **Arguments:** u (m,) in any order, with at least two neurons in every piece of the target.

    **Returns:** (n-1,), one time per jump. Differentiable; infinite only for jumps of height 0.

    **Raises:** `ValueError` naming the piece with fewer than two neurons; NaN under a jax
    transformation, where nothing can be raised.
    """
    check_64_bit()
    check_type("target", target, PiecewiseConstant)
    u = as_floats("u", u)
    if u.ndim != 1:
        raise argument_error("u", "of shape (m,)", f"of shape {u.shape}")
    check_finite("u", u)
    _check_pieces("u", u, target)
    _, left, right = _flanks(jnp.sort(jnp.asarray(u)), target)
    near, far = jnp.minimum(left, right), jnp.maximum(left, right)
    times = _primitive(near, far**3 - near**3) / target.heights**2
    enough = jnp.all(_counts(jnp.asarray(u), jnp.asarray(target.jumps)) >= 2)
    return jnp.where(enough, times, jnp.nan)


def _counts(u: Any, jumps: Any, arrays: Any = jnp) -> Any:
    """Return the number of neurons in each piece of the target, by NumPy or by JAX.

    A neuron outside [0, 1] fits nothing, and does not count. A neuron on a jump covers it, so that
    no other neuron of the two pieces beside needs to: it counts in both.
    """
    lower = arrays.concatenate([arrays.zeros(1, jumps.dtype), jumps])[:, None]
    upper = arrays.concatenate([jumps, arrays.ones(1, jumps.dtype)])[:, None]
    return arrays.sum((u[None, :] >= lower) & (u[None, :] <= upper), axis=1)


def _check_pieces(name: str, u: Array, target: PiecewiseConstant) -> None:
    if not is_concrete(u, target):
        return
    counts = _counts(np.asarray(u), np.asarray(target.jumps), np)  # nothing is compiled
    edges = np.concatenate([[0.0], np.asarray(target.jumps), [1.0]])
    for k in np.flatnonzero(counts < 2):
        raise argument_error(
            name,
            f"positions with at least two neurons in every piece of the target, also in piece {k} "
            f"between {edges[k]:g} and {edges[k + 1]:g}, for the limit flow",
            f"an array with {counts[k]} there",
        )


class LimitFlow(AbstractDynamics):
    """The limit epsilon -> 0 and eta -> 0, in closed form: no time steps and no tolerance.

    For a `Problem` with a `ShallowNetwork`, an activation that rises from one limit to another,
    and a `PiecewiseConstant` target, with at least two neurons in every piece of the target.
    Neurons beside a jump move until the nearer one arrives at it; the others rest.

    Records, exact at every tau: u; a, the best outer weights for transitions of width zero; and
    risk = sum_k w_k^2 dL dR / (dL + dR), which a network of finite eta does not reach.
    Differentiable in the start, the jumps and the values, away from equal distances.

    Source: arXiv 2304.09576.
    """

    def expected_steps(self, horizon: float) -> float:
        del horizon
        return 1.0

    def expected_seconds(
        self, problem: AbstractProblem, width: int, taus: Sequence[float]
    ) -> float:
        del problem, width
        return _SECONDS * len(taus)

    def check(self, given: RunInputs) -> None:
        problem, params = given.problem, given.params
        check_no_samples(given.samples, "LimitFlow")
        only_real(params.u, "params.u")
        if not isinstance(problem, Problem) or not isinstance(problem.target, PiecewiseConstant):
            raise argument_error(
                "problem", "a Problem with a PiecewiseConstant target for LimitFlow", problem
            )
        network = problem.network
        if not isinstance(network, ShallowNetwork) or network.activation.limits is None:
            raise argument_error(
                "network", "a ShallowNetwork with a step-like activation for LimitFlow", network
            )
        if not network.bias:
            raise argument_error("network", "one with a bias for LimitFlow", network)
        _check_pieces("params.u", params.u, problem.target)

    def run(self, given: RunInputs) -> RunOutputs:
        problem, params, taus = given.problem, given.params, given.taus
        assert isinstance(problem, Problem)
        assert isinstance(problem.target, PiecewiseConstant)
        target = problem.target
        order = jnp.argsort(params.u)
        start = params.u[order]
        left, to_left, to_right = _flanks(start, target)
        near, far = jnp.minimum(to_left, to_right), jnp.maximum(to_left, to_right)
        # A jump with a neuron on it moves no neuron: the one on its other side may belong to the
        # next jump. An index past the end moves none.
        moved_left = jnp.where(near > 0, left, start.size)
        moved_right = jnp.where(near > 0, left + 1, start.size)
        limits = problem.network.activation.limits
        assert limits is not None

        def at(tau: Scalar) -> tuple[Params, Scalar]:
            s, b = _distances(near, far, target.heights**2 * tau)
            d_left = jnp.where(to_left <= to_right, s, b)
            d_right = jnp.where(to_left <= to_right, b, s)
            jumps = jnp.asarray(target.jumps)
            u = start.at[moved_left].set(jumps - d_left, mode="drop")
            u = u.at[moved_right].set(jumps + d_right, mode="drop")
            gap = d_left + d_right
            # Between its neurons a jump is fitted by the mean of its two values.
            share = jnp.where(gap > 0, d_right / jnp.where(gap > 0, gap, 1.0), 0.5)
            steps = jnp.zeros_like(start)
            steps = steps.at[left].add(target.heights * share)
            steps = steps.at[left + 1].add(target.heights * (1 - share))
            weights = (steps / (limits[1] - limits[0]))[jnp.argsort(order)]
            bias = jnp.asarray(target.values)[0] - limits[0] * jnp.sum(weights)
            risk = jnp.sum(target.heights**2 * d_left * d_right / jnp.where(gap > 0, gap, 1.0))
            return Params(jnp.concatenate([bias[None], weights]), u[jnp.argsort(order)]), risk

        # Under a transformation `check` cannot look at the numbers, and the status tells instead.
        enough = jnp.all(_counts(start, jnp.asarray(target.jumps)) >= 2)
        ys, risk = jax.tree.map(lambda v: jnp.where(enough, v, jnp.nan), jax.vmap(at)(taus))
        status = jnp.where(enough, Status.OK, Status.TOO_FEW_NEURONS).astype(jnp.int32)
        return RunOutputs(ys, risk, status, {})
