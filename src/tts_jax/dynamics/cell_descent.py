"""Gradient descent of a wide network of steps, in cell coordinates: O(m) for every step.

The matrix of a step is banded when cells and positions alternate, c_0, u_1, c_1, ..., u_m, c_m.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Bool, Scalar, Times, Tree, put
from ..cells import Blocks, CellRisk, Cells
from ..networks import Params
from ..solvers import (
    STAGES,
    AbstractMotion,
    AbstractSystem,
    Step,
    banded_solver,
    in_turn,
    rosenbrock_step,
)
from ..steps import StepRisk
from .descent import fast_velocity, largest, position_error

_REACHES = (8, 16, 32, 128, 512)
_SPARE = 0.25
"""Neurons that are so many eta further apart than needed count as apart: a step moves them."""


class CellDescent(AbstractSystem):
    """`StepDescent` in cell coordinates, for neurons in order of position, one reach."""

    risk: CellRisk
    epsilon: Scalar
    ridge: Scalar

    def force(self, y: Cells) -> Cells:
        by_c, by_u = self.risk.gradient(y)
        weights = _with_bias(self.risk.squares(y.u)) * _weights(y.c)
        return Cells(-by_c - 2 * self.ridge * _to_cells(weights), -by_u)

    def mass(self, y: Cells) -> Cells:
        return Cells(self.epsilon * _to_cells(_weights(y.c)), y.u)

    def linearise(self, y: Cells, shift: Scalar) -> Callable[[Cells], Cells]:
        blocks = self.risk.hessian(y)
        stiff = shift * self.epsilon + 2 * self.ridge * _with_bias(self.risk.squares(y.u))
        blocks = blocks._replace(
            by_a=put(blocks.by_a, 0, blocks.by_a[0] + stiff[1:]),
            by_c=blocks.by_c + np.eye(1, y.c.size)[0] * stiff[0],
            by_u=put(blocks.by_u, 0, blocks.by_u[0] + shift),
        )
        solve = banded_solver(_rows(blocks))
        return lambda r: _apart(solve(_alternating(r)))

    def velocity(self, y: Cells) -> Cells:
        force = self.force(y)
        by_a = jnp.flip(jnp.cumsum(jnp.flip(force.c)))
        return Cells(jnp.cumsum(fast_velocity(by_a, self.epsilon)), force.u)

    def error(
        self, error: Cells, before: Cells, after: Cells, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        off, old, new = (largest(_weights(y.c)) for y in (error, before, after))
        weights = off / (atol + rtol * jnp.maximum(old, new))
        return position_error(self.risk.eta, self.epsilon, weights, error.u, rtol, atol)


class WideDescent(AbstractMotion):
    """`CellDescent` with the reach that each step needs. A step beyond the largest is NaN."""

    risk: StepRisk
    epsilon: Scalar
    ridge: Scalar

    def crowded(self, y: Cells) -> Bool[Array, ""]:
        """Whether more neurons overlap than the largest reach holds, or are about to."""
        return self._widest(y).risk.slack(y.u) < 1e-3 * self.risk.eta

    def velocity(self, y: Cells) -> Cells:
        return self._widest(y).velocity(y)

    def error(
        self, error: Cells, before: Cells, after: Cells, rtol: Scalar, atol: Scalar
    ) -> Scalar:
        return self._widest(before).error(error, before, after, rtol, atol)

    def step(self, y: Cells, h: Scalar) -> Step:
        def with_reach(risk: CellRisk, y: Cells) -> Step:
            step = rosenbrock_step(self._at(risk), y, h)
            passed = jnp.concatenate([y.u[None, :] + STAGES @ step.stages.u, step.after.u[None, :]])
            held = jnp.all(jax.vmap(risk.slack)(passed) >= 0.0)
            return step._replace(
                stages=jax.tree.map(lambda leaf: jnp.where(held, leaf, jnp.nan), step.stages)
            )

        return by_reach(self.risk, y, with_reach)

    def _widest(self, y: Cells) -> CellDescent:
        return self._at(_with_reach(self.risk, largest_reach(y.u.size)))

    def _at(self, risk: CellRisk) -> CellDescent:
        return CellDescent(risk, self.epsilon, self.ridge)


def by_reach(risk: StepRisk, y: Cells, function: Callable[[CellRisk, Cells], Tree]) -> Tree:
    """`function(risk, y)` with the smallest reach that leaves some room."""
    widest = largest_reach(y.u.size)
    reaches = [reach for reach in _REACHES if reach < widest] + [widest]
    risks = [_with_reach(risk, reach) for reach in reaches]

    def chosen(place: int, y: Cells) -> Tree:
        if place == len(risks) - 1:
            return function(risks[place], y)
        enough = risks[place].slack(y.u) > _SPARE * risk.eta
        return jax.lax.cond(
            enough, lambda y: function(risks[place], y), lambda y: chosen(place + 1, y), y
        )

    return chosen(0, y)


def wide_risks(risk: StepRisk, ys: Cells) -> Times:
    """(T,) the risk of cells with a leading axis (T,), in any order. NaN if they are crowded."""

    def one(risk: StepRisk, y: Cells) -> Scalar:
        sorted_ = to_cells(Params(_weights(y.c), y.u))[0]
        return by_reach(
            risk,
            sorted_,
            lambda risk, y: jnp.where(risk.slack(y.u) >= 0.0, risk(y), jnp.nan),
        )

    numbers, rest = eqx.partition(risk, eqx.is_inexact_array)

    def every(numbers: Tree, ys: Cells) -> Times:
        return jax.lax.map(lambda y: one(eqx.combine(numbers, rest), y), ys)

    return in_turn(every)(numbers, ys)


def largest_reach(width: int) -> int:
    return min(width - 1, _REACHES[-1])


def to_cells(params: Params) -> tuple[Cells, Array]:
    """Cells, with neurons in order of position, and that order."""
    order = jnp.argsort(params.u)
    a = jnp.concatenate([params.a[:1], params.a[1:][order]])
    return Cells(jnp.cumsum(a), params.u[order]), order


def from_cells(y: Cells, order: Array) -> Params:
    """Parameters in the first order, of cells with a leading axis."""
    back = jnp.argsort(order)
    a = jnp.diff(y.c, axis=-1)[..., back]
    return Params(jnp.concatenate([y.c[..., :1], a], axis=-1), y.u[..., back])


def _with_reach(risk: StepRisk, reach: int) -> CellRisk:
    return CellRisk(risk.activation, risk.target, reach)


def _weights(c: Array) -> Array:
    return jnp.concatenate([c[:1], c[1:] - c[:-1]])


def _with_bias(squares: Array) -> Array:
    """The square integral of the bias is 1."""
    return jnp.concatenate([jnp.ones(1), squares])


def _to_cells(by_a: Array) -> Array:
    """What is by a_0, ..., a_m, by c."""
    return jnp.concatenate([by_a[:-1] - by_a[1:], by_a[-1:]])


def _alternating(y: Cells) -> Array:
    return jnp.concatenate([y.c[:1], jnp.stack([y.u, y.c[1:]], axis=1).ravel()])


def _apart(v: Array) -> Cells:
    return Cells(v[0::2], v[1::2])


def _rows(blocks: Blocks) -> Array:
    """(2m+1, 2k+3): the Hessian in the alternating order, entry (i, i + o) at row i, column o."""
    k, width = blocks.by_a.shape[0] - 1, blocks.by_u.shape[1]
    # c with c: entry (i, i + d) of the weights by differences of both. Rows from d = -1 on.
    by_a = jnp.pad(blocks.by_a, ((1, 2), (1, 1)))
    below = jnp.pad(by_a[2, :-1], (1, 0))
    by_a = jnp.concatenate([below[None, :], by_a[1:]])
    by_a = jnp.pad(by_a, ((0, 1), (0, 0)))
    by_c = by_a[1:-1, :-1] - by_a[:-2, 1:] - by_a[2:, :-1] + by_a[1:-1, 1:]
    by_c = by_c[: k + 2] + jnp.pad(blocks.by_c[None, :], ((0, k + 1), (0, 0)))
    # c with u: entries (c_{i+d}, u_i), d from -k-1 to k.
    by_a_u = jnp.pad(blocks.by_a_u, ((1, 1), (0, 0)))
    near = np.isin(np.arange(-k - 1, k + 1), (0, -1)).astype(float)[:, None]
    by_c_u = by_a_u[:-1] - by_a_u[1:] + near * blocks.by_c_u[None, :]
    far = jnp.pad(by_c_u, ((0, 0), (0, k + 2)))

    def shifted(d: Array, rows: Array) -> Array:
        """Entries (c_i, u_{i+d+1})."""
        row = jax.lax.dynamic_index_in_dim(far, k - d, 0, False)
        return put(rows, d, jax.lax.dynamic_slice_in_dim(row, d, width + 1))

    ahead = jax.lax.fori_loop(0, k + 1, shifted, jnp.zeros((k + 1, width + 1)))
    of_c = jnp.stack([ahead, by_c[1:]], axis=1).reshape(2 * k + 2, width + 1)
    of_c = jnp.concatenate([by_c[:1], of_c])
    of_u = jnp.stack([blocks.by_u, by_c_u[k + 1 :]], axis=1).reshape(2 * k + 2, width)
    of_u = jnp.pad(of_u, ((0, 1), (0, 0)))
    pairs = jnp.stack([of_u.T, of_c[:, 1:].T], axis=1).reshape(2 * width, 2 * k + 3)
    return jnp.concatenate([of_c[:, :1].T, pairs])
