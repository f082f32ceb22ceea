"""Which numbers of an object a sweep may vary: those that its class names in `sweepable`."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx

from ._types import Tree

Place = tuple[str | int, ...]
"""The names of attributes, and the keys of containers, that lead to a number."""


def sweepable_places(tree: Tree, *, closed: type | tuple[type, ...] = ()) -> dict[str, list[Place]]:
    """Return where the numbers stand that a sweep may vary, by name.

    **Arguments:** `tree`: modules, and containers of modules; `closed`: classes of modules whose
    names count, but which nobody looks into.

    **Returns:** the places of every name, one for each module that declares it.
    """
    found: dict[str, list[Place]] = {}
    for place in _declared(tree, (), closed):
        found.setdefault(str(place[-1]), []).append(place)
    return found


def _declared(node: Any, path: Place, closed: type | tuple[type, ...]) -> Iterator[Place]:
    parts: dict[Any, Any] = {}
    if isinstance(node, eqx.Module):
        yield from ((*path, name) for name in getattr(type(node), "sweepable", ()))
        if not isinstance(node, closed):
            parts = {
                field.name: getattr(node, field.name)
                for field in dataclasses.fields(node)
                if not field.metadata.get("static", False)
            }
    elif isinstance(node, Mapping):
        parts = dict(node)
    elif isinstance(node, list | tuple):
        parts = dict(enumerate(node))
    for name, part in parts.items():
        yield from _declared(part, (*path, name), closed)


def at_place(tree: Tree, place: Place) -> Any:
    """Return what stands at a place."""
    return functools.reduce(_part, place, tree)


def _part(node: Any, name: Any) -> Any:
    return getattr(node, name) if isinstance(node, eqx.Module) else node[name]


def with_places(tree: Tree, values: Mapping[Place, Any]) -> Tree:
    """Return the tree with other values at some places; they may be traced."""
    if not values:
        return tree
    return eqx.tree_at(
        lambda node: [at_place(node, place) for place in values],
        tree,
        list(values.values()),
        is_leaf=lambda leaf: leaf is None,
    )


def check_number(module: eqx.Module, name: str, value: Any) -> None:
    """Raise what the class of a module raises where one of its numbers has this value."""
    changed = with_places(module, {(name,): value})
    for kind in type(module).__mro__:  # as equinox does after `__init__`
        if "__check_init__" in vars(kind):
            vars(kind)["__check_init__"](changed)
