"""The limit of both small numbers, epsilon -> 0 and eta -> 0: jumps move apart, in closed form.

A jump of height w between its two flanking neurons at distances dL and dR obeys
d(dL)/dtau = -w^2 (dR/(dL+dR))^2 and d(dR)/dtau = -w^2 (dL/(dL+dR))^2; everything else rests. With
s the smaller distance and b the larger, b^3 - s^3 = k^3 is conserved, so that
ds/dtau = -w^2 / (1 + s/b)^2, and w^2 tau = F(s(0)) - F(s(tau)) with

    F(s) = integral_0^s (1 + x/(x^3 + k^3)^(1/3))^2 dx = s + b - k + 2 (b t^2 - k I(t)),
    t = s/b,   I(t) = integral_0^t x (1 - x^3)^(-1/3) dx,   an incomplete beta function.

The near neuron arrives at tau = F(s(0))/w^2, when the far one is at distance k.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc
from scipy.special import beta

from .._errors import argument_error, is_concrete
from .._types import Array, Float, Key, Scalar, Times
from ..networks import Params, ShallowNetwork
from ..problem import AbstractProblem, Problem
from ..targets import PiecewiseConstant
from .base import AbstractDynamics, Records, Samples, check_no_samples, only_real

_NEWTON_STEPS = 10
"""F is convex with slopes between 1 and 4: from above, Newton reaches rounding in fewer."""


def _conserved(near: Array, far: Array) -> tuple[Array, Array]:
    """k, and whether it is above 0: at equal distances its derivative is infinite."""
    cube = far**3 - near**3
    apart = cube > 0
    return jnp.where(apart, jnp.cbrt(jnp.where(apart, cube, 1.0)), 0.0), apart


def _moment(near: Array, far: Array) -> Array:
    """I(near/far)."""
    t = near / jnp.where(far > 0, far, 1.0)
    return betainc(2 / 3, 2 / 3, jnp.clip(t**3, 0.0, 1.0)) * (beta(2 / 3, 2 / 3) / 3)


@jax.custom_jvp
def _primitive(near: Array, far: Array) -> Array:
    """F at the smaller distance `near`, when the larger is `far`."""
    k, _ = _conserved(near, far)
    t = near / jnp.where(far > 0, far, 1.0)
    return near + far - k + 2 * (near * t - k * _moment(near, far))


@_primitive.defjvp
def _primitive_jvp(primals, tangents):
    # Autodiff would multiply the infinite derivative of the beta function at t = 0 and 1 by zero.
    (near, far), (d_near, d_far) = primals, tangents
    k, apart = _conserved(near, far)
    t = near / jnp.where(far > 0, far, 1.0)
    ratio = jnp.where(apart, far / jnp.where(apart, k, 1.0), 0.0)
    # 3 b^2 times the derivative of F by k^3 at fixed s.
    by_far = jnp.where(apart, 1 - (1 + 2 * _moment(near, far)) * ratio**2, 0.0)
    return _primitive(near, far), ((1 + t) ** 2 - t**2 * by_far) * d_near + by_far * d_far


def _near_distance(near: Array, far: Array, spent: Array) -> tuple[Array, Array]:
    """The two distances when F has fallen by `spent`."""
    conserved = far**3 - near**3
    wanted = jnp.maximum(_primitive(near, far) - spent, 0.0)

    def larger(s: Array) -> Array:
        cube = s**3 + conserved
        return jnp.where(cube > 0, jnp.cbrt(jnp.where(cube > 0, cube, 1.0)), 0.0)

    def newton(s: Array) -> Array:
        b = larger(s)
        slope = (1 + s / jnp.where(b > 0, b, 1.0)) ** 2
        return s - (_primitive(s, b) - wanted) / slope

    # The iterations find the root; the last one, which alone is differentiated, gives it the
    # derivative of the implicit function.
    fixed = jax.lax.stop_gradient(near)
    for _ in range(_NEWTON_STEPS):
        fixed = jax.lax.stop_gradient(jnp.clip(newton(fixed), 0.0, near))
    s = jnp.where(wanted > 0, newton(fixed), 0.0)
    return s, larger(s)


def _flanks(u: Float[Array, " m"], target: PiecewiseConstant) -> tuple[Array, Array, Array]:
    """For sorted u: the index of the left neuron of each jump, and both distances."""
    jumps = jnp.asarray(target.jumps)
    left = jnp.searchsorted(u, jumps, side="right") - 1
    return left, jumps - u[left], u[left + 1] - jumps


def hit_times(u: Float[Array, " m"], target: PiecewiseConstant) -> Float[Array, " n-1"]:
    """Slow times tau at which the first neuron arrives at each jump under the limit flow.

    **Arguments:** u (m,) in any order, with at least two neurons in every piece of the target.

    **Returns:** (n-1,), one time per jump. Differentiable; infinite only for jumps of height 0.

    **Raises:** `ValueError` naming the piece with fewer than two neurons.
    """
    _check_pieces(u, target)
    _, left, right = _flanks(jnp.sort(jnp.asarray(u)), target)
    return _primitive(jnp.minimum(left, right), jnp.maximum(left, right)) / target.heights**2


def _check_pieces(u: Array, target: PiecewiseConstant) -> None:
    if not is_concrete(u, target):
        return
    edges = np.concatenate([[0.0], np.asarray(target.jumps), [1.0]])
    piece = np.searchsorted(edges[1:-1], np.asarray(u), side="right")
    counts = np.bincount(piece, minlength=edges.size - 1)
    for k in np.flatnonzero(counts < 2):
        raise argument_error(
            "u",
            f"at least two neurons in every piece of the target for the limit flow, also in piece "
            f"{k} between {edges[k]:g} and {edges[k + 1]:g}",
            f"{counts[k]} there",
        )


class LimitFlow(AbstractDynamics):
    """The limit epsilon -> 0 and eta -> 0, in closed form: no time steps and no tolerance.

    For a `Problem` with a `ShallowNetwork`, an activation that rises from one limit to another,
    and a `PiecewiseConstant` target, with at least two neurons in every piece of the target.
    Neurons beside a jump move until the nearer one arrives at it; the others rest.

    Records, exact at every tau: u; a, the best outer weights for transitions of width zero; and
    risk = sum_k w_k^2 dL dR / (dL + dR), which a network of finite eta does not reach.
    Differentiable in the start, the jumps and the values, away from equal distances.

    Source: arXiv 2304.09576, the limit there.
    """

    def check(
        self,
        problem: AbstractProblem,
        params: Params,
        taus: Times,
        key: Key | None,
        samples: Samples | None,
    ) -> None:
        check_no_samples(samples, "LimitFlow")
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
        _check_pieces(params.u, problem.target)

    def run(
        self,
        problem: AbstractProblem,
        params: Params,
        taus: Times,
        key: Key | None,
        samples: Samples | None,
    ) -> Records:
        assert isinstance(problem, Problem)
        assert isinstance(problem.target, PiecewiseConstant)
        target = problem.target
        order = jnp.argsort(params.u)
        start = params.u[order]
        left, to_left, to_right = _flanks(start, target)
        near, far = jnp.minimum(to_left, to_right), jnp.maximum(to_left, to_right)
        limits = problem.network.activation.limits
        assert limits is not None

        def at(tau: Scalar) -> tuple[Params, Scalar]:
            s, b = _near_distance(near, far, target.heights**2 * tau)
            d_left = jnp.where(to_left <= to_right, s, b)
            d_right = jnp.where(to_left <= to_right, b, s)
            jumps = jnp.asarray(target.jumps)
            u = start.at[left].set(jumps - d_left).at[left + 1].set(jumps + d_right)
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

        ys, risk = jax.vmap(at)(taus)
        return Records(ys, risk, jnp.zeros((), jnp.int32), {})
