"""The risk of a network of steps against a piecewise constant target, in closed form by all pairs.

With x = u/eta, X_ij = overlap(x_i - x_j), f* and F of `step_integrals`, a_0 the bias less the first
value of the target, A the integral of f* and s = sum_j a_j (1 - u_j),

    L = a_0^2 + 2 a_0 (s - A) + sum_i a_i (s - 2 A + 2 F(u_i)) - eta sum_ij a_i a_j X_ij
        + integral of f*^2.

Derivation: multiply out the integral of (f - f*)^2. By the definition of `overlap`, with z = 1/eta,
the integral of the product of steps i and j is 1 - u_j - eta X_ij, which is symmetric in i and j.
The formula holds for neurons in any order, also equal ones: X and its derivatives are smooth there.

Where 0 or 1 cuts the transition of a step, these integrals extend beyond [0, 1], with the target
continued as a constant. The parts beyond an end are subtracted again (`EndTerms`). A neuron whose
whole transition is outside [0, 1] has the weight 0 here, and the bias takes the weights of those on
the left: sums with the weight itself would lose the digits of all others where it is large.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Bool, Float, Scalar, Tree, varying_as
from ..batching import devices as _device
from ..batching.gathered_cond import gathered_cond
from ..models.network import Params
from .step_integrals import AbstractStepIntegrals, ProductIntegrals

_UNROLL = 4
"""Neurons per turn of a loop that sums over pairs."""


class PairwiseState(NamedTuple):
    """The parameters with the bias separate: XLA computes a concatenation number by number."""

    bias: Scalar
    a: Float[Array, " m"]
    u: Float[Array, " m"]


def state_of(params: Params) -> PairwiseState:
    """Return the state of parameters."""
    return PairwiseState(params.a[0], params.a[1:], params.u)


def params_of(y: PairwiseState) -> Params:
    """Return the parameters of a state, with any leading axes."""
    return Params(jnp.concatenate([y.bias[..., None], y.a], axis=-1), y.u)


class PairwiseHessian(NamedTuple):
    """The blocks of the Hessian on and above its diagonal, but for the second derivative by a_0.

    0 stands for the bias a_0, a for the other outer weights, u for the positions. The second
    derivative by a_0 is always 2.
    """

    hess_0a: Float[Array, " m"]
    hess_aa: Float[Array, "m m"]
    hess_0u: Float[Array, " m"]
    hess_au: Float[Array, "m m"]
    hess_uu: Float[Array, "m m"]


class PairSums(NamedTuple):
    """Sums over the neurons j, weighted with a_j, for each neuron i (m,).

    `overlaps`: of X_ij; `slopes`: of the derivatives of X_ij by x_i; `products`: of the integrals
    of products beyond 0 and 1, `PairwiseRisk._products`; `by_first`: of their derivatives by x_i.
    """

    overlaps: Array
    slopes: Array
    products: Array
    by_first: Array


class EndTerms(NamedTuple):
    """The parts of the risk beyond one end of [0, 1], where the target is constant.

    Beyond 1, "step" stands for 1 minus the step, so that it goes to 0 away from [0, 1].
    """

    residual: Scalar
    """f - f* far beyond the end, where all steps are 0."""
    integral: Float[Array, " m"]
    """The integral of each step beyond the end, in units of eta."""
    value: Float[Array, " m"]
    """The value of each step at the end."""
    slope: Float[Array, " m"]
    """The derivative sigma' of each step at the end."""


