"""The first places in [0, 1] where functions that are known by their values alone reach zero.

Values at the Chebyshev points of a piece give a polynomial, and the last of its coefficients say
how far the function may be from it (L. N. Trefethen, Approximation Theory and Approximation
Practice, SIAM 2013). A piece in which that keeps above zero is done; another one is halved, so that
a function which falls below zero and comes back is seen too.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Bool, Float, Scalar, varying_as
from .first_root import bernstein_minimum

_DEGREE = 6
_NODES = 0.5 * (1.0 - np.cos(np.pi * np.arange(_DEGREE + 1) / _DEGREE))
_TO_POWERS = np.linalg.inv(np.vander(_NODES, increasing=True))
_TO_CHEBYSHEV = np.linalg.inv(np.polynomial.chebyshev.chebvander(2.0 * _NODES - 1.0, _DEGREE))

_SHORTEST = 2.0**-12
"""The length of a piece that is not halved again."""

_MOST = 100
"""Pieces that may be halved. A function that stays within rounding of zero would ask for all."""

_RESOLUTION = 2.0**-50
_ITERATIONS = 60


class _Search(NamedTuple):
    """Where a search stands: the piece, how often pieces were halved, and which functions have not
    crossed yet. `low` and `high`: the ends between which the others cross. `lost`: whether a value
    was NaN."""

    start: Scalar
    length: Scalar
    halved: Array
    pending: Bool[Array, " k"]
    low: Float[Array, " k"]
    high: Float[Array, " k"]
    lost: Bool[Array, " k"]


def first_crossings(
    values: Callable[[Scalar], Float[Array, " k"]], pending: Bool[Array, " k"]
) -> Float[Array, " k"]:
    """Return the least t in [0, 1] at which each function is at most 0.

    `values`: of all functions at one place; `pending`: those that are asked for, which are above 0
    at 0. Infinity stands for a function that was not asked for or stays above 0, NaN for one that
    was NaN on the way. A fall below zero is seen if it lasts longer than 1/4096, and shorter ones
    of smooth functions mostly, too.
    """

    def goes_on(now: _Search) -> Array:
        return (now.start < 1.0) & jnp.any(now.pending)

    def advance(now: _Search) -> _Search:
        places = now.start + now.length * jnp.asarray(_NODES)
        rows = jax.lax.map(values, places)  # in turn: a risk may need much memory
        powers = jnp.tensordot(jnp.asarray(_TO_POWERS), rows, 1)
        last = jnp.tensordot(jnp.asarray(_TO_CHEBYSHEV[-2:]), rows, 1)
        clear = bernstein_minimum(powers) > jnp.sum(jnp.abs(last), axis=0)
        may_halve = (now.length > _SHORTEST) & (now.halved < _MOST)
        done = jnp.all(clear | ~now.pending) | ~may_halve
        crossed = rows <= 0
        first = jnp.argmax(crossed, axis=0)
        found = done & now.pending & jnp.any(crossed, axis=0)
        start = jnp.where(done, now.start + now.length, now.start)
        length = jnp.where(done, jnp.minimum(2.0 * now.length, 1.0 - start), 0.5 * now.length)
        lost = now.lost | (now.pending & jnp.any(jnp.isnan(rows), axis=0))
        return _Search(
            start,
            length,
            now.halved + jnp.where(done, 0, 1),
            now.pending & ~found & ~lost,
            jnp.where(found, places[jnp.maximum(first - 1, 0)], now.low),
            jnp.where(found, places[first], now.high),
            lost,
        )

    zero = jnp.zeros(pending.shape)
    begin = _Search(
        *(jnp.zeros(()), jnp.ones(()), jnp.zeros((), jnp.int32)),
        *(pending, zero, zero - 1.0, jnp.zeros_like(pending)),
    )
    now = jax.lax.while_loop(goes_on, advance, varying_as(pending, begin))

    def root(ends: tuple[Array, Scalar, Scalar]) -> Scalar:
        i, low, high = ends
        return bracketed_root(lambda t: values(t)[i], low, jnp.maximum(low, high))

    roots = jax.lax.map(root, (jnp.arange(pending.size), now.low, now.high))
    parts = jnp.where(now.high >= 0, roots, jnp.inf)
    return jnp.where(now.lost, jnp.nan, parts)


class _Bracket(NamedTuple):
    """The newest place, the other end of the bracket, the place before, and the values there;
    where in the bracket to look next; and whether it is found."""

    x: Scalar
    other: Scalar
    before: Scalar
    f: Scalar
    f_other: Scalar
    f_before: Scalar
    part: Scalar
    turns: Array
    found: Bool[Array, ""]


def bracketed_root(
    function: Callable[[Scalar], Scalar], low: Scalar, high: Scalar
) -> Float[Array, ""]:
    """Return the place in [low, high] at which a function goes from above 0 to at most 0.

    Source: T. R. Chandrupatla, Adv. Eng. Softw. 28:145 (1997): inverse quadratic interpolation
    where it can be trusted, else bisection. Between equal ends it returns `low` and computes
    nothing.
    """

    def goes_on(now: _Bracket) -> Array:
        return ~now.found & (now.turns < _ITERATIONS)

    def narrow(now: _Bracket) -> _Bracket:
        x = now.x + now.part * (now.other - now.x)
        f = function(x)
        same = (f > 0) == (now.f > 0)
        before, f_before = jnp.where(same, now.x, now.other), jnp.where(same, now.f, now.f_other)
        other, f_other = jnp.where(same, now.other, now.x), jnp.where(same, now.f_other, now.f)
        least = _RESOLUTION / jnp.maximum(jnp.abs(other - x), 1e-300)
        xi = (x - other) / (before - other)
        phi = (f - f_other) / (f_before - f_other)
        trusted = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
        quadratic = f / (f_other - f) * f_before / (f_other - f_before)
        ahead = (before - x) / (other - x) * f / (f_before - f) * f_other / (f_before - f_other)
        part = jnp.where(trusted, quadratic + ahead, 0.5)
        part = jnp.clip(part, jnp.minimum(least, 0.5), jnp.maximum(1.0 - least, 0.5))
        found = (least > 0.5) | (f == 0)
        return _Bracket(x, other, before, f, f_other, f_before, part, now.turns + 1, found)

    def search() -> Scalar:
        begin = _Bracket(
            *(low, high, high, function(low), function(high), jnp.zeros_like(low)),
            *(jnp.full_like(low, 0.5), varying_as(low, jnp.zeros((), jnp.int32)), low >= high),
        )
        now = jax.lax.while_loop(goes_on, narrow, begin)
        return jnp.where(jnp.abs(now.f_other) < jnp.abs(now.f), now.other, now.x)

    return jax.lax.cond(low < high, search, lambda: low)
