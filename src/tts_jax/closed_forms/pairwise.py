"""The risk of a network of steps against a target of steps, in closed form.

With x = u/eta, X_ij = overlap(x_i - x_j), F(u) = f*_0 u + eta sum_k w_k primitive((u - v_k)/eta),
A the integral of f* and s = sum_j a_j (1 - u_j),

    L = a_0^2 + 2 a_0 (s - A) + sum_i a_i (s - 2 A + 2 F(u_i)) - eta sum_ij a_i a_j X_ij
        + integral of f*^2,

since 1 - u_j - eta X_ij, which is symmetric, is the integral of the product of steps i and j.
It holds for neurons in any order, also equal ones: X and its derivatives are smooth there.

Where 0 or 1 cuts a step, these integrals reach too far. What lies beyond comes off again, network
and target going on as constants there. A neuron that is outside altogether counts as standing at
the nearest place that is.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Bool, Float, Scalar
from ..batching import devices as _device
from ..batching.gathered_cond import gathered_cond
from ..models.network import Params
from .step_integrals import AbstractStepIntegrals, ProductIntegrals

_UNROLL = 4
"""Neurons per turn of a loop that adds up pairs."""


class PairwiseState(NamedTuple):
    """Parameters with the bias apart. XLA computes what is concatenated one number at a time."""

    bias: Scalar
    a: Float[Array, " m"]
    u: Float[Array, " m"]


def state_of(params: Params) -> PairwiseState:
    return PairwiseState(params.a[0], params.a[1:], params.u)


def params_of(y: PairwiseState) -> Params:
    """The parameters, also with leading axes."""
    return Params(jnp.concatenate([y.bias[..., None], y.a], axis=-1), y.u)


class PairwiseHessian(NamedTuple):
    """The blocks of the Hessian on and above its diagonal: 0 stands for the bias, a for the other
    outer weights, u for the positions. The one that is not here, by the bias twice, is 2."""

    hess_0a: Float[Array, " m"]
    hess_aa: Float[Array, "m m"]
    hess_0u: Float[Array, " m"]
    hess_au: Float[Array, "m m"]
    hess_uu: Float[Array, "m m"]


class PairSums(NamedTuple):
    """Sums over the neurons j, weighted with a_j, for each neuron i (m,): of the overlaps X_ij, of
    their derivatives by x_i, of the integrals of products that `PairwiseRisk._products` makes, and
    of the derivatives of these by x_i."""

    overlaps: Array
    slopes: Array
    products: Array
    by_first: Array


class BeyondEnd(NamedTuple):
    """The integrals that lie beyond one end of [0, 1]."""

    gap: Scalar
    """Network less target at the end."""
    single: Float[Array, " m"]
    """The integral of each step beyond the end (right: of what it lacks), in units of eta."""
    height: Float[Array, " m"]
    """Its value there, and its slope by x."""
    slope: Float[Array, " m"]


class PairwiseRisk(AbstractStepIntegrals):
    """L(a, u), its gradient and its Hessian, by sums over all pairs of neurons.

    u (m,) may be in any order.
    """

    def __call__(self, params: Params) -> Scalar:
        bias, a, u = self._seen(state_of(params))
        overlaps, _, cut = self._overlap_sums(u, a)
        mean, square = self._moments()
        single = jnp.sum(a * (1.0 - u))
        ours = bias**2 + jnp.sum(a) * single + 2 * bias * single - self.eta * (a @ overlaps)
        total = ours - 2 * (bias + jnp.sum(a)) * mean + 2 * (a @ self._primitive(u)) + square

        def beyond(total: Scalar) -> Scalar:
            left, right = self.ends(PairwiseState(bias, a, u))
            single = left.gap * left.single - right.gap * right.single
            return total - self.eta * (a @ (self._product_sums(u, a)[0] + 2 * single))

        return gathered_cond(cut, beyond, total)

    def gradient(self, y: PairwiseState) -> PairwiseState:
        """Return the gradient of L."""
        seen = self._seen(y)
        overlaps, slopes, cut = self._overlap_sums(seen.u, seen.a)
        half = self._half_gradient_uncut(seen, overlaps, slopes)

        def beyond(half: PairwiseState) -> PairwiseState:
            return self._without_beyond(seen, half, *self._product_sums(seen.u, seen.a))

        return self._whole_gradient(y, seen, gathered_cond(cut, beyond, half))

    def gradient_by_sums(self, y: PairwiseState, sums: PairSums) -> PairwiseState:
        """Return the gradient of L, from the sums over all other neurons."""
        seen = self._seen(y)
        half = self._half_gradient_uncut(seen, sums.overlaps, sums.slopes)
        half = self._without_beyond(seen, half, sums.products, sums.by_first)
        return self._whole_gradient(y, seen, half)

    def _half_gradient_uncut(
        self, y: PairwiseState, overlaps: Array, slopes: Array
    ) -> PairwiseState:
        """Return half of the gradient if no step were cut, by u before the factor a."""
        bias, a, u = y
        by_bias = bias + jnp.sum(a * (1.0 - u)) - self._moments()[0]
        by_a = by_bias - bias * u - self.eta * overlaps + self._primitive(u)
        return PairwiseState(by_bias, by_a, self.smoothed(u) - bias - slopes)

    def _without_beyond(
        self, y: PairwiseState, half: PairwiseState, products: Array, by_first: Array
    ) -> PairwiseState:
        """Return half of the gradient, without what lies beyond 0 and 1."""
        by_bias, by_a, by_u = half
        left, right = self.ends(y)
        rise, fall = self.eta * (right.single @ y.a), self.eta * (left.single @ y.a)
        single = left.gap * left.single - right.gap * right.single
        return PairwiseState(
            by_bias + rise - fall,
            by_a + rise - self.eta * (products + single),
            by_u - by_first + left.gap * left.height + right.gap * right.height,
        )

    def _whole_gradient(
        self, y: PairwiseState, seen: PairwiseState, half: PairwiseState
    ) -> PairwiseState:
        """Return the gradient from its half; a neuron that is outside altogether feels nothing."""
        by_u = jnp.where(self.inside(y.u), seen.a * half.u, 0.0)
        return PairwiseState(2 * half.bias, 2 * half.a, 2 * by_u)

    def hessian(self, y: PairwiseState) -> PairwiseHessian:
        """Return the Hessian of L, by blocks."""
        bias, a, u = self._seen(y)
        eta, eye = self.eta, np.eye(u.size)
        # A product would be rounded anew in every difference: the blocks would not be symmetric.
        value, slope, twice = self._overlaps(u / eta)
        hess_0a = 1.0 - u
        hess_aa = hess_0a[None, :] - eta * value
        level, rise = self._levels(u)
        over_a = level - bias - slope @ a
        hess_au = (slope - 1.0) * a[None, :] + eye * over_a[None, :]
        bend = rise - twice @ a
        hess_uu = jnp.outer(a, a) * twice + eye * (a * bend)[None, :]

        def beyond(half: PairwiseHessian) -> PairwiseHessian:
            left, right = self.ends(PairwiseState(bias, a, u))
            products = self._products(u)
            both = right.single[:, None] + right.single[None, :]
            lift, fall = a * right.height, a * left.height
            over_a = left.gap * left.height + right.gap * right.height - products.by_first @ a
            bend = products.twice @ a + left.gap * left.slope - right.gap * right.slope
            return PairwiseHessian(
                half.hess_0a + eta * (right.single - left.single),
                half.hess_aa + eta * (both - products.value),
                half.hess_0u + lift + fall,
                half.hess_au
                - products.by_first.T * a[None, :]
                + eye * over_a[None, :]
                + lift[None, :],
                half.hess_uu - jnp.outer(a, a) * products.by_both - eye * (a * bend)[None, :],
            )

        half = PairwiseHessian(hess_0a, hess_aa, -a, hess_au, hess_uu)
        cut = jnp.any((u < 0.5 * eta) | (u > 1.0 - 0.5 * eta))
        half = gathered_cond(cut, beyond, half)
        inside = 2 * self.inside(y.u).astype(u.dtype)
        both = inside[:, None] * self.inside(y.u).astype(u.dtype)[None, :]
        return PairwiseHessian(
            2 * half.hess_0a,
            2 * half.hess_aa,
            half.hess_0u * inside,
            half.hess_au * inside[None, :],
            both * self.per_eta * half.hess_uu,
        )

    def seen(self, u: Array) -> Array:
        """(m,) where neurons count as standing."""
        return jnp.clip(u, -0.5 * self.eta, 1.0 + 0.5 * self.eta)

    def _seen(self, y: PairwiseState) -> PairwiseState:
        return y._replace(u=self.seen(y.u))

    def inside(self, u: Array) -> Array:
        """(m,) which neurons are not outside altogether."""
        return (u > -0.5 * self.eta) & (u < 1.0 + 0.5 * self.eta)

    def ends(self, y: PairwiseState) -> tuple[BeyondEnd, BeyondEnd]:
        """What lies beyond 0, and beyond 1."""
        values = jnp.asarray(self.target.values)
        first, last = y.bias - values[0], y.bias + jnp.sum(y.a) - values[-1]
        return self._end(y.u * self.per_eta, first), self._end((1.0 - y.u) * self.per_eta, last)

    def _end(self, z: Array, gap: Scalar) -> BeyondEnd:
        return BeyondEnd(gap, self.activation.primitive(-z), *self._jet(-z))

    def _overlaps(self, x: Array) -> tuple[Array, Array, Array]:
        """(m, m) X, and its derivatives by x_i, once and twice."""
        return self.overlap_jet(x[:, None] - x[None, :])

    def _overlap_sums(self, u: Array, a: Array) -> tuple[Array, Array, Bool[Array, ""]]:
        """(m,) sum_j X_ij a_j and its derivative by x_i; whether 0 or 1 cuts any step.

        That is asked here, between the sums, instead of in a search of its own.
        """
        places, end = u * self.per_eta, self.per_eta - 0.5
        x = _filled(places, 0.0)

        def add(j: Array, so_far: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            overlaps, slopes, cut = so_far
            other, weight = (jax.lax.dynamic_index_in_dim(v, j, 0, False) for v in (places, a))
            t = x - other
            overlap, slope = jax.jvp(self.activation.overlap, (t,), (jnp.ones_like(t),))
            cut = cut | (other < 0.5) | (other > end)
            return overlaps + weight * overlap, slopes + weight * slope, cut

        # Neuron by neuron, and not by two matrices, which would go through memory. On anything but
        # a CPU every turn would be a launch.
        turns = _UNROLL if _device.on_cpu() else u.size
        start = (jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros((), bool))
        overlaps, slopes, cut = jax.lax.fori_loop(0, u.size, add, start, unroll=turns)
        return overlaps[: u.size], slopes[: u.size], cut

    def _product_sums(self, u: Array, a: Array) -> tuple[Array, Array]:
        """(m,) sums over j of `_products`: of the values, and of their first derivatives."""
        weights = _filled(a, 0.0)

        def row(p: Array, q: Array) -> Array:
            value, by_first, _, _ = self.beyond(p, q)
            return jnp.stack([value @ weights, by_first @ weights])

        left, right = self._rows(u, row, (2,))
        return left[:, 0] + right[:, 0], left[:, 1] - right[:, 1]

    def _products(self, u: Array) -> ProductIntegrals:
        """(m, m) integrals of the products of steps beyond 0 and 1, in units of eta."""

        def row(p: Array, q: Array) -> Array:
            return jnp.stack(self.beyond(p, q))[:, : u.size]

        left, right = self._rows(u, row, (4, u.size))
        total = left + np.reshape([1.0, -1.0, 1.0, 1.0], (1, 4, 1)) * right
        return ProductIntegrals(*(total[:, k] for k in range(4)))

    def _rows(
        self, u: Array, row: Callable[[Array, Array], Array], shape: tuple[int, ...]
    ) -> tuple[Array, Array]:
        """(m, *shape) row(p, q) for every step p that 0 cuts, and for every one that 1 cuts.

        p () and q (n,) are positions from that end, in units of eta, of the m steps and of some
        that are not cut. On a CPU a loop, since few are; elsewhere the few cost less than a loop.
        """
        ends = jnp.stack([_filled(u, 1.0), _filled(1.0 - u, 1.0)]) * self.per_eta

        def end_at_once(q: Array) -> Array:
            rows = jax.vmap(row, (0, None))(q[: u.size], q)
            return jnp.where((q[: u.size] < 0.5).reshape(-1, *(1,) * len(shape)), rows, 0.0)

        def end(q: Array) -> Array:
            def one(p: Array) -> Array:
                return jax.lax.cond(
                    p < 0.5, jax.checkpoint(lambda: row(p, q)), lambda: jnp.zeros(shape)
                )

            nothing = jnp.zeros((u.size, *shape))
            return jax.lax.cond(
                jnp.any(q < 0.5), lambda: jax.lax.map(one, q[: u.size]), lambda: nothing
            )

        rows = jax.lax.map(end, ends) if _device.on_cpu() else jax.vmap(end_at_once)(ends)
        return rows[0], rows[1]


def _filled(v: Array, value: float) -> Array:
    """Up to whole vector registers."""
    return jnp.concatenate([v, jnp.full(-v.size % 8, value)])
