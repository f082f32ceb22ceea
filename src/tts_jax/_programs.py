"""Programs that are compiled once for all numbers, and for all else by what it is and does."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ._digest import Walk
from ._types import as_array, varying_as


class Fixed(NamedTuple):
    """All of a tree but its numbers: its structure, and leaves with None in place of a number."""

    structure: Any
    leaves: tuple

    @classmethod
    def of(cls, tree: Any, as_number: Callable[[Any], Any]) -> "tuple[Fixed, list]":
        """Part a tree: all but its numbers, and those, with None in place of what is none.

        `as_number` makes an array of a leaf, and leaves what is no number as it is.
        """
        leaves, structure = jax.tree.flatten(tree)
        numbers, others = [], []
        for leaf in map(as_number, leaves):
            is_number = isinstance(leaf, np.ndarray | np.generic | jax.Array)
            numbers.append(leaf if is_number else None)
            others.append(None if is_number else leaf)
        return cls(structure, tuple(others)), numbers

    def tree(self, numbers: list) -> Any:
        """Return the tree with these numbers."""
        pairs = zip(self.leaves, numbers, strict=True)
        whole = [leaf if number is None else number for leaf, number in pairs]
        return jax.tree.unflatten(self.structure, whole)


class _ByDigest:
    """Something fixed that is known by what it does: an equal one made anew is the same."""

    def __init__(self, fixed: Fixed, code: bytes):
        self.tree, self._code = fixed.tree, code

    def __hash__(self) -> int:
        return hash(self._code)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByDigest) and self._code == other._code


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of trees that is compiled for shapes, and for what no number is.

    Functions and objects in the trees count by what they do and by what they read as it is at the
    call: made anew they compile nothing, and changed they are compiled again.
    """

    def traced(numbers: list, fixed: Fixed | _ByDigest) -> Any:
        return function(*fixed.tree(varying_as(numbers, numbers)))

    traced.__name__ = function.__name__  # by which JAX calls it in what it logs
    program = jax.jit(traced, static_argnums=1)

    def call(*arguments: Any) -> Any:
        # In one pass over the leaves: `eqx.filter_jit` does more than a short flow can hide.
        fixed, numbers = Fixed.of(arguments, as_array)
        return program(numbers, _known(fixed))

    return call


_UNCHANGING: dict[Fixed, None] = {}
"""What is made of nothing but parts of this package and plain values, which never change."""


def _known(fixed: Fixed) -> Any:
    """Return something that equals another only if programs for the two are the same."""
    try:
        if fixed in _UNCHANGING:
            return fixed
    except TypeError:  # a list, say, in a static field
        pass
    walk = Walk()
    try:
        code = code_of(fixed.tree([None] * len(fixed.leaves)), walk)
    except ValueError:  # such as a function around a number that is being traced
        return _ByDigest(fixed, object())  # pyright: ignore[reportArgumentType]
    if walk.met_foreign:
        return _ByDigest(fixed, code)
    if len(_UNCHANGING) > 1000:
        _UNCHANGING.clear()
    _UNCHANGING[fixed] = None
    return fixed


_KEPT: list[Callable[[], None]] = []
"""What empties the other places where programs are kept."""


def forget_with_jax(forget: Callable[[], None]) -> None:
    """Have a function called whenever what JAX has traced is thrown away: a program that is kept
    elsewhere would be traced anew, of objects that may have changed since."""
    _KEPT.append(forget)


_SEEN: "weakref.WeakKeyDictionary[Any, bytes]" = weakref.WeakKeyDictionary()
"""The digests that functions had when they were met last."""


def code_of(thing: Any, walk: Walk | None = None) -> bytes:
    """Return the digest of what is to be compiled, and see to it that it is compiled as it is now.

    JAX keeps what it has traced of a function, such as the body of a `jax.lax.scan` or one inside
    `jax.jit`, by the function alone. Where a function that was met before reads other values now,
    all that JAX keeps is thrown away.

    **Raises:** `ValueError` as `digest` does.
    """
    walk = Walk() if walk is None else walk
    found = walk.digest(thing)
    changed = [f for f, code in walk.functions if _SEEN.get(f, code) != code]
    _SEEN.update(walk.functions)
    if changed:
        jax.clear_caches()
        for forget in _KEPT:
            forget()
    return found
