"""Whether a user's model is affine in its fast leaves, and what its features are then.

All is found out from numbers: the model is called at random parameters. What holds there holds
everywhere but for a coincidence.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Tree
from ..models.network import Params

Predict = Callable[[Params, Array], Array]
"""Predictions (n,) or (n, K) of parameters and inputs (n, ...)."""

SAMPLES = 32
"""Inputs, at most, that the model is called with."""

_SCALES = (1.0, 30.0)
"""Sizes of random fast leaves: the larger ones find what only bends far away."""

_SEED = 20260


class Head(NamedTuple):
    """What a model that is affine in its fast leaves is like.

    `axes`: the axis of each fast leaf that belongs to the K outputs, where they share their
    features, or None; `has_offset`: whether the model is not zero where all fast leaves are;
    `bias`: the number of the feature that is always 1, or None; `has_kinks`: whether derivatives by
    the slow leaves jump, as those of ReLU networks.
    """

    axes: tuple[int, ...] | None = None
    has_offset: bool = True
    bias: int | None = None
    has_kinks: bool = True


def not_affine_in(predict: Predict, params: Params, x: Array) -> list[int]:
    """Return the numbers of the fast leaves that the predictions are not affine in.

    Where they are affine in each leaf alone, but not in all of them at once, as in a product of
    two, these are all leaves.
    """
    leaves, structure = jax.tree.flatten(params.a)
    random = np.random.default_rng(_SEED)

    def is_affine(chosen: list[int]) -> bool:
        for u in _points(predict, params, x, random):
            for scale in _SCALES:
                first = _normal(leaves, scale, random)
                other = _normal(leaves, scale, random)
                second = [other[i] if i in chosen else first[i] for i in range(len(leaves))]
                # Beyond the second point, so that also a bend between the two is seen.
                along = [3.0 * b - 2.0 * a for a, b in zip(first, second, strict=True)]
                values = [
                    np.asarray(predict(Params(jax.tree.unflatten(structure, a), u), x))
                    for a in (first, second, along)
                ]
                if not _lie_on_a_line(*values):
                    return False
        return True

    everything = list(range(len(leaves)))
    if is_affine(everything):
        return []
    return [i for i in everything if not is_affine([i])] or everything


def head_of(predict: Predict, params: Params, x: Array) -> Head:
    """Return what a model is like, at some inputs, that is affine in its fast leaves."""
    random = np.random.default_rng(_SEED)
    zeros = jax.tree.map(jnp.zeros_like, params.a)
    points = _points(predict, params, x, random)
    outputs = [np.asarray(predict(Params(zeros, u), x)) for u in points]
    count = outputs[0].size // outputs[0].shape[0]
    # Of the first output, and of all of them in random shares: a derivative of each would be K
    # times as large.
    shares = np.stack([np.eye(count)[0], random.normal(size=count)])
    slopes = _slopes(predict, zeros, points, x, jnp.asarray(shares, outputs[0].dtype))
    axes = _shared_axes(slopes, shares)
    bias = None
    if axes is not None or count == 1:
        features = np.concatenate([_first_output(rows, axes) for rows in slopes])
        ones = np.flatnonzero(np.all(features == 1.0, axis=0))
        bias = int(ones[0]) if ones.size else None
    has_offset = any(np.any(values != 0) for values in outputs)
    return Head(axes, has_offset, bias, _has_kinks(predict, params, x, random))


def spread(x: Any) -> Any:
    """Return some of the inputs x (N, ...), from all over the sample."""
    count = np.shape(x)[0]
    return x[np.unique(np.linspace(0, count - 1, SAMPLES).astype(int))]


def _has_kinks(predict: Predict, params: Params, x: Array, random: np.random.Generator) -> bool:
    """Return whether the derivative by the slow leaves jumps on a line through them.

    Between places half as far apart the derivative of a smooth model changes half as much, where it
    jumps as much as before.
    """
    leaves, structure = jax.tree.flatten(params.u)
    along = jax.tree.unflatten(structure, _normal(leaves, 1.0, random))
    a = jax.tree.map(jnp.asarray, _normal(jax.tree.leaves(params.a), 1.0, random))
    a = jax.tree.unflatten(jax.tree.structure(params.a), a)

    def slope(place: Array) -> Array:
        def at(place: Array) -> Array:
            u = jax.tree.map(lambda v, w: v + place.astype(v.dtype) * w, params.u, along)
            return predict(Params(a, u), x)

        return jax.jvp(at, (place,), (jnp.ones_like(place),))[1]

    places = jnp.linspace(-_LENGTH, _LENGTH, _PLACES)
    slopes = np.asarray(jax.jit(lambda places: jax.lax.map(slope, places))(places))
    near = np.max(np.abs(np.diff(slopes, axis=0)), initial=0.0)
    apart = np.max(np.abs(np.diff(slopes[::2], axis=0)), initial=0.0)
    return not near < _SMOOTH * apart and bool(near > 0)


_LENGTH = 0.1
"""How far the line goes to either side: many kinks close together would look smooth."""

_PLACES = 129
"""Places on the line."""

_SMOOTH = 0.75
"""Between 1/2, which smooth models tend to, and 1."""


def _slopes(
    predict: Predict, zeros: Tree, points: list[Tree], x: Array, shares: Array
) -> list[list[np.ndarray]]:
    """Return the derivatives of sums of the K outputs, with these shares (s, K), by every fast
    leaf, (n, s, ...) each, for some u."""

    def one(u: Tree, x: Array) -> Tree:
        _, pull = jax.vjp(lambda a: predict(Params(a, u), x[None]).reshape(-1), zeros)
        return jax.vmap(lambda share: pull(share)[0])(shares)

    each = jax.jit(jax.vmap(one, in_axes=(None, 0)))
    return [[np.asarray(v) for v in jax.tree.leaves(each(u, x))] for u in points]


def _shared_axes(points: list[list[np.ndarray]], shares: np.ndarray) -> tuple[int, ...] | None:
    """Return the axis of each leaf along which every output has its own numbers, and all outputs
    the same features; None if there is none for some leaf, and for one output."""
    outputs = shares.shape[1]
    if outputs == 1:
        return None
    axes = []
    for i in range(len(points[0])):
        sizes = points[0][i].shape[2:]
        fitting = [axis for axis, size in enumerate(sizes) if size == outputs]
        fitting = [a for a in fitting if all(_is_shared(rows[i], a, shares) for rows in points)]
        if not fitting:
            return None
        axes.append(fitting[0])
    return tuple(axes)


def _is_shared(slope: np.ndarray, axis: int, shares: np.ndarray) -> bool:
    by_output = np.moveaxis(slope, 2 + axis, 2)
    rows = by_output.reshape(*by_output.shape[:3], -1)
    wanted = shares[None, :, :, None] * rows[:, :1, :1]
    allowed = np.sqrt(np.finfo(rows.dtype).eps) * np.max(np.abs(rows), initial=0.0)
    return bool(np.all(np.abs(rows - wanted) <= allowed))


def _first_output(slopes: list[np.ndarray], axes: tuple[int, ...] | None) -> np.ndarray:
    """Return the features (n, q) of the first output."""
    columns = []
    for i, slope in enumerate(slopes):
        rows = slope[:, 0] if axes is None else np.take(slope[:, 0], 0, axis=1 + axes[i])
        columns.append(rows.reshape(rows.shape[0], -1))
    return np.concatenate(columns, axis=1)


def _points(predict: Predict, params: Params, x: Array, random: np.random.Generator) -> list[Tree]:
    """Return the slow leaves, and those moved at random: at a start of zeros all features vanish,
    and anything is affine."""
    leaves, structure = jax.tree.flatten(params.u)
    moved = [leaf + other for leaf, other in zip(leaves, _normal(leaves, 1.0, random), strict=True)]
    other = jax.tree.unflatten(structure, moved)
    # Such as a logarithm of slow leaves is not defined everywhere.
    is_defined = np.all(np.isfinite(predict(Params(params.a, other), x)))
    return [params.u, other] if is_defined else [params.u]


def _normal(leaves: list[Array], scale: float, random: np.random.Generator) -> list[Array]:
    return [jnp.asarray(scale * random.normal(size=v.shape), v.dtype) for v in leaves]


def _lie_on_a_line(first: np.ndarray, second: np.ndarray, along: np.ndarray) -> bool:
    """Return whether along - first is three times second - first, up to rounding."""
    if not np.all(np.isfinite(first)) or not np.all(np.isfinite(second)):
        return False
    unit = float(np.finfo(first.dtype).eps)
    size = np.max(np.abs(second - first))
    # Of a large constant in the output there is the rounding error alone.
    allowed = np.sqrt(unit) * size + _ROUNDING * unit * np.max(np.abs(first))
    return bool(np.all(np.abs((along - first) - 3.0 * (second - first)) <= allowed))


_ROUNDING = 1e3
"""Rounding units that an output may be off."""