class PairwiseRisk(AbstractStepIntegrals):
    """The risk L(a, u), its gradient and its Hessian, by sums over all pairs of neurons.

    u (m,) may be in any order. `uncut`: whether it is known that neither 0 nor 1 cuts any step.
    Then the formulas for what they cut, which take longer to compile than all others, are left out.
    """

    uncut: bool = eqx.field(static=True, default=False)

    def __call__(self, params: Params) -> Scalar:
        """Return the risk."""
        bias, a, u = self.effective(state_of(params))
        overlaps, _, cut = self._overlap_sums(u, a)
        mean, square = self._moments()
        s = jnp.sum(a * (1.0 - u))
        total = bias**2 + jnp.sum(a) * s + 2 * bias * s - self.eta * (a @ overlaps)
        total = total - 2 * (bias + jnp.sum(a)) * mean + 2 * (a @ self._primitive(u)) + square

        def subtract_beyond(total: Scalar) -> Scalar:
            left, right = self.ends(PairwiseState(bias, a, u))
            cross = left.residual * left.integral - right.residual * right.integral
            return total - self.eta * (a @ (self._product_sums(u, a)[0] + 2 * cross))

        return self._where_cut(cut, subtract_beyond, total)

    def gradient(self, y: PairwiseState) -> PairwiseState:
        """Return the gradient of L."""
        same = self.effective(y)
        overlaps, slopes, cut = self._overlap_sums(same.u, same.a)
        half = self._half_gradient_uncut(same, overlaps, slopes)

        def subtract_beyond(half: PairwiseState) -> PairwiseState:
            return self._subtract_beyond(same, half, *self._product_sums(same.u, same.a))

        return self._gradient_from_half(same, self._where_cut(cut, subtract_beyond, half))

    def gradient_by_sums(self, y: PairwiseState, sums: PairSums) -> PairwiseState:
        """Return the gradient of L, from the sums over all pairs of neurons, of `effective` y."""
        same = self.effective(y)
        half = self._half_gradient_uncut(same, sums.overlaps, sums.slopes)
        half = self._subtract_beyond(same, half, sums.products, sums.by_first)
        return self._gradient_from_half(same, half)

    def _half_gradient_uncut(
        self, y: PairwiseState, overlaps: Array, slopes: Array
    ) -> PairwiseState:
        """Return half of the gradient as if no step were cut; by u, without the factor a."""
        bias, a, u = y
        by_bias = bias + jnp.sum(a * (1.0 - u)) - self._moments()[0]
        by_a = by_bias - bias * u - self.eta * overlaps + self._primitive(u)
        return PairwiseState(by_bias, by_a, self.smoothed(u) - bias - slopes)

    def _subtract_beyond(
        self, y: PairwiseState, half: PairwiseState, products: Array, by_first: Array
    ) -> PairwiseState:
        """Return half of the gradient, with the parts beyond 0 and 1 subtracted."""
        by_bias, by_a, by_u = half
        left, right = self.ends(y)
        right_integral = self.eta * (right.integral @ y.a)
        left_integral = self.eta * (left.integral @ y.a)
        cross = left.residual * left.integral - right.residual * right.integral
        return PairwiseState(
            by_bias + right_integral - left_integral,
            by_a + right_integral - self.eta * (products + cross),
            by_u - by_first + left.residual * left.value + right.residual * right.value,
        )

    def _gradient_from_half(self, y: PairwiseState, half: PairwiseState) -> PairwiseState:
        """Return the gradient from its half; by the position of a neuron outside it is 0."""
        return PairwiseState(2 * half.bias, 2 * half.a, 2 * y.a * half.u)

    def hessian(self, y: PairwiseState) -> PairwiseHessian:
        """Return the Hessian of L, by blocks."""
        bias, a, u = self.effective(y)
        eta, eye = self.eta, np.eye(u.size)
        # u / eta and not u * per_eta: XLA may compute a product again in every difference, with
        # another rounding, and the blocks would not be symmetric.
        value, slope, twice = self._overlaps(u / eta)
        hess_0a = 1.0 - u
        hess_aa = hess_0a[None, :] - eta * value
        level, rise = self._levels(u)
        # The gradient by u is 2 a over_a, and bend / eta is the derivative of over_a by u.
        over_a = level - bias - slope @ a
        hess_au = (slope - 1.0) * a[None, :] + eye * over_a[None, :]
        bend = rise - twice @ a
        hess_uu = jnp.outer(a, a) * twice + eye * (a * bend)[None, :]

        def subtract_beyond(half: PairwiseHessian) -> PairwiseHessian:
            left, right = self.ends(PairwiseState(bias, a, u))
            products = self._products(u)
            integrals = right.integral[:, None] + right.integral[None, :]
            right_value, left_value = a * right.value, a * left.value
            over_a = (
                left.residual * left.value + right.residual * right.value - products.by_first @ a
            )
            bend = products.twice @ a + left.residual * left.slope - right.residual * right.slope
            return PairwiseHessian(
                half.hess_0a + eta * (right.integral - left.integral),
                half.hess_aa + eta * (integrals - products.value),
                half.hess_0u + right_value + left_value,
                half.hess_au
                - products.by_first.T * a[None, :]
                + eye * over_a[None, :]
                + right_value[None, :],
                half.hess_uu - jnp.outer(a, a) * products.by_both - eye * (a * bend)[None, :],
            )

        half = PairwiseHessian(hess_0a, hess_aa, -a, hess_au, hess_uu)
        cut = self.touches_ends(u)
        half = self._where_cut(cut, subtract_beyond, half)
        inside = 2 * self.inside(y.u).astype(u.dtype)
        return PairwiseHessian(
            2 * half.hess_0a,
            2 * half.hess_aa,
            2 * half.hess_0u,
            half.hess_au * inside[None, :],
            2 * self.per_eta * half.hess_uu,
        )

    def effective(self, y: PairwiseState) -> PairwiseState:
        """Return the state in which the formulas are written: that of the same residual f - f*.

        Its bias is less the first value of the target. Neurons outside [0, 1] have the weight 0,
        and positions where a transition touches [0, 1].
        """
        left = jnp.sum(jnp.where(y.u <= -0.5 * self.eta, y.a, 0.0))
        bias = y.bias - self.offset + left
        a = jnp.where(self.inside(y.u), y.a, 0.0)
        return PairwiseState(bias, a, jnp.clip(y.u, -0.5 * self.eta, 1.0 + 0.5 * self.eta))

    def touches_ends(self, u: Array, spare: float = 0.0) -> Bool[Array, ""]:
        """Return whether the transition of any step (..., m) is not inside [0, 1] altogether, with
        `spare` times eta to spare."""
        margin = (0.5 + spare) * self.eta
        return jnp.any((u < margin) | (u > 1.0 - margin))

    def _where_cut(self, cut: Bool[Array, ""], change: Callable[[Tree], Tree], parts: Tree) -> Tree:
        """Return `change(parts)`, a tree like `parts`, if any step is cut, else `parts`."""
        return parts if self.uncut else gathered_cond(cut, change, parts)

    def inside(self, u: Array) -> Array:
        """Return which neurons (m,) have at least a part of their transition inside [0, 1]."""
        return (u > -0.5 * self.eta) & (u < 1.0 + 0.5 * self.eta)

    def ends(self, y: PairwiseState) -> tuple[EndTerms, EndTerms]:
        """Return the terms of the end 0, and those of the end 1, of an `effective` state."""
        last = y.bias + jnp.sum(y.a) - self.values[-1]
        return self._end(y.u * self.per_eta, y.bias), self._end((1.0 - y.u) * self.per_eta, last)

    def _end(self, z: Array, residual: Scalar) -> EndTerms:
        return EndTerms(residual, self.activation.primitive(-z), *self._jet(-z))

    def _overlaps(self, x: Array) -> tuple[Array, Array, Array]:
        """Return X (m, m), and its derivatives by x_i, once and twice."""
        return self.overlap_jet(x[:, None] - x[None, :])

    def _overlap_sums(self, u: Array, a: Array) -> tuple[Array, Array, Bool[Array, ""]]:
        """Return sum_j X_ij a_j (m,), its derivative by x_i, and whether 0 or 1 cuts any step.

        The loop over neurons finds the last as well, which saves a loop of its own.
        """
        positions, last = u * self.per_eta, self.per_eta - 0.5
        x = _padded_to_registers(positions, 0.0)

        def add(j: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            overlaps, slopes, cut = state
            other, weight = (jax.lax.dynamic_index_in_dim(v, j, 0, False) for v in (positions, a))
            t = x - other
            overlap, slope = jax.jvp(self.activation.overlap, (t,), (jnp.ones_like(t),))
            cut = cut | (other < 0.5) | (other > last)
            return overlaps + weight * overlap, slopes + weight * slope, cut

        # Neuron by neuron, and not by two matrices, which would be written to memory. Off a CPU the
        # loop is unrolled, since every turn would launch a kernel.
        unroll = _UNROLL if _device.on_cpu() else u.size
        start = varying_as(x, (jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros((), bool)))
        overlaps, slopes, cut = jax.lax.fori_loop(0, u.size, add, start, unroll=unroll)
        return overlaps[: u.size], slopes[: u.size], cut

    def _product_sums(self, u: Array, a: Array) -> tuple[Array, Array]:
        """Return the sums (m,) over j of `_products`, a_j times values and first derivatives."""
        weights = _padded_to_registers(a, 0.0)

        def row(p: Array, q: Array) -> Array:
            value, by_first, _, _ = self.beyond(p, q)
            return jnp.stack([value @ weights, by_first @ weights])

        left, right = self._rows(u, row, (2,))
        return left[:, 0] + right[:, 0], left[:, 1] - right[:, 1]

    def _products(self, u: Array) -> ProductIntegrals:
        """Return the integrals (m, m) of products of steps beyond 0 and 1, in units of eta."""

        def row(p: Array, q: Array) -> Array:
            return jnp.stack(self.beyond(p, q))[:, : u.size]

        left, right = self._rows(u, row, (4, u.size))
        total = left + np.reshape([1.0, -1.0, 1.0, 1.0], (1, 4, 1)) * right
        return ProductIntegrals(*(total[:, k] for k in range(4)))

    def _rows(
        self, u: Array, row: Callable[[Array, Array], Array], shape: tuple[int, ...]
    ) -> tuple[Array, Array]:
        """Return row(p, q) of the steps that 0 cuts, and of those that 1 cuts, (m, *shape) each.

        p () is the position of a step and q (n,) those of all m steps, both from that end and in
        units of eta; q is padded by steps that are not cut. Rows of steps that are not cut are 0.
        """
        # On a CPU by a loop, which skips the many steps that are not cut. On other devices a loop
        # takes longer than the rows of all steps.
        from_zero, from_one = _padded_to_registers(u, 1.0), _padded_to_registers(1.0 - u, 1.0)
        ends = jnp.stack([from_zero, from_one]) * self.per_eta

        def all_rows(q: Array) -> Array:
            rows = jax.vmap(row, (0, None))(q[: u.size], q)
            return jnp.where((q[: u.size] < 0.5).reshape(-1, *(1,) * len(shape)), rows, 0.0)

        def cut_rows(q: Array) -> Array:
            def row_if_cut(p: Array) -> Array:
                return jax.lax.cond(p < 0.5, jax.checkpoint(lambda: row(p, q)), lambda: zeros[0])

            zeros = varying_as(q, jnp.zeros((u.size, *shape)))
            return jax.lax.cond(
                jnp.any(q < 0.5), lambda: jax.lax.map(row_if_cut, q[: u.size]), lambda: zeros
            )

        rows = jax.lax.map(cut_rows, ends) if _device.on_cpu() else jax.vmap(all_rows)(ends)
        return rows[0], rows[1]


def _padded_to_registers(v: Array, value: float) -> Array:
    """Return v, padded with a value to a whole number of vector registers."""
    return jnp.concatenate([v, jnp.full(-v.size % 8, value)])
