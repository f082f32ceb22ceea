"""A user's own model in halves: its fast leaves, its slow leaves, and what is not trained."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_finite, check_type
from .._numbers import shown
from .._types import Array, Tree
from .network import Params

FAST, SLOW, FIXED = "fast", "slow", "fixed"

Kind = Literal["fast", "slow", "fixed"]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an array stands in a model: which part it belongs to, its shape and its path."""

    kind: Kind
    shape: tuple[int, ...]
    path: str


class Skeleton:
    """The structure of a model: a tree with a `Place` for every array, and all else as it is.

    Two that are equal are the same to a compiled program. The tree itself is kept, and not what
    JAX calls its structure, since only a tree tells by its parts what it does.
    """

    def __init__(self, tree: Tree):
        self.tree = tree

    @functools.cached_property
    def flat(self) -> tuple[tuple[Any, ...], Any]:
        """The leaves, and the structure."""
        leaves, structure = jax.tree.flatten(self.tree)
        return tuple(leaves), structure

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Skeleton) and self.flat == other.flat

    def __hash__(self) -> int:
        leaves, structure = self.flat
        return hash((structure, tuple(leaf for leaf in leaves if isinstance(leaf, Place))))

    def places(self, kind: Kind) -> list[Place]:
        """Return the places of a part of the model, in the order of its leaves."""
        return [leaf for leaf in self.flat[0] if isinstance(leaf, Place) and leaf.kind == kind]

    def filled(self, kind: Kind, leaves: Sequence[Any]) -> Tree:
        """Return the tree of one part, with None in the place of all others."""
        these = iter(leaves)
        flat, structure = self.flat
        found = [
            next(these) if isinstance(place, Place) and place.kind == kind else None
            for place in flat
        ]
        return jax.tree.unflatten(structure, found)


class Halves(eqx.Module):
    """How a model is made of the two halves of its parameters, and of what is not trained.

    Each half is a tree of the structure of the model, with None in the place of every other leaf.
    """

    skeleton: Skeleton = eqx.field(static=True)
    fixed: list[Array]

    def to_model(self, params: Params) -> Tree:
        """Return the model with these parameters, which may have leading axes."""
        flat, structure = self.skeleton.flat
        rows = {FAST: self._leaves("params.a", params.a), SLOW: self._leaves("params.u", params.u)}
        fixed = iter(self.fixed)
        leaves = []
        for i, place in enumerate(flat):
            if not isinstance(place, Place):
                leaves.append(place)
            else:
                leaves.append(next(fixed) if place.kind == FIXED else rows[place.kind][i])
        return jax.tree.unflatten(structure, leaves)

    def check(self, params: Params) -> None:
        """Raise `ValueError` unless both halves are those of the model."""
        check_type("params", params, Params)
        halves: tuple[tuple[str, Tree, Kind], ...] = (
            ("params.a", params.a, FAST),
            ("params.u", params.u, SLOW),
        )
        for name, half, kind in halves:
            places = self.skeleton.places(kind)
            wanted = jax.tree.structure(self.skeleton.filled(kind, places))
            if jax.tree.structure(half) != wanted:
                raise _not_this_half(name, half)
            for place, leaf in zip(places, jax.tree.leaves(half), strict=True):
                if np.shape(leaf) != place.shape:
                    expected = f"of shape {place.shape}, as in the model"
                    raise argument_error(name + place.path, expected, f"of shape {np.shape(leaf)}")
                if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                    got = f"of {jnp.result_type(leaf)}"
                    raise argument_error(name + place.path, "of a floating dtype", got)

    def zeros(self, dtype: Any) -> Tree:
        """Return fast leaves that are all zero."""
        places = self.skeleton.places(FAST)
        return self.skeleton.filled(FAST, [jnp.zeros(place.shape, dtype) for place in places])

    def _leaves(self, name: str, half: Tree) -> list[Any]:
        try:
            return self.skeleton.flat[1].flatten_up_to(half)
        except (ValueError, TypeError):
            raise _not_this_half(name, half) from None


