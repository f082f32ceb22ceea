"""The risk of a network of steps by cells and by pairs that touch, for wide networks.

In cell coordinates c_j = a_0 + ... + a_j, less the first value of the target, is the value between
neurons j and j+1. With neurons in order of position, f* of `step_integrals`, E_j the place of
neuron j where 0 or 1 cuts its step, Phi_j the integral of f* times what the step lacks,

    L = sum_j c_j^2 (E_{j+1} - E_j) - 2 c_j (Phi_{j+1} - Phi_j) - eta sum_ij a_i a_j W_ij
        + integral of f*^2,

where W_ij is zero unless steps i and j overlap inside [0, 1]. The sums are over the `bandwidth`
nearest neighbours by index: exact if `slack` is at least 0. Among themselves these may be in any
order.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Float, Scalar, Tree, put, varying_as
from ..batching.gathered_cond import gathered_cond
from .step_integrals import AbstractStepIntegrals, ProductIntegrals


class CellState(NamedTuple):
    """A state in cell coordinates: the values c (m+1,) between neurons, the positions u (m,)."""

    c: Array
    u: Array


class BandedHessian(NamedTuple):
    """The Hessian of L, by diagonals: the row of offset d holds the entries (i, i + d).

    `hess_aa` (k+1, m) for a_1, ... in pairs; `hess_cc` (m+1,) what is diagonal in c; `hess_au`
    (2k+1, m) for (a_{i+d}, u_i), d from -k on; `hess_cu` (m,) for c_{i-1} and c_i with u_i;
    `hess_uu` (k+1, m).
    """

    hess_aa: Array
    hess_cc: Array
    hess_au: Array
    hess_cu: Array
    hess_uu: Array


class _StepTerms(NamedTuple):
    """What each neuron (m,) adds to the risk without its neighbours.

    `place` is E, where 0 or 1 cuts its step, with the derivatives `slope` and `bend` by u; `phi` is
    Phi, with the derivatives `level` and `rise`.
    """

    place: Array
    slope: Array
    bend: Array
    phi: Array
    level: Array
    rise: Array


class BandedRisk(AbstractStepIntegrals):
    """The risk L(c, u), its gradient and its Hessian, in O(m bandwidth)."""

    bandwidth: int = eqx.field(static=True)

    def __call__(self, y: CellState) -> Scalar:
        x, (c, a) = self._place(y.u), self._cells_and_steps(y)
        value, _ = self._sums(x, a)
        lengths, sums = self._by_cell(self._step_terms(x))
        cells = jnp.sum(c * (c * lengths - 2 * sums))
        return cells - self.eta * (a @ value) + self._moments()[1]

    def gradient(self, y: CellState) -> CellState:
        x, (c, a) = self._place(y.u), self._cells_and_steps(y)
        value, slope = self._sums(x, a)
        terms = self._step_terms(x)
        lengths, sums = self._by_cell(terms._replace(phi=terms.phi - self.eta * value))
        over_a = terms.slope * _means(c) - terms.level + slope
        return CellState(2 * (c * lengths - sums), -2 * a * over_a)

    def hessian(self, y: CellState) -> BandedHessian:
        x, (c, a), k = self._place(y.u), self._cells_and_steps(y), self.bandwidth
        terms, (value, once, both, twice) = self._step_terms(x), self._pairs(x)
        others = self._neighbours(a)
        on_diagonal = np.arange(-k, k + 1)[:, None] == 0
        over_a = terms.slope * _means(c) - terms.level + jnp.sum(once * others, 0)
        bend = terms.bend * _means(c) - terms.rise + jnp.sum(twice * others, 0) / self.eta
        by_a_u = jnp.where(on_diagonal, over_a[None, :], 0.0) + a[None, :] * once
        by_u = jnp.where(on_diagonal, bend[None, :], 0.0) + both * others / self.eta
        return BandedHessian(
            -2 * self.eta * value[k:],
            2 * self._by_cell(terms)[0],
            -2 * by_a_u,
            -a * terms.slope,
            -2 * a[None, :] * by_u[k:],
        )

    def slack(self, u: Float[Array, " m"]) -> Scalar:
        """Return the least distance, less eta, of neurons that are no pair by their indices."""
        x = self._place(u)
        beyond = _padded(x, 2 * self.bandwidth + 1, 1e9)

        def gap(far: Array, least: Scalar) -> Scalar:
            start = 2 * self.bandwidth + 1 + far
            return jnp.minimum(least, jnp.min(_slice(beyond, start, u.size) - x) - 1.0)

        # Any larger distance by index is a sum of these.
        return self.eta * jax.lax.fori_loop(
            self.bandwidth + 1, 2 * self.bandwidth + 2, gap, jnp.full_like(x[0], jnp.inf)
        )

    def effective(self, y: CellState) -> Array:
        """Return the values of the cells (m+1,) less the first value of the target.

        Cells outside [0, 1] have that of the nearest cell inside: the steps between them have the
        weight 0, and however large their values are, no digits of the others are lost.
        """
        first, last = self._inside(y.u)
        index, c = np.arange(y.c.size), y.c - self.offset
        at_first, at_last = (
            jax.lax.dynamic_index_in_dim(c, i, 0, False) for i in (first, last + 1)
        )
        return jnp.where(index < first, at_first, jnp.where(index > last + 1, at_last, c))

    def _cells_and_steps(self, y: CellState) -> tuple[Array, Array]:
        """Return the values of the cells (m+1,) less the first value of the target, and the steps
        (m,) between them, with 0 before the first neuron inside [0, 1] and after the last.

        However large the values of cells outside are, no digits of the others are lost: their
        lengths and slopes are 0. `effective` would take longer.
        """
        (first, last), index, c = self._inside(y.u), np.arange(y.u.size), y.c - self.offset
        return c, jnp.where((index >= first) & (index <= last), jnp.diff(c), 0.0)

    def _inside(self, u: Array) -> tuple[Array, Array]:
        """Return the index of the first neuron that is not left of 0 altogether, and of the last
        that is not right of 1."""
        index = np.arange(u.size)
        first = jnp.min(jnp.where(u > -0.5 * self.eta, index, u.size))
        return first, jnp.max(jnp.where(u < 1.0 + 0.5 * self.eta, index, -1))

    def _place(self, u: Array) -> Array:
        """Return x (m,). Neurons outside are set apart from each other, where they touch none."""
        end, index = 1.0 / self.eta, np.arange(u.size)
        first, last = self._inside(u)
        x = jnp.clip(u / self.eta, -0.5, end + 0.5)
        x = jnp.where(index < first, 2.0 * (index - u.size) - 0.5, x)
        return jnp.where(index > last, end + 2.5 + 2.0 * index, x)

    def _step_terms(self, x: Array) -> _StepTerms:
        end, last = 1.0 / self.eta, self.values[-1]
        is_left, is_right = x <= -0.5, x >= end + 0.5
        x = jnp.clip(x, -0.5, end + 0.5)
        u = self.eta * x

        def exact(left: Scalar | float, right: Scalar | float, between: Array) -> Array:
            # Outside not up to rounding, which a large value of a cell there would enlarge.
            return jnp.where(is_left, left, jnp.where(is_right, right, between))

        left, right = self.activation.primitive(-x), self.activation.primitive(x - end)
        (below, below_slope), (above, above_slope) = self._jet(-x), self._jet(x - end)
        return _StepTerms(
            place=exact(0.0, 1.0, u + self.eta * (left - right)),
            slope=1.0 - below - above,
            bend=(below_slope - above_slope) / self.eta,
            phi=exact(0.0, self._moments()[0], self._primitive(u) - self.eta * last * right),
            level=self.smoothed(u) - last * above,
            rise=self.slope(u) - last * above_slope / self.eta,
        )

    def _by_cell(self, terms: _StepTerms) -> tuple[Array, Array]:
        """Return the increments (m+1,) of E and of Phi from cell to cell."""
        zero, total = jnp.zeros(1), self._moments()[0]
        places = jnp.concatenate([zero, terms.place, zero + 1.0])
        sums = jnp.concatenate([zero, terms.phi, zero + total])
        return places[1:] - places[:-1], sums[1:] - sums[:-1]

    def _sums(self, x: Array, a: Array) -> tuple[Array, Array]:
        """Return the sums (m,) over j of W_ij a_j, and their derivatives by x_i."""
        k = self.bandwidth
        places, weights = _padded(x, k, 1e9), _padded(a, k, 0.0)

        def add(step: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
            offset = jnp.where(step < k, step, step + 1)
            other, weight = (_slice(v, offset, x.size) for v in (places, weights))
            sign = jnp.where(step < k, -1.0, 1.0)
            t = sign * (x - other)
            value, slope = jax.jvp(self.activation.overlap, (t,), (jnp.ones_like(t),))
            return sums[0] + value * weight, sums[1] + sign * slope * weight

        sums = jax.lax.fori_loop(0, 2 * k, add, (self._self_overlap(x) * a, jnp.zeros_like(a)))

        def cut(sums: tuple[Array, Array]) -> tuple[Array, Array]:
            for start, more in self._cut(x):
                weight = _slice(a, start, more.value.shape[0])
                value = _added(sums[0], more.value @ weight, start)
                sums = (value, _added(sums[1], more.by_first @ weight, start))
            return sums

        return self._where_cut(x, cut, sums)

    def _pairs(self, x: Array) -> ProductIntegrals:
        """Return W_{i, i+d} (2k+1, m), and its derivatives by x_i and x_{i+d}."""
        places, k = _padded(x, self.bandwidth, 1e9), self.bandwidth

        def add(step: Array, rows: ProductIntegrals) -> ProductIntegrals:
            offset = jnp.where(step < k, step, step + 1)
            sign = jnp.where(step < k, -1.0, 1.0)
            t = sign * (x - _slice(places, offset, x.size))
            value, once, twice = self.overlap_jet(t)
            new = ProductIntegrals(value, sign * once, -twice, twice)
            return jax.tree.map(lambda all_, one: put(all_, offset, one), rows, new)

        none = varying_as(x, jnp.zeros((2 * k + 1, x.size)))
        start = ProductIntegrals(put(none, k, self._self_overlap(x)), none, none, none)
        rows = jax.lax.fori_loop(0, 2 * k, add, start)

        def cut(rows: ProductIntegrals) -> ProductIntegrals:
            for start, more in self._cut(x):
                new = jax.tree.map(lambda square: _diagonals(square, k), more)
                rows = jax.tree.map(lambda all_, one, s=start: _added(all_, one, s), rows, new)
            return rows

        return self._where_cut(x, cut, rows)

    def _self_overlap(self, x: Array) -> Array:
        """Return W_ii (m,), the overlap of each step with itself, as if neither 0 nor 1 cut it."""
        inside = (x > -1.0) & (x < 1.0 / self.eta + 1.0)
        return jnp.where(inside, self.activation.overlap(jnp.zeros(())), 0.0)

    def _where_cut(self, x: Array, cut: Callable[[Tree], Tree], parts: Tree) -> Tree:
        # Also by a neuron that has left, but not at either end of the row, which is not set apart.
        end = 1.0 / self.eta
        touched = jnp.any(((x > -1.0) & (x < 0.5)) | ((x > end - 0.5) & (x < end + 1.0)))
        return gathered_cond(touched, cut, parts)

    def _cut(self, x: Array) -> list[tuple[Array, ProductIntegrals]]:
        """Return what 0 changes, and what 1 does: the index of the first of n neurons, and (n, n)
        by the n neurons from there on."""
        end = 1.0 / self.eta
        from_end = jnp.stack([x, jnp.flip(end - x)])
        outside = jnp.stack([jnp.sum(x < -1.0), jnp.sum(x > end + 1.0)])
        # One after the other in a loop, since two of these would take twice as long to compile.
        starts, both = jax.lax.map(lambda each: self._cut_by_zero(*each), (from_end, outside))
        left, right = (jax.tree.map(lambda leaf, i=i: leaf[i], both) for i in (0, 1))
        right = jax.tree.map(jnp.flip, right)._replace(by_first=-jnp.flip(right.by_first))
        return [(starts[0], left), (x.size - starts[1] - left.value.shape[0], right)]

    def _cut_by_zero(self, x: Array, outside: Array) -> tuple[Array, ProductIntegrals]:
        # More cannot be cut at once, being within eta of each other.
        count = min(self.bandwidth + 1, x.size)
        start = jnp.minimum(outside, x.size - count)
        z = jnp.maximum(_slice(x, start, count), -0.5)
        products = self.beyond(z[:, None], z[None, :])
        lacking = self.activation.primitive(-z)
        height, slope = self._jet(-z)
        # The place of the later one has what it is cut already.
        later = np.tril(np.ones((count, count))) - 0.5 * np.eye(count)
        value = products.value - later * lacking[:, None] - later.T * lacking[None, :]
        by_first = products.by_first + later * height[:, None]
        twice = products.twice - later * slope[:, None]
        inside = (start + np.arange(count) >= outside).astype(x.dtype)
        mask = inside[:, None] * inside[None, :]
        return start, jax.tree.map(
            lambda part: mask * part, ProductIntegrals(value, by_first, products.by_both, twice)
        )

    def _neighbours(self, v: Array) -> Array:
        """Return v_{i+d} (2k+1, m) for the offsets d from -k to k."""
        padded, width = _padded(v, self.bandwidth, 0.0), v.size

        def add(offset: Array, rows: Array) -> Array:
            return put(rows, offset, _slice(padded, offset, width))

        count = 2 * self.bandwidth + 1
        return jax.lax.fori_loop(0, count, add, varying_as(v, jnp.zeros((count, width))))


def _means(c: Array) -> Array:
    return 0.5 * (c[1:] + c[:-1])


def _padded(v: Array, bandwidth: int, far: float) -> Array:
    ends = jnp.full(bandwidth, far)
    return jnp.concatenate([-ends, v, ends])


def _slice(v: Array, start: Array, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(v, start, size, axis=-1)


def _added(rows: Array, more: Array, start: Array) -> Array:
    """Return `rows` (..., m) with `more` (..., n) added from column `start` on."""
    now = _slice(rows, start, more.shape[-1])
    return jax.lax.dynamic_update_slice_in_dim(rows, now + more, start, axis=-1)


def _diagonals(square: Array, bandwidth: int) -> Array:
    """Return the diagonals (2k+1, n) of a matrix (n, n), k the bandwidth: row k + d holds the
    entries (i, i + d), and 0 where there is none."""
    count = square.shape[0]
    wide = jnp.pad(square, ((0, 0), (bandwidth, bandwidth))).ravel()
    turns = jnp.pad(wide, (0, count)).reshape(count, -1)
    return turns[:, : 2 * bandwidth + 1].T
