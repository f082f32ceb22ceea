"""The matrix of a step of `PairwiseGradientSystem`, column by column, and its force, from sums over neurons.

For `descent_kernel`, which never has the whole matrix of a run. All are functions of the system and
of numbers of one run; a test holds what comes of them to `rosenbrock_step`. Pairs are places p and
q of two neurons from an end that cuts both, in units of eta; `sign`: 1 for 0, and -1 for the end 1.
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
"""Neurons up to which what is written out for each of them fits a kernel."""

LONGEST = 40_000
"""Operations up to which the functions that a kernel is made of are written out."""


def places(system: Any, u: Array) -> list[Array]:
    seen = system.risk.seen(u)
    return [seen / system.risk.eta, (1.0 - seen) / system.risk.eta]


def overlap_and_slope(system: Any, x: Array, other: Array, weight: Array) -> list[Array]:
    t = x - other
    value, slope = jax.jvp(system.risk.activation.overlap, (t,), (jnp.ones_like(t),))
    return [weight * value, weight * slope]


def slope_and_twice(system: Any, x: Array, other: Array, weight: Array) -> list[Array]:
    _, slope, twice = system.risk.overlap_jet(x - other)
    return [weight * slope, weight * twice]


def vector_field_by_sums(system: Any, bias: Array, a: Array, u: Array, *sums: Array) -> list[Array]:
    y = PairwiseState(bias, a, u)
    return list(system.vector_field_from(y, system.risk.gradient_by_sums(y, PairSums(*sums))))


def cut_vector_field(system: Any, p: Array, q: Array, weight: Array, sign: Array) -> list[Array]:
    value, by_first = jax.jvp(
        system.risk.activation.beyond, (p, q), (jnp.ones_like(p), jnp.zeros_like(q))
    )
    return [weight * value, sign * weight * by_first]


def cut_bends(system: Any, p: Array, q: Array, weight: Array, sign: Array) -> list[Array]:
    _, by_first, _, twice = system.risk.beyond(p, q)
    return [sign * weight * by_first, weight * twice]


EDGES = ("moving", "lift", "single", "by_a", "by_a_u", "by_u")


def edges(
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
    """The column of the bias (2m+1,), and (m,) each: what moves of the weights, what cut neurons
    add, and what is added to the diagonals of the blocks a a, a u and u u."""
    risk, eta = system.risk, system.risk.eta
    shift = 1.0 / (GAMMA * h)
    stiffness, ridge = shift * system.epsilon, 2 * system.ridge
    seen = risk.seen(u)
    left, right = risk.ends(PairwiseState(bias, a, seen))
    inside = risk.inside(u).astype(u.dtype)
    over_a = risk.smoothed(seen) - bias - slopes - by_first
    over_a = over_a + left.gap * left.height + right.gap * right.height
    bend = eta * risk.slope(seen) - twice - bends
    bend = bend - left.gap * left.slope + right.gap * right.slope
    lift, fall = a * right.height, a * left.height
    by_bias = 1.0 - seen + eta * (right.single - left.single)
    corner = 2.0 + stiffness + ridge
    column = jnp.concatenate([corner[None], 2 * by_bias, 2 * inside * (lift + fall - a)])
    return [
        column,
        inside * a,
        inside * lift,
        right.single,
        stiffness + ridge * risk.squares(u),
        2 * inside * over_a,
        2 / eta * inside * a * bend + shift,
    ]


def column_of_weight(
    system: Any,
    x: Array,
    moving: Array,
    lift: Array,
    single: Array,
    x_c: Array,
    rest_c: Array,
    single_c: Array,
) -> list[Array]:
    eta, overlap = system.risk.eta, system.risk.activation.overlap
    t = x_c - x
    slope = jax.jvp(overlap, (t,), (jnp.ones_like(t),))[1]
    by_a = eta * (rest_c - overlap(-t) + single + single_c)
    return [2 * by_a, 2 * (moving * (slope - 1.0) + lift)]


def column_of_position(
    system: Any, x: Array, moving: Array, x_c: Array, moving_c: Array
) -> list[Array]:
    _, _, twice = system.risk.overlap_jet(x - x_c)
    return [2 / system.risk.eta * moving_c * moving * twice]


def cut_weight(system: Any, p: Array, q: Array, moving: Array, sign: Array) -> list[Array]:
    value, by_first, _, _ = system.risk.beyond(p, q)
    return [-2 * system.risk.eta * value, -2 * sign * moving * by_first]


def cut_position(system: Any, p: Array, q: Array, moving: Array, moving_c: Array) -> list[Array]:
    by_both = system.risk.beyond(p, q).by_both
    return [-2 / system.risk.eta * moving * moving_c * by_both]


MADE_OF = {
    places: "m",
    overlap_and_slope: "m11",
    slope_and_twice: "m11",
    vector_field_by_sums: "1mmmmmm",
    edges: "11mmmmmm",
    column_of_weight: "mmmm111",
    column_of_position: "mm11",
    cut_vector_field: "1111",
    cut_bends: "1111",
    cut_weight: "1111",
    cut_position: "1111",
}
"""All of them, and what they are given beside the system: arrays (m,), or single numbers."""


def fits(system: Any, width: int) -> bool:
    """Whether a kernel can be made of a `PairwiseGradientSystem` of so many neurons.

    Not of a user's activation by operations that are not taken apart, nor of one that is too long.
    """
    if width > WIDEST:
        return False
    arrays, static = eqx.partition(system, eqx.is_array)
    total = 0
    for function, kinds in MADE_OF.items():
        given = [jnp.zeros(width if kind == "m" else ()) for kind in kinds]
        closed = jax.make_jaxpr(lambda a, *v, f=function: f(eqx.combine(a, static), *v))(
            jax.tree.map(lambda leaf: leaf.astype(jnp.float64), arrays), *given
        )
        count = operation_count(closed)
        if count is None:
            return False
        total += count
    return total <= LONGEST
