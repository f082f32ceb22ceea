"""The gradient flow of a wide network of steps, in cell coordinates: O(m) for a step in time.

The matrix of a step is banded when cells and positions alternate, c_0, u_1, c_1, ..., u_m, c_m.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Bool, Scalar, Times, Tree, put, varying_as
from ..batching.sequential import in_turn
from ..integrators.rosenbrock import (
    AbstractRosenbrockSystem,
    AbstractStagedSystem,
    SolverStep,
    positions_passed,
    rosenbrock_step,
    valid_step,
)
from ..models.network import Params
from ..numerics.banded import banded_solver
from .banded import BandedHessian, BandedRisk, CellState
from .error_norm import largest, position_error
from .gradient_system import fast_velocity
from .pairwise import PairwiseRisk

_BANDWIDTHS = (8, 16, 32, 128, 512)
SPARE = 0.25
"""Neurons that are so many eta further apart than needed count as apart: a step moves them."""


class BandedGradientSystem(AbstractRosenbrockSystem):
    """The gradient flow in cell coordinates, for neurons in order of position and one bandwidth."""

    risk: BandedRisk
    epsilon: Scalar
    ridge: Scalar

    def vector_field(self, y: CellState) -> CellState:
        by_c, by_u = self.risk.gradient(y)
        weights = _with_bias(self.risk.squares(y.u)) * _weights(y.c - self.risk.offset)
        return CellState(-by_c - 2 * self.ridge * _by_cells(weights), -by_u)

    def apply_mass(self, y: CellState) -> CellState:
        return CellState(self.epsilon * _by_cells(_weights(y.c)), y.u)

    def factorise(self, y: CellState, shift: Scalar) -> Callable[[CellState], CellState]:
        blocks = self.risk.hessian(y)
        stiff = shift * self.epsilon + 2 * self.ridge * _with_bias(self.risk.squares(y.u))
        blocks = blocks._replace(
            hess_aa=put(blocks.hess_aa, 0, blocks.hess_aa[0] + stiff[1:]),
            hess_cc=blocks.hess_cc + np.eye(1, y.c.size)[0] * stiff[0],
            hess_uu=put(blocks.hess_uu, 0, blocks.hess_uu[0] + shift),
        )
        solve = banded_solver(_rows(blocks))
        return lambda r: _deinterleaved(solve(_interleaved(r)))

    def velocity(self, y: CellState) -> CellState:
        vector_field = self.vector_field(y)
        by_a = jnp.flip(jnp.cumsum(jnp.flip(vector_field.c)))
        return CellState(jnp.cumsum(fast_velocity(by_a, self.epsilon)), vector_field.u)

    def error_norm(
        self, error: CellState, before: CellState, after: CellState, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        values = (error.c, self.risk.effective(before), self.risk.effective(after))
        off, old, new = (largest(_weights(c)) for c in values)
        weights = off / (atol + rtol * jnp.maximum(old, new))
        return position_error(self.risk.eta, self.epsilon, weights, error.u, rtol, atol)


class AdaptiveBandwidthSystem(AbstractStagedSystem):
    """The gradient flow in cell coordinates, with the least bandwidth that each step needs.

    `bandwidths`: those to choose from, increasing. A step that needs more than the largest is NaN.
    """

    risk: PairwiseRisk
    epsilon: Scalar
    ridge: Scalar
    bandwidths: tuple[int, ...] = eqx.field(static=True)

    def crowded(self, y: CellState) -> Bool[Array, ""]:
        """Return whether more neurons overlap than the largest bandwidth holds, or are about to."""
        return self._widest.risk.slack(y.u) < 1e-3 * self.risk.eta

    def velocity(self, y: CellState) -> CellState:
        return self._widest.velocity(y)

    def error_norm(
        self, error: CellState, before: CellState, after: CellState, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        return self._widest.error_norm(error, before, after, rtol, atol)

    def step(self, y: CellState, h: Scalar) -> SolverStep:
        def with_bandwidth(risk: BandedRisk, y: CellState) -> SolverStep:
            step = rosenbrock_step(self._at(risk), y, h)
            passed = positions_passed(y.u, step)
            return valid_step(step, jnp.all(jax.vmap(risk.slack)(passed) >= 0.0))

        return with_enough_bandwidth(self.risk, self.bandwidths, y, with_bandwidth)

    @property
    def _widest(self) -> BandedGradientSystem:
        return self._at(_with_bandwidth(self.risk, self.bandwidths[-1]))

    def _at(self, risk: BandedRisk) -> BandedGradientSystem:
        return BandedGradientSystem(risk, self.epsilon, self.ridge)


def with_enough_bandwidth(
    risk: PairwiseRisk,
    bandwidths: tuple[int, ...],
    y: CellState,
    function: Callable[[BandedRisk, CellState], Tree],
) -> Tree:
    """Return `function(risk, y)` with the least of some bandwidths that leaves some room, or with
    the last one."""
    risks = [_with_bandwidth(risk, bandwidth) for bandwidth in bandwidths]

    def chosen(place: int, y: CellState) -> Tree:
        if place == len(risks) - 1:
            return function(risks[place], y)
        enough = risks[place].slack(y.u) > SPARE * risk.eta
        return jax.lax.cond(
            enough, lambda y: function(risks[place], y), lambda y: chosen(place + 1, y), y
        )

    return chosen(0, y)


def wide_risks(
    risk: PairwiseRisk, bandwidths: tuple[int, ...], params: Params, *, crowds: bool = True
) -> Times:
    """Return the risks (T,) of parameters with a leading axis (T,), neurons in any order.

    Where more neurons overlap than the largest bandwidth holds, by all pairs, or NaN without
    `crowds`.
    """

    def one(risk: PairwiseRisk, params: Params) -> Scalar:
        y = to_cells(params)[0]
        holds = _with_bandwidth(risk, bandwidths[-1]).slack(y.u) >= 0.0

        def banded(y: CellState) -> Scalar:
            return with_enough_bandwidth(risk, bandwidths, y, lambda bands, y: bands(y))

        if not crowds:
            return jnp.where(holds, banded(y), jnp.nan)
        return jax.lax.cond(holds, banded, lambda _: risk(params), y)

    numbers, rest = eqx.partition(risk, eqx.is_inexact_array)

    def every(numbers: Tree, params: Params) -> Times:
        return jax.lax.map(lambda each: one(eqx.combine(numbers, rest), each), params)

    return in_turn(every)(numbers, params)


def all_bandwidths(width: int) -> tuple[int, ...]:
    """Return the bandwidths that a network of so many neurons may need, increasing."""
    largest = min(width - 1, _BANDWIDTHS[-1])
    return (*(bandwidth for bandwidth in _BANDWIDTHS if bandwidth < largest), largest)


def to_cells(params: Params) -> tuple[CellState, Array]:
    """Return the cell coordinates of parameters, neurons in order of position, and that order."""
    order = jnp.argsort(params.u)
    a = jnp.concatenate([params.a[:1], params.a[1:][order]])
    return CellState(jnp.cumsum(a), params.u[order]), order


def from_cells(y: CellState, order: Array) -> Params:
    """Return the parameters of cells with a leading axis, neurons in the order they had first."""
    back = jnp.argsort(order)
    a = jnp.diff(y.c, axis=-1)[..., back]
    return Params(jnp.concatenate([y.c[..., :1], a], axis=-1), y.u[..., back])


def _with_bandwidth(risk: PairwiseRisk, bandwidth: int) -> BandedRisk:
    return BandedRisk(risk.activation, risk.target, bandwidth)


def _weights(c: Array) -> Array:
    return jnp.concatenate([c[:1], c[1:] - c[:-1]])


def _with_bias(squares: Array) -> Array:
    """Return the square integrals of all features: that of the bias is 1."""
    return jnp.concatenate([jnp.ones(1), squares])


def _by_cells(by_a: Array) -> Array:
    """Return a derivative by c from one by the weights a_0, ..., a_m."""
    return jnp.concatenate([by_a[:-1] - by_a[1:], by_a[-1:]])


def _interleaved(y: CellState) -> Array:
    return jnp.concatenate([y.c[:1], jnp.stack([y.u, y.c[1:]], axis=1).ravel()])


def _deinterleaved(v: Array) -> CellState:
    return CellState(v[0::2], v[1::2])


def _rows(blocks: BandedHessian) -> Array:
    """Return the Hessian (2m+1, 2k+3) in the alternating order, entry (i, i + o) at (i, o)."""
    k, width = blocks.hess_aa.shape[0] - 1, blocks.hess_uu.shape[1]
    # c with c: entry (i, i + d) of the weights by differences of both. Rows from d = -1 on.
    by_a = jnp.pad(blocks.hess_aa, ((1, 2), (1, 1)))
    below = jnp.pad(by_a[2, :-1], (1, 0))
    by_a = jnp.concatenate([below[None, :], by_a[1:]])
    by_a = jnp.pad(by_a, ((0, 1), (0, 0)))
    by_c = by_a[1:-1, :-1] - by_a[:-2, 1:] - by_a[2:, :-1] + by_a[1:-1, 1:]
    by_c = by_c[: k + 2] + jnp.pad(blocks.hess_cc[None, :], ((0, k + 1), (0, 0)))
    # c with u: entries (c_{i+d}, u_i), d from -k-1 to k.
    by_a_u = jnp.pad(blocks.hess_au, ((1, 1), (0, 0)))
    near = np.isin(np.arange(-k - 1, k + 1), (0, -1)).astype(float)[:, None]
    by_c_u = by_a_u[:-1] - by_a_u[1:] + near * blocks.hess_cu[None, :]
    far = jnp.pad(by_c_u, ((0, 0), (0, k + 2)))

    def shifted(d: Array, rows: Array) -> Array:
        """Return the rows with the entries (c_i, u_{i+d+1}) in row d."""
        row = jax.lax.dynamic_index_in_dim(far, k - d, 0, False)
        return put(rows, d, jax.lax.dynamic_slice_in_dim(row, d, width + 1))

    zeros = varying_as(far, jnp.zeros((k + 1, width + 1)))
    ahead = jax.lax.fori_loop(0, k + 1, shifted, zeros)
    of_c = jnp.stack([ahead, by_c[1:]], axis=1).reshape(2 * k + 2, width + 1)
    of_c = jnp.concatenate([by_c[:1], of_c])
    of_u = jnp.stack([blocks.hess_uu, by_c_u[k + 1 :]], axis=1).reshape(2 * k + 2, width)
    of_u = jnp.pad(of_u, ((0, 1), (0, 0)))
    pairs = jnp.stack([of_u.T, of_c[:, 1:].T], axis=1).reshape(2 * width, 2 * k + 3)
    return jnp.concatenate([of_c[:, :1].T, pairs])