def in_halves(name: str, model: Tree, kinds: Sequence[Kind], dtype: Any) -> tuple[Halves, Params]:
    """Return how a model is made of its halves, and the halves.

    **Arguments:** the `name` of the argument that the model is, for messages; for each of its
    leaves the part it belongs to, which what is no array does not look at; the floating `dtype`
    that all numbers of the model get.

    **Raises:** `ValueError` for leaves that are no finite real numbers, or have one path.
    """
    paths, leaves, structure = flat_with_paths(model)
    skeleton: list[Any] = []
    parts: dict[Kind, list[Array]] = {FAST: [], SLOW: [], FIXED: []}
    for path, leaf, kind in zip(paths, leaves, kinds, strict=True):
        if not is_array(leaf):
            skeleton.append(leaf)
            continue
        if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind not in _NUMBERS:
            raise argument_error(
                name, "without arrays of anything but numbers", f"{leaf.dtype} in {path}"
            )
        if kind != FIXED and jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            expected = "without complex numbers, unless they are `frozen`"
            raise argument_error(name, expected, f"{leaf.dtype} in {path}")
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            if kind != FIXED:  # a mask of the user's may be infinite
                check_finite(name + path, leaf)
            leaf = jnp.asarray(leaf).astype(dtype)
        skeleton.append(Place(kind, np.shape(leaf), path))
        parts[kind].append(jnp.asarray(leaf))
    trained = [place.path for place in skeleton if isinstance(place, Place) and place.kind != FIXED]
    if len(set(trained)) < len(trained):
        twice = next(path for path in trained if trained.count(path) > 1)
        raise argument_error(name, "a tree whose leaves have paths of their own", f"two of {twice}")
    whole = Skeleton(jax.tree.unflatten(structure, skeleton))
    params = Params(whole.filled(FAST, parts[FAST]), whole.filled(SLOW, parts[SLOW]))
    return Halves(whole, parts[FIXED]), params


_NUMBERS = "biufcV"
"""Kinds of arrays of NumPy that JAX has too; the short floats are V."""


def flat_with_paths(tree: Tree) -> tuple[list[str], list[Any], Any]:
    """Return the paths of the leaves as text, the leaves, and the structure of a tree."""
    found, structure = jax.tree_util.tree_flatten_with_path(tree)
    return [jax.tree_util.keystr(path) for path, _ in found], [leaf for _, leaf in found], structure


def is_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray | np.generic | jax.Array)


def kinds_of(
    name: str,
    tree: Tree,
    fast: Sequence[Kind | bool],
    frozen: Sequence[Kind | bool],
) -> list[Kind]:
    """Return for each leaf of a tree which part it belongs to.

    **Arguments:** the `name` of the argument that the tree is; for each leaf its label among the
    fast ones, and whether it is frozen: True and "fast", or True and "fixed", pick it.

    **Raises:** `ValueError` where an array is fast that cannot be trained and is not frozen, where
    one is fast that is frozen too, and where nothing is fast or nothing is slow.
    """
    paths, leaves, _ = flat_with_paths(tree)
    kinds: list[Kind] = []
    for path, leaf, label, rest in zip(paths, leaves, fast, frozen, strict=True):
        is_fast, is_frozen = label in (True, FAST), rest in (True, FIXED)
        if not is_array(leaf):
            kinds.append(FIXED)
            continue
        is_number = jnp.issubdtype(leaf.dtype, jnp.inexact)
        if is_fast and is_frozen and is_number:
            raise argument_error("fast", "apart from what is `frozen`", f"a choice with {path}")
        if is_fast and not is_number and not is_frozen:
            expected = "a choice of real numbers (others in a fast layer must be `frozen`)"
            raise argument_error("fast", expected, f"one with {path} of {leaf.dtype}")
        if is_fast and is_number:
            kinds.append(FAST)
        else:
            kinds.append(SLOW if is_number and not is_frozen and label != FIXED else FIXED)
    for kind, got in (
        (FAST, "one that picks no array"),
        (SLOW, "one that leaves none to the rest"),
    ):
        if kind not in kinds:
            expected = f"a choice of some of the trained arrays of `{name}`, but not of all"
            raise argument_error("fast", expected, got)
    return kinds


class _Mark:
    """Stands for a leaf of a module while a user's function picks some of them."""

    def __init__(self, number: int):
        self.number = number


