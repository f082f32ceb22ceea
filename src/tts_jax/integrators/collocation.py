"""Exponential collocation for slow-fast gradient flows whose risk is quadratic in the fast layer.

With the risk L(a, u) = tr(a^T H(u) a) - 2 tr(b(u)^T a) + ... the flow is

    epsilon da/dtau = -2 (H(u) a - b(u)),    du/dtau = k = -rates grad_u L(a, u).

A step of size h has the five Lobatto nodes c_j. Sweeps improve the slopes k_j of u at them:

1. u_i = u_0 + h sum_j S_ij k_j, and from that H_i and b_i;
2. a at the nodes, at these H_i and b_i, by an inner iteration. With one symmetric matrix A near all
   2 H_i and its eigenvectors, a relaxes exactly, at the rates z = h A / epsilon, under the forcing
   N_j = A a_j - 2 (H_j a_j - b_j), which changes slowly: see `relaxation`;
3. k_j from a_j and u_j.

This is a spectral deferred correction with the fast layer integrated exactly. Its order is that of
the nodes, 5 and more, at every epsilon: 1/epsilon is nowhere but in the rates z, and with a slaved
u is hardly stiff. A sweep costs four gradients. Sweeps are accelerated, see `anderson`, so that
steps may be several times longer than plain sweeps converge for: that is what long horizons need.
They have converged when the slopes change little; how little that is tells an estimate of the
Lipschitz constant of k, by which a sweep brings them nearer to their limit.

Sources: A. Dutt, L. Greengard, V. Rokhlin, BIT 40:241 (2000), for deferred corrections; M.
Hochbruck, A. Ostermann, SIAM J. Numer. Anal. 43:1069 (2005), for exponential collocation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Array, Float, Scalar, Tree
from ..numerics.products import product
from .anderson import History, accelerated, no_history
from .lobatto import (
    BEFORE_OTHERS,
    INTEGRALS,
    NODES,
    TO_MIDDLE,
    WITHOUT_FIRST,
    integrals_to,
    lagrange_at,
)
from .quadratic_risk import AbstractQuadraticRisk, QuadraticNodes
from .relaxation import relaxation_weights
from .rosenbrock import AbstractSystem, combine
from .swept_state import Halves, SweptState, SweptStep

_SWEEPS = 8
"""Sweeps of a step, at most. A step that needs more is too long."""

_INNER = 12
"""Inner iterations of a sweep, at most."""

_INNER_TOLERANCE = 0.003
"""By how much of the tolerance the last inner iteration may change the network."""

_CONVERGED = 0.03
"""The part of the tolerance that is left to sweeps."""

_REJECTIONS = 2
"""Rejections of a step after which the gradient at its start is computed anew."""

_VISIBLE = 0.05
"""Changes of the network below this part of the tolerance say nothing about the next ones."""

_EXTRAPOLATED = 2.0
"""How much longer than the last step a step may be that begins with the polynomial of that one."""

_FEW = 5
"""Inner iterations after which eigenvectors are good for the next step, too."""


class _Sweep(NamedTuple):
    """Where the sweeps of a step stand.

    The slopes, and earlier ones; a in eigenvectors and its forcing, at the nodes; H a - b at the
    end; the change of the network by the last sweep and by the last inner iteration; the error of
    the quadrature; an estimate of the Lipschitz constant; how many sweeps there were, and how many
    inner iterations in one of them, at most.
    """

    slopes: Tree
    earlier: History
    modes: Array
    forcing: Array
    residual: Array
    change: Scalar
    inner_change: Scalar
    quadrature: Scalar
    lipschitz: Scalar
    sweeps: Scalar
    inner: Scalar


class CollocationSystem(AbstractSystem):
    """The gradient flow of a risk that is quadratic in a, by exponential collocation.

    `relative`: relative rates of u, as a tree like u, or None for 1. Errors of a step are measured
    in the network: the root mean square of what they change in it, against atol + rtol `scale`.
    """

    risk: AbstractQuadraticRisk
    epsilon: Scalar
    relative: Tree
    rtol: Scalar
    atol: Scalar
    is_reversible: bool = eqx.field(static=True, default=False)

    def begin(self, a: Float[Array, "p K"], u: Tree) -> SweptState:
        """Return the state of a start."""
        at = self.risk.nodes(_one(u))
        residual, slopes = self._slopes(at, a[None])
        rates, vectors = _eigenvectors(self.risk.gram(u))
        zero = jnp.zeros_like(self.epsilon)
        return SweptState(
            a=a,
            u=u,
            slopes=jax.tree.map(lambda leaf: jnp.repeat(leaf, NODES.size, axis=0), slopes),
            size=zero,
            residual=residual[0],
            rates=rates,
            vectors=vectors,
            stale=zero,
            lipschitz=zero,
            measured=zero,
            rejections=zero,
            gradients=zero + 1,
            factorisations=zero + 1,
        )

    def first_step(self, y: SweptState, rtol: Scalar, atol: Scalar) -> tuple[Scalar, Tree]:
        """Return a step in which neither layer moves far."""
        slope = jax.tree.map(lambda leaf: leaf[0], y.slopes)
        speed = self.risk.nodes(_one(y.u)).moved(y.a, slope)
        fast = self.epsilon / jnp.maximum(y.rates[-1], 1e-300)
        slow = 0.1 * self.risk.scale() / jnp.maximum(speed, 1e-300)
        return jax.lax.stop_gradient(jnp.minimum(fast, slow)), (slope, y.residual)

    def step(self, y: SweptState, h: Scalar) -> SweptStep:
        zero = jnp.zeros_like(h)
        fixed = jax.lax.stop_gradient
        tolerance = fixed(self.atol + self.rtol * self.risk.scale())
        y, first = self._start_of_step(y)
        predicted = _predicted(y, h, first)
        stale = y.stale > 0

        def anew() -> tuple[Array, Array]:
            middle = _moved(y.u, h, combine(jnp.asarray(TO_MIDDLE), predicted))
            return _eigenvectors(self.risk.gram(middle))

        rates, vectors = fixed(jax.lax.cond(stale, anew, lambda: (y.rates, y.vectors)))
        decay = h * rates / self.epsilon
        ends = jnp.asarray(NODES[1:])
        weights = relaxation_weights(decay, ends)
        start = product(vectors.T, y.a)
        relaxed = jnp.exp(-decay[None, :] * ends[:, None])[..., None] * start[None]
        per_step = h / self.epsilon

        def modes_of(values: Array) -> Array:
            return product(vectors.T[None], values)

        def with_first(slopes: Tree) -> Tree:
            return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, slopes)

        def forced_without_first(forcing: Array) -> Array:
            """The change of a if the forcing is interpolated without the first node."""
            apart = forcing[0] - jnp.tensordot(jnp.asarray(BEFORE_OTHERS), forcing[1:], 1)
            return (weights[-1, 0][:, None] * apart)[None]

        def sweep(now: _Sweep) -> _Sweep:
            us = jax.vmap(lambda row: _moved(y.u, h, combine(row, now.slopes)))(
                jnp.asarray(INTEGRALS[1:])
            )
            at = self.risk.nodes(us)

            def relax(state: tuple[Array, Array, Scalar, Scalar]) -> tuple:
                modes, _, _, count = state
                residual = at.residual(product(vectors[None], modes[1:]))
                residual = jnp.concatenate([y.residual[None], residual])
                forcing = per_step * (rates[None, :, None] * modes - 2 * modes_of(residual))
                driven = jnp.sum(weights[..., None] * forcing[None], axis=1)
                new = jnp.concatenate([start[None], relaxed + driven])
                return new, forcing, _size(new - modes, rates), count + 1

            modes, forcing, inner_change, inner = self._repeat(
                lambda state: state[2] > _INNER_TOLERANCE * tolerance,
                relax,
                (now.modes, now.forcing, zero + jnp.inf, zero),
                _INNER,
            )
            outer = product(vectors[None], modes[1:])
            residual, image = self._slopes(at, outer)
            slopes = with_first(image)

            def moved(weights: Any, slopes: Tree) -> Scalar:
                change = jax.tree.map(lambda leaf: h * leaf, combine(jnp.asarray(weights), slopes))
                return fixed(at.moved(*fixed((outer[-1], change))))

            change = moved(INTEGRALS[-1], jax.tree.map(jnp.subtract, slopes, now.slopes))
            quadrature = moved(INTEGRALS[-1] - WITHOUT_FIRST, slopes)
            better, earlier = accelerated(now.earlier, _others(now.slopes), image)
            return _Sweep(
                with_first(better),
                earlier,
                modes,
                forcing,
                residual[-1],
                change,
                inner_change,
                jnp.maximum(quadrature, _size(forced_without_first(forcing), rates)),
                _lipschitz(now, change, y, h, tolerance),
                now.sweeps + 1,
                jnp.maximum(now.inner, inner),
            )

        def goes_on(now: _Sweep) -> Array:
            # Where the Lipschitz constant is unknown, the next sweep may change as much as this.
            unknown = (now.sweeps < 2) & ((h > 2 * y.measured) | (y.rejections > 0))
            left = jnp.where(unknown, 1.0, _part_left(now.lipschitz, h)) * now.change
            return ~(left <= _CONVERGED * tolerance)

        modes = jnp.repeat(start[None], NODES.size, axis=0)
        begin = _Sweep(
            *(predicted, no_history(_others(predicted))),
            *(modes, jnp.zeros_like(modes), y.residual),
            *(zero + jnp.inf, zero + jnp.inf, zero + jnp.inf, y.lipschitz, zero, zero),
        )
        now = self._repeat(goes_on, sweep, begin, _SWEEPS)
        # What iterations leave counts where they did not converge: else it is small, but does not
        # shrink with the step as an error does, and would keep the next step from growing.
        left = _part_left(now.lipschitz, h) * now.change
        left = jnp.where(left <= _CONVERGED * tolerance, 0.0, left)
        inner = jnp.where(now.inner_change <= _INNER_TOLERANCE * tolerance, 0.0, now.inner_change)
        error = jnp.maximum(jnp.maximum(now.quadrature, left), inner) / tolerance
        last = jnp.asarray(INTEGRALS[-1])
        after = SweptState(
            a=product(vectors, now.modes[-1]),
            u=_moved(y.u, h, combine(last, now.slopes)),
            slopes=now.slopes,
            size=h,
            residual=now.residual,
            rates=rates,
            vectors=vectors,
            stale=jnp.where(now.inner > _FEW, 1.0, 0.0),
            lipschitz=now.lipschitz,
            measured=jnp.where(now.sweeps > 1, h, y.measured),
            rejections=zero,
            gradients=y.gradients + 4 * now.sweeps,
            factorisations=y.factorisations + jnp.where(stale, 1.0, 0.0),
        )
        return SweptStep(after, now.forcing, decay, fixed(error))

    def step_error(self, step: SweptStep, before: SweptState, rtol: Scalar, atol: Scalar) -> Scalar:
        del before, rtol, atol  # sweeps stop by the tolerance, which a step thus knows
        return step.error

    def field_at_start(self, step: SweptStep) -> Tree:
        return jax.tree.map(lambda leaf: leaf[0], step.after.slopes)

    def interpolate(self, y: SweptState, step: SweptStep, part: Scalar) -> Halves:
        after = step.after
        start = product(after.vectors.T, y.a)
        weights = relaxation_weights(step.decay, part[None])[0]
        modes = jnp.exp(-step.decay * part)[:, None] * start
        modes = modes + jnp.sum(weights[..., None] * step.forcing, axis=0)
        u = _moved(y.u, after.size, combine(integrals_to(part), after.slopes))
        return Halves(product(after.vectors, modes), u)

    def recorded(self, y: SweptState) -> Halves:
        return Halves(y.a, y.u)

    def after_rejection(self, y: SweptState, step: SweptStep) -> SweptState:
        return y._replace(
            stale=jnp.ones_like(y.stale),
            rejections=y.rejections + 1,
            gradients=step.after.gradients,
            factorisations=step.after.factorisations,
        )

    def reversible(self) -> "CollocationSystem":
        return CollocationSystem(
            self.risk, self.epsilon, self.relative, self.rtol, self.atol, is_reversible=True
        )

    def _start_of_step(self, y: SweptState) -> tuple[SweptState, Tree]:
        """Return the state, and the slopes at its start with a leading axis (1,).

        Both are those at the end of the last step, where u was one sweep behind. That suits a,
        which relaxed at this u, and is as accurate as the step. But it is no solution from here:
        where steps do not succeed, the gradient here is computed, from which a relaxes anew.
        """

        def anew() -> tuple[Array, Tree, Scalar]:
            residual, slopes = self._slopes(self.risk.nodes(_one(y.u)), y.a[None])
            return residual[0], slopes, y.gradients + 1

        def kept() -> tuple[Array, Tree, Scalar]:
            return y.residual, jax.tree.map(lambda leaf: leaf[-1:], y.slopes), y.gradients

        residual, slopes, count = jax.lax.cond(y.rejections >= _REJECTIONS, anew, kept)
        return y._replace(residual=residual, gradients=count), slopes

    def _slopes(self, at: QuadraticNodes, a: Array) -> tuple[Array, Tree]:
        """Return H a - b and k for a (n, p, K) at n places."""
        residual, gradients = at.gradients(a)
        if self.relative is None:
            return residual, jax.tree.map(jnp.negative, gradients)
        return residual, jax.tree.map(lambda rate, g: -rate[None] * g, self.relative, gradients)

    def _repeat(self, goes_on: Callable, body: Callable, state: Tree, most: int) -> Tree:
        """Return the state after `body` as long as `goes_on`, once at least, and `most` times."""
        if not self.is_reversible:
            return jax.lax.while_loop(
                lambda s: (s[1] < 1) | ((s[1] < most) & goes_on(s[0])),
                lambda s: (body(s[0]), s[1] + 1),
                (state, 0),
            )[0]

        def turn(state: Tree, i: Array) -> tuple[Tree, None]:
            return jax.lax.cond((i < 1) | goes_on(state), body, lambda s: s, state), None

        return jax.lax.scan(turn, state, jnp.arange(most))[0]


def _one(u: Tree) -> Tree:
    """Return one place, as several are given."""
    return jax.tree.map(lambda leaf: leaf[None], u)


def _others(slopes: Tree) -> Tree:
    """Return the slopes at all nodes but the first."""
    return jax.tree.map(lambda leaf: leaf[1:], slopes)


def _moved(u: Tree, h: Scalar, slope: Tree) -> Tree:
    """Return u + h slope."""
    return jax.tree.map(lambda leaf, k: leaf + h * k, u, slope)


def _eigenvectors(gram: Float[Array, "p p"]) -> tuple[Array, Array]:
    """Return the eigenvalues and eigenvectors of twice a Gram matrix.

    They count as constants: they only split the equation of a into two parts.
    """
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(gram))
    return 2 * jnp.maximum(values, 0.0), vectors


def _predicted(y: SweptState, h: Scalar, first: Tree) -> Tree:
    """Return the slopes at the nodes of the next step, by the polynomial of the last one.

    `first`: those at the first node, with a leading axis (1,).
    """
    last = jnp.where(y.size > 0, y.size, 1.0)
    rows = lagrange_at(1 + h / last * jnp.asarray(NODES))
    constant = jnp.zeros_like(rows).at[:, -1].set(1.0)
    rows = jnp.where((y.size > 0) & (h <= _EXTRAPOLATED * y.size), rows, constant)

    def of_leaf(leaf: Array, first: Array) -> Array:
        return jnp.concatenate([first, jnp.tensordot(rows[1:], leaf, 1)])

    return jax.tree.map(of_leaf, y.slopes, first)


def _size(modes: Array, rates: Float[Array, " p"]) -> Scalar:
    """Return the largest root mean square of the network of outer layers (n, p, K), which are given
    in the eigenvectors of A. It is a number to compare with tolerances, without a derivative."""
    squares = jax.lax.stop_gradient(modes) ** 2 * (0.5 * rates)[None, :, None]
    return jnp.sqrt(jnp.max(jnp.sum(squares, axis=(1, 2))))


def _part_left(lipschitz: Scalar, h: Scalar) -> Scalar:
    """Return which part of the last change of a sweep is left to the next one."""
    return jnp.where(lipschitz > 0, jnp.minimum(0.5 * h * lipschitz, 1.0), 1.0)


def _lipschitz(now: _Sweep, change: Scalar, y: SweptState, h: Scalar, tolerance: Scalar) -> Scalar:
    """Return the Lipschitz constant by which a sweep has changed less than the one before it."""
    seen = (now.sweeps > 0) & (now.change > _VISIBLE * tolerance)
    ratio = change / jnp.maximum(now.change, 1e-300)
    # The estimate may fall by half in a sweep, for it may be lucky.
    least = jnp.where(h > 2 * y.measured, 0.0, 0.5 * now.lipschitz)
    new = jnp.clip(2 * ratio / h, least, 2 / h)
    return jnp.where(seen & jnp.isfinite(new), new, now.lipschitz)
