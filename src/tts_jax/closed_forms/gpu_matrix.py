"""Formulas for the kernel of `gpu_step`: the vector field of a `PairwiseGradientSystem`, from sums
over neurons, and the matrix of a solver's step, column by column.

The kernel never holds the whole matrix of a run. Every function takes the system and numbers of a
single run; tests hold the matrix that the functions make to that of the system, and the steps of
the kernel to `rosenbrock_step`. The formulas are those of `pairwise`.

x are positions in units of eta. The functions `cut_...` are of a pair of neurons that one end of
[0, 1] cuts, whose positions from that end, in units of eta, are p and q; `sign`: 1 for the end 0,
-1 for the end 1. An argument with the suffix `_c` belongs to the neuron of a column.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Array
from ..batching.scalar_program import operation_count
from ..integrators.rosenbrock import GAMMA
from .pairwise import PairSums, PairwiseState

WIDEST = 32
"""The largest width of a network that fits the kernel, which is unrolled over neurons."""

LONGEST = 40_000
"""The largest number of scalar operations of the functions below, which are unrolled too."""


def positions_and_weights(system: Any, bias: Array, a: Array, u: Array) -> list[Array]:
    """Return the distances (m,) of the neurons from 0, and from 1, in units of eta, and their
    weights, of `PairwiseRisk.effective`."""
    same = system.risk.effective(PairwiseState(bias, a, u))
    return [same.u / system.risk.eta, (1.0 - same.u) / system.risk.eta, same.a]


def overlap_and_slope(system: Any, x: Array, other: Array, weight: Array) -> list[Array]:
    """Return the terms of neuron `other` in the sums over X_ij and over its derivative by x_i."""
    t = x - other
    value, slope = jax.jvp(system.risk.activation.overlap, (t,), (jnp.ones_like(t),))
    return [weight * value, weight * slope]


def slope_and_twice(system: Any, x: Array, other: Array, weight: Array) -> list[Array]:
    """Return the terms of `other` in the sums over the first and second derivative of X_ij."""
    _, slope, twice = system.risk.overlap_jet(x - other)
    return [weight * slope, weight * twice]


def vector_field_by_sums(system: Any, bias: Array, a: Array, u: Array, *sums: Array) -> list[Array]:
    """Return the vector field, in parts for the bias, a and u, from the fields of `PairSums`."""
    y = PairwiseState(bias, a, u)
    return list(system.vector_field_from(y, system.risk.gradient_by_sums(y, PairSums(*sums))))


def cut_product_and_slope(
    system: Any, p: Array, q: Array, weight: Array, sign: Array
) -> list[Array]:
    """Return the terms of q in the sums `products` and `by_first` of `PairSums`."""
    value, by_first = jax.jvp(
        system.risk.activation.beyond, (p, q), (jnp.ones_like(p), jnp.zeros_like(q))
    )
    return [weight * value, sign * weight * by_first]


def cut_slope_and_twice(system: Any, p: Array, q: Array, weight: Array, sign: Array) -> list[Array]:
    """Return the terms of q in the sums over first and second derivatives of product integrals."""
    _, by_first, _, twice = system.risk.beyond(p, q)
    return [sign * weight * by_first, weight * twice]


NEURON_TERMS = ("moving", "right_value", "right_integral", "by_a", "by_a_u", "by_u")
"""The names of what `neuron_terms` returns after the first array, each (m,)."""


def neuron_terms(
    system: Any,
    h: Array,
    bias: Array,
    a: Array,
    u: Array,
    slopes: Array,
    twice: Array,
    by_first: Array,
    bends: Array,
) -> list[Array]:
    """Return the column of the bias (2m+1,), and the `NEURON_TERMS`.

    `moving`: the weights of `PairwiseRisk.effective`; `right_value`: `moving` times the
    value of `EndTerms` at the end 1; `right_integral`: its integral; `by_a`, `by_a_u` and `by_u`:
    what is added to the diagonals of the blocks hess_aa, hess_au and hess_uu of the matrix.
    """
    risk, eta = system.risk, system.risk.eta
    shift = 1.0 / (GAMMA * h)
    stiffness, ridge = shift * system.epsilon, 2 * system.ridge
    same = risk.effective(PairwiseState(bias, a, u))
    left, right = risk.ends(same)
    inside = risk.inside(u).astype(u.dtype)
    over_a = risk.smoothed(same.u) - same.bias - slopes - by_first
    over_a = over_a + left.residual * left.value + right.residual * right.value
    bend = eta * risk.slope(same.u) - twice - bends
    bend = bend - left.residual * left.slope + right.residual * right.slope
    right_value, left_value = same.a * right.value, same.a * left.value
    by_bias = 1.0 - same.u + eta * (right.integral - left.integral)
    corner = 2.0 + stiffness + ridge
    by_position = 2 * (right_value + left_value - same.a)
    column = jnp.concatenate([corner[None], 2 * by_bias, by_position])
    return [
        column,
        same.a,
        right_value,
        right.integral,
        stiffness + ridge * risk.squares(u),
        2 * inside * over_a,
        2 / eta * same.a * bend + shift,
    ]


def column_of_weight(
    system: Any,
    x: Array,
    moving: Array,
    right_value: Array,
    right_integral: Array,
    x_c: Array,
    from_one_c: Array,
    right_integral_c: Array,
) -> list[Array]:
    """Return the column of the weight of neuron c, without diagonals and pairs that an end cuts.

    Two parts (m,) each: the rows of the weights, and those of the positions.
    """
    eta, overlap = system.risk.eta, system.risk.activation.overlap
    t = x_c - x
    slope = jax.jvp(overlap, (t,), (jnp.ones_like(t),))[1]
    by_a = eta * (from_one_c - overlap(-t) + right_integral + right_integral_c)
    return [2 * by_a, 2 * (moving * (slope - 1.0) + right_value)]


def column_of_position(
    system: Any, x: Array, moving: Array, x_c: Array, moving_c: Array
) -> list[Array]:
    """Return the rows (m,) of the positions in the column of the position of neuron c.

    Without the diagonal and the pairs that an end cuts.
    """
    _, _, twice = system.risk.overlap_jet(x - x_c)
    return [2 / system.risk.eta * moving_c * moving * twice]


def cut_column_of_weight(
    system: Any, p: Array, q: Array, moving: Array, sign: Array
) -> list[Array]:
    """Return what a cut pair adds to the column of q's weight: rows of p's weight and position."""
    value, by_first, _, _ = system.risk.beyond(p, q)
    return [-2 * system.risk.eta * value, -2 * sign * moving * by_first]


def cut_column_of_position(
    system: Any, p: Array, q: Array, moving: Array, moving_c: Array
) -> list[Array]:
    """Return what a cut pair adds to the column of q's position, in the row of p's position."""
    by_both = system.risk.beyond(p, q).by_both
    return [-2 / system.risk.eta * moving * moving_c * by_both]


FUNCTIONS = {
    positions_and_weights: "1mm",
    overlap_and_slope: "m11",
    slope_and_twice: "m11",
    vector_field_by_sums: "1mmmmmm",
    neuron_terms: "11mmmmmm",
    column_of_weight: "mmmm111",
    column_of_position: "mm11",
    cut_product_and_slope: "1111",
    cut_slope_and_twice: "1111",
    cut_column_of_weight: "1111",
    cut_column_of_position: "1111",
}
"""The functions of the kernel, with the kinds of their arguments after the system: "m" for an array
(m,), "1" for a single number."""


def fits(system: Any, width: int) -> bool:
    """Return whether the kernel exists for a `PairwiseGradientSystem` of a width.

    It does not for a user's activation whose operations cannot be split into scalar ones, nor for
    one with too many of them.
    """
    if width > WIDEST:
        return False
    arrays, static = eqx.partition(system, eqx.is_array)
    total = 0
    for function, kinds in FUNCTIONS.items():
        arguments = [jnp.zeros(width if kind == "m" else ()) for kind in kinds]
        closed = jax.make_jaxpr(lambda a, *v, f=function: f(eqx.combine(a, static), *v))(
            jax.tree.map(lambda leaf: leaf.astype(jnp.float64), arrays), *arguments
        )
        count = operation_count(closed)
        if count is None:
            return False
        total += count
    return total <= LONGEST