def picked_by(argument: str, choose: Callable[[Any], Any] | None, module: Tree) -> list[bool]:
    """Return for each leaf of a module whether a function of the module picks it, as
    `equinox.tree_at` does: alone, in a part of the module, or in a list or tuple of these.

    **Raises:** `ValueError`, naming the `argument` that the function is.
    """
    leaves, structure = jax.tree.flatten(module)
    if choose is None:
        return [False] * len(leaves)
    expected = "a function of the module that returns parts of it, such as lambda m: m.layers[-1]"
    if not callable(choose):
        raise argument_error(argument, expected, shown(choose))
    marked = jax.tree.unflatten(structure, [_Mark(i) for i in range(len(leaves))])
    try:
        found = jax.tree.leaves(choose(marked))
    except Exception as error:  # of the user's function, which may fail in any way
        got = f"one that fails with {type(error).__name__}: {error}"
        raise argument_error(argument, expected, got) from error
    numbers = []
    for mark in found:
        if not isinstance(mark, _Mark):
            raise argument_error(argument, expected, f"one that returns {shown(mark)}")
        numbers.append(mark.number)
    if len(set(numbers)) < len(numbers):
        twice = next(i for i in numbers if numbers.count(i) > 1)
        got = f"one that picks {flat_with_paths(module)[0][twice]} twice"
        raise argument_error(argument, "a function that picks each leaf once", got)
    return [i in numbers for i in range(len(leaves))]


def labels_by(argument: str, choice: Any, tree: Tree) -> list[Kind | bool]:
    """Return for each leaf of a tree the label that a choice gives it.

    **Arguments:** the name of the argument that the `choice` is: the name of a layer, which all
    leaves below it belong to; a function of the path of a leaf, a tuple of names; or labels in a
    tree like this, or a prefix of it. A label is True, False, "fast", "slow" or "fixed".

    **Raises:** `ValueError`, naming the argument.
    """
    found, structure = jax.tree_util.tree_flatten_with_path(tree)
    paths = [tuple(map(_name_of, path)) for path, _ in found]
    if choice is None:
        return [False] * len(paths)
    if isinstance(choice, str):
        return _below(argument, choice, paths)
    labels: list[Any]
    if callable(choice):
        try:
            labels = [choice(path) for path in paths]
        except Exception as error:  # of the user's function, which may fail in any way
            got = f"one that fails with {type(error).__name__}: {error}"
            expected = f"a function of paths such as {paths[0]}"
            raise argument_error(argument, expected, got) from error
    else:
        try:
            labels = jax.tree.leaves(jax.tree.broadcast(choice, tree))
        except ValueError as error:
            expected = "a name, a function of a path, or a tree of labels like the parameters"
            raise argument_error(argument, expected, "a tree of another structure") from error
        if len(labels) != structure.num_leaves:
            got = f"{len(labels)} labels for {structure.num_leaves} leaves"
            raise argument_error(argument, "a label for each leaf", got)
    for (path, _), label in zip(found, labels, strict=True):
        is_label = isinstance(label, bool | np.bool_)
        if not is_label and not (isinstance(label, str) and label in (FAST, SLOW, FIXED)):
            got = f"{shown(label)} for {jax.tree_util.keystr(path)}"
            raise argument_error(argument, f'True, False, "{FAST}", "{SLOW}" or "{FIXED}"', got)
    return [bool(label) if isinstance(label, np.bool_) else label for label in labels]


def _below(argument: str, name: str, paths: list[tuple]) -> list[Kind | bool]:
    """Return whether each leaf stands in the one layer of a name, alone or after a slash."""

    def is_it(part: Any) -> bool:
        return isinstance(part, str) and (part == name or part.endswith("/" + name))

    layers = {path[: i + 1] for path in paths for i, part in enumerate(path) if is_it(part)}
    # A layer inside a layer of one name belongs to the outer one.
    outer = {layer for layer in layers if not any(layer[:i] in layers for i in range(len(layer)))}
    if len(outer) != 1:
        names = sorted({str(part) for path in paths for part in path})
        got = f'"{name}", which {len(outer)} layers are called'
        shortened = ", ".join(names[:_NAMES]) + (", ..." if len(names) > _NAMES else "")
        raise argument_error(argument, f"the name of one layer among {shortened}", got)
    (layer,) = outer
    return [path[: len(layer)] == layer for path in paths]


_NAMES = 20
"""Names that a message lists, at most."""


def _name_of(key: Any) -> Any:
    """Return the name, or the number, that a step on the way to a leaf has."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return str(key)


def _not_this_half(name: str, half: Tree) -> ValueError:
    expected = "of the structure that the model was given with, as the `params` returned with it"
    return argument_error(name, expected, f"a {type(half).__name__} of another structure")
