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

from ._types import Array, Float, Scalar, Tree, put
from .networks import Params
from .step_integrals import AbstractStepRisk, Products


class _End(NamedTuple):
    """What lies beyond one end of [0, 1]."""

    gap: Scalar
    """Network less target at the end."""
    single: Float[Array, " m"]
    """The integral of each step beyond the end (right: of what it lacks), in units of eta."""
    height: Float[Array, " m"]
    """Its value there, and its slope by x."""
    slope: Float[Array, " m"]


class StepRisk(AbstractStepRisk):
    """L(a, u), its gradient and its Hessian, by sums over all pairs of neurons.

    Parameters: a (m+1,) with the bias first, and u (m,) in any order.
    """

    def __call__(self, params: Params) -> Scalar:
        (bias, a), u = self._parts(params)
        overlaps, _ = self._overlap_sums(u, a)
        mean, square = self._moments()
        single = jnp.sum(a * (1.0 - u))
        ours = bias**2 + jnp.sum(a) * single + 2 * bias * single - self.eta * (a @ overlaps)
        total = ours - 2 * (bias + jnp.sum(a)) * mean + 2 * (a @ self._primitive(u)) + square

        def beyond(total: Scalar) -> Scalar:
            left, right = self._ends(params.a, u)
            single = left.gap * left.single - right.gap * right.single
            return total - self.eta * (a @ (self._product_sums(u, a)[0] + 2 * single))

        return self._where_cut(u, beyond, total)

    def gradient(self, params: Params) -> Params:
        by_a, by_u = self._half_gradient(params)
        by_u = jnp.where(self._inside(params.u), params.a[1:] * by_u, 0.0)
        return Params(2 * by_a, 2 * by_u)

    def _half_gradient(self, params: Params) -> Params:
        """Half of the derivatives: by a, and by u over a."""
        (bias, a), u = self._parts(params)
        overlaps, slopes = self._overlap_sums(u, a)
        by_bias = bias + jnp.sum(a * (1.0 - u)) - self._moments()[0]
        by_a = by_bias - bias * u - self.eta * overlaps + self._primitive(u)
        by_u = self._smoothed(u) - bias - slopes

        def beyond(parts: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            by_bias, by_a, by_u = parts
            left, right = self._ends(params.a, u)
            products, by_first = self._product_sums(u, a)
            rise, fall = self.eta * (right.single @ a), self.eta * (left.single @ a)
            single = left.gap * left.single - right.gap * right.single
            return (
                by_bias + rise - fall,
                by_a + rise - self.eta * (products + single),
                by_u - by_first + left.gap * left.height + right.gap * right.height,
            )

        by_bias, by_a, by_u = self._where_cut(u, beyond, (by_bias, by_a, by_u))
        return Params(jnp.concatenate([by_bias[None], by_a]), by_u)

    def hessian(self, params: Params) -> tuple[Array, Array, Array]:
        """Its blocks: by a twice (m+1, m+1), by a and u (m+1, m), and by u twice (m, m)."""
        (bias, a), u = self._parts(params)
        eta, eye = self.eta, np.eye(u.size)
        value, slope, twice = self._overlaps(u / eta)
        by_bias = 1.0 - u
        by_a = by_bias[None, :] - eta * value
        by_bias_u = -a
        over_a = self._smoothed(u) - bias - slope @ a
        by_a_u = (slope - 1.0) * a[None, :] + eye * over_a[None, :]
        bend = eta * self._slope(u) - twice @ a
        by_u = jnp.outer(a, a) * twice + eye * (a * bend)[None, :]

        def beyond(blocks: tuple[Array, ...]) -> tuple[Array, ...]:
            by_bias, by_a, by_bias_u, by_a_u, by_u = blocks
            left, right = self._ends(params.a, u)
            products = self._products(u)
            both = right.single[:, None] + right.single[None, :]
            lift, fall = a * right.height, a * left.height
            over_a = left.gap * left.height + right.gap * right.height - products.by_first @ a
            bend = products.twice @ a + left.gap * left.slope - right.gap * right.slope
            return (
                by_bias + eta * (right.single - left.single),
                by_a + eta * (both - products.value),
                by_bias_u + lift + fall,
                by_a_u - products.by_first.T * a[None, :] + eye * over_a[None, :] + lift[None, :],
                by_u - jnp.outer(a, a) * products.by_both - eye * (a * bend)[None, :],
            )

        blocks = (by_bias, by_a, by_bias_u, by_a_u, by_u)
        by_bias, by_a, by_bias_u, by_a_u, by_u = self._where_cut(u, beyond, blocks)
        inside = self._inside(params.u).astype(u.dtype)
        by_u = inside[:, None] * inside[None, :] * (2.0 / eta) * by_u
        first = jnp.concatenate([jnp.ones(1), by_bias])[None, :]
        by_a = jnp.concatenate([first, jnp.concatenate([by_bias[:, None], by_a], 1)])
        by_a_u = jnp.concatenate([by_bias_u[None, :], by_a_u]) * inside[None, :]
        return 2 * by_a, 2 * by_a_u, by_u

    def _parts(self, params: Params) -> tuple[tuple[Array, Array], Array]:
        u = jnp.clip(params.u, -0.5 * self.eta, 1.0 + 0.5 * self.eta)
        return (params.a[0], params.a[1:]), u

    def _inside(self, u: Array) -> Array:
        return (u > -0.5 * self.eta) & (u < 1.0 + 0.5 * self.eta)

    def _where_cut(self, u: Array, beyond: Callable[[Tree], Tree], parts: Tree) -> Tree:
        cut = jnp.any((u < 0.5 * self.eta) | (u > 1.0 - 0.5 * self.eta))
        return self._where(cut, beyond, parts)

    def _ends(self, a: Array, u: Array) -> tuple[_End, _End]:
        values = jnp.asarray(self.target.values)
        first, last = a[0] - values[0], jnp.sum(a) - values[-1]
        return self._end(u / self.eta, first), self._end((1.0 - u) / self.eta, last)

    def _end(self, z: Array, gap: Scalar) -> _End:
        return _End(gap, self.activation.primitive(-z), *self._jet(-z))

    def _overlaps(self, x: Array) -> tuple[Array, Array, Array]:
        """(m, m) X, and its derivatives by x_i, once and twice."""
        return self._overlap_jet(x[:, None] - x[None, :])

    def _overlap_sums(self, u: Array, a: Array) -> tuple[Array, Array]:
        """(m,) sum_j X_ij a_j and its derivative by x_i."""
        # Rows of whole vector registers. What is added weighs nothing.
        more = jnp.zeros(-u.size % 8)
        x, weights = jnp.concatenate([u / self.eta, more]), jnp.concatenate([a, more])
        overlaps, slopes, _ = self._overlaps(x)
        return (overlaps @ weights)[: u.size], (slopes @ weights)[: u.size]

    def _product_sums(self, u: Array, a: Array) -> tuple[Array, Array]:
        """(m,) sums over j of `_products`: of the values, and of their first derivatives."""

        def row(p: Array, q: Array) -> Array:
            value, by_first, _, _ = self._beyond(p, q)
            return jnp.stack([value @ a, by_first @ a])

        left, right = self._rows(u, row, (2,))
        return left[:, 0] + right[:, 0], left[:, 1] - right[:, 1]

    def _products(self, u: Array) -> Products:
        """(m, m) integrals of the products of steps beyond 0 and 1, in units of eta."""
        left, right = self._rows(u, lambda p, q: jnp.stack(self._beyond(p, q)), (4, u.size))
        sign = np.reshape([1.0, -1.0, 1.0, 1.0], (1, 4, 1))
        total = left + sign * right
        return Products(*(total[:, k] for k in range(4)))

    def _rows(
        self, u: Array, row: Callable[[Array, Array], Array], shape: tuple[int, ...]
    ) -> tuple[Array, Array]:
        """row(p, q) (*shape) for every step p that 0 cuts, and for every one that 1 cuts.

        p () and q (m,) are positions from that end, in units of eta. A loop, since few are cut.
        """
        width = u.size
        z = jnp.concatenate([u, 1.0 - u]) / self.eta

        def add(k: Array, rows: Array) -> Array:
            p = jax.lax.dynamic_index_in_dim(z, k, 0, False)
            q = jax.lax.dynamic_slice(z, (jnp.where(k < width, 0, width),), (width,))
            return jax.lax.cond(
                p < 0.5,
                jax.checkpoint(lambda rows: put(rows, k, row(p, q))),
                lambda rows: rows,
                rows,
            )

        rows = jax.lax.fori_loop(0, 2 * width, add, jnp.zeros((2 * width, *shape)))
        return rows[:width], rows[width:]
