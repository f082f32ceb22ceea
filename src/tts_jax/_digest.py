"""A hash of what things are and do, the same in every process and under every version of Python."""

import hashlib
from types import FunctionType
from typing import Any

from ._errors import argument_error
from ._parts import PLAIN, Parts, UnknowableError, Unordered, parts_of, unwrapped


def digest(*things: Any) -> str:
    """Return a hash of what things hold and do, which depends on no address and no place in a file.

    Arrays count by their numbers; functions by what their code says and by all values that it
    reads, from closures, defaults, globals and modules; objects by their attributes and by the
    methods of their classes; what libraries have by its name and their version.

    **Raises:** `ValueError` where nothing tells what a thing does. It names the thing by the path
    that leads to it; a mapping of names to arguments is called by those names.
    """
    walk = Walk()
    return walk.digest(things[0] if len(things) == 1 else things).hex()


class Walk:
    """A walk through all that a thing is made of.

    `met_foreign`: whether a user's own code, or something whose content may change, was on the way;
    `functions`: the functions that were, with their digests.
    """

    def __init__(self):
        self.met_foreign = False
        self.functions: list[tuple[FunctionType, bytes]] = []
        self._done: dict[int, tuple[Any, bytes, frozenset[int]]] = {}
        self._stack: dict[int, Any] = {}
        self._path: list[str] = []

    def digest(self, thing: Any) -> bytes:
        """Return the hash of a thing.

        **Raises:** `ValueError`.
        """
        try:
            return self._of(thing)[0]
        except (UnknowableError, RecursionError) as error:
            what = "nested too deeply" if isinstance(error, RecursionError) else error
            raise argument_error(
                _dotted(self._path[:12]),
                "made of functions, objects and numbers that tell what they do, so that a "
                "computation is not taken for another one",
                what,
            ) from error

    def _of(self, thing: Any) -> tuple[bytes, frozenset[int]]:
        """Return the hash of a thing, and the things around it that it refers back to."""
        thing = unwrapped(thing)
        if type(thing) in PLAIN:
            return _hash(type(thing).__name__, repr(thing)), frozenset()
        if isinstance(thing, Unordered):
            found = [self._of(member) for member in thing.members]
            return _hash(*sorted(part for part, _ in found)), frozenset().union(
                *(open_ for _, open_ in found)
            )
        key = id(thing)
        if key in self._stack:
            return _hash("again", repr(self._stack[key])), frozenset([key])
        if key in self._done:
            _, found, around = self._done[key]
            if around <= self._stack.keys():
                return found, around
        parts = parts_of(thing)
        self.met_foreign |= parts.foreign
        found, around = self._joined(key, parts)
        # Kept with the thing itself: the place in memory of one that is gone is used again.
        self._done[key] = (thing, found, around)
        if parts.foreign and isinstance(thing, FunctionType) and not around:
            self.functions.append((thing, found))
        return found, around

    def _joined(self, key: int, parts: Parts) -> tuple[bytes, frozenset[int]]:
        self._stack[key] = parts.label
        pieces: list[Any] = [repr(parts.label)]
        around: set[int] = set()
        for name, child in parts.children:
            self._path.append(name)
            found, outside = self._of(child)
            self._path.pop()
            pieces += [name, found]
            around |= outside
        del self._stack[key]
        return _hash(*pieces), frozenset(around - {key})


def _hash(*pieces: str | bytes) -> bytes:
    hasher = hashlib.sha256()
    for piece in pieces:
        data = piece.encode() if isinstance(piece, str) else piece
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.digest()


def _dotted(path: list[str]) -> str:
    """Return the steps that lead to a thing, in words."""
    text = "".join(step if step[:1] in ".[" else f" {step}" for step in path)
    text = text.replace("['", ".").replace("']", "")
    return text[1:] if text.startswith(".") else f"value{text}"
