"""Relative rates of the inner parameters: how fast each leaf of u moves, as the user gives them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import SMALLEST, argument_error, is_concrete
from .._numbers import as_floats, as_leaves
from .._types import Tree

_PLACES = 5
"""Leaves that a message names, at most."""


def as_rates(rates: Any) -> Tree:
    """Return rates whose leaves have come through the gate for numbers: the converter of a field.

    **Raises:** `ValueError` for leaves that are no real numbers.
    """
    return None if rates is None else as_leaves("rates", rates, _as_rate)


def _as_rate(name: str, rate: Any) -> Any:
    found = as_floats(name, rate)
    return float(found) if isinstance(found, np.ndarray) and found.ndim == 0 else found


def check_rates(rates: Tree) -> None:
    """Raise `ValueError` unless all rates are finite and at least 0; traced ones are skipped."""
    for path, rate in jax.tree_util.tree_leaves_with_path(rates):
        if not is_concrete(rate):
            continue
        numbers = np.ravel(np.asarray(rate))
        # Smaller ones would compute as 0.
        is_rate = (numbers == 0) | (np.isfinite(numbers) & (numbers >= SMALLEST))
        if not is_rate.all():
            expected = f"finite, and 0 or at least {SMALLEST:.3g}"
            name = f"rates{jax.tree_util.keystr(path)}"
            raise argument_error(name, expected, numbers[~is_rate][0])


def check_rates_fit(rates: Tree, u: Tree) -> None:
    """Raise `ValueError` unless rates, or None, have the structure of u or a prefix of it, and
    shapes that broadcast to those of u."""
    if rates is None:
        return
    leaves, structure = jax.tree_util.tree_flatten_with_path(rates)
    try:
        parts = structure.flatten_up_to(u)
    except (ValueError, TypeError):
        expected = f"a number for all of u, or a tree like u, with {_places(u)}"
        raise argument_error("rates", expected, f"a tree with {_places(rates)}") from None
    for (path, rate), part in zip(leaves, parts, strict=True):
        for inner, leaf in jax.tree_util.tree_leaves_with_path(part):
            if not _broadcasts(np.shape(rate), np.shape(leaf)):
                place = f"{np.shape(leaf)}, that of u{jax.tree_util.keystr((*path, *inner))}"
                raise argument_error(
                    f"rates{jax.tree_util.keystr(path)}",
                    f"a number, or of a shape that broadcasts to {place}",
                    f"of shape {np.shape(rate)}",
                )


def rates_like(rates: Tree, u: Tree) -> Tree:
    """Return rates that fit u as a tree like u, each leaf of the shape of that of u, in float64."""

    def spread(rate: Any, part: Tree) -> Tree:
        number = jnp.asarray(rate, jnp.float64)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(number, np.shape(leaf)), part)

    return jax.tree.map(spread, rates, u)


def is_by_leaf(rates: Tree) -> bool:
    """Return whether each rate is one number, for a leaf or several leaves as a whole."""
    return all(np.ndim(rate) == 0 for rate in jax.tree.leaves(rates))


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _places(tree: Tree) -> str:
    """Return in words where the leaves of a tree are."""
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    if paths == [""]:
        return "one array alone"
    more = ", ..." if len(paths) > _PLACES else ""
    return f"leaves at {', '.join(paths[:_PLACES])}{more}" if paths else "no leaves"
