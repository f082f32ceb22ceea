"""The grid of a sweep: named axes, their values, and the point of every run."""

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..._errors import argument_error
from ..._memory import check_memory
from ..._numbers import as_real, shown
from ...models.targets import AbstractLabels

Value: TypeAlias = float | int | str
Point: TypeAlias = dict[str, Value]
"""The coordinates of a run by name. A target stands there by its label."""

Kind: TypeAlias = tuple[int, str | None]
"""A width, and the label of a target or None: what the shapes of a run depend on in a study."""

START_NAMES = ("seed", "width")
"""Names that choose where a run starts, by whole numbers. All others stand in the problem or the
dynamics, and have numbers, but `target`, which has labels."""


@dataclass(frozen=True)
class Axis:
    """An axis of a sweep: a name with its values, or several names zipped, which go together."""

    names: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]

    @property
    def dimension(self) -> str:
        return "_".join(self.names)

    def extended(self, other: "Axis") -> "Axis":
        """Return an axis with these values, and then those of another axis that are missing."""
        there = set(self.values)
        new = tuple(value for value in other.values if value not in there)
        return Axis(self.names, self.values + new)


@dataclass(frozen=True)
class Grid:
    """All combinations of the values of `axes`, with `fixed` values at every point."""

    axes: tuple[Axis, ...]
    fixed: tuple[tuple[str, Value], ...]
    targets: tuple[tuple[str, AbstractLabels], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(itertools.chain(*(axis.names for axis in self.axes), dict(self.fixed)))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis.values) for axis in self.axes)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def values(self, name: str) -> tuple[Value, ...]:
        """Return all values that a name takes."""
        for axis in self.axes:
            if name in axis.names:
                place = axis.names.index(name)
                return tuple(value[place] for value in axis.values)
        return (dict(self.fixed)[name],)

    def point(self, index: Sequence[int]) -> Point:
        """Return the coordinates at an index, one number for each axis."""
        found = dict(self.fixed)
        for axis, i in zip(self.axes, index, strict=True):
            found |= dict(zip(axis.names, axis.values[i], strict=True))
        return found

    def subgrid(self, *names: str) -> tuple[list[Axis], list[Point]]:
        """Return the axes that hold any of these names, and a point for every place on them, which
        is the first one on the other axes."""
        held = [bool(set(names) & set(axis.names)) for axis in self.axes]
        ranges = [range(n if is_held else 1) for n, is_held in zip(self.shape, held, strict=True)]
        axes = [axis for axis, is_held in zip(self.axes, held, strict=True) if is_held]
        return axes, [self.point(index) for index in itertools.product(*ranges)]

    def extended(self, other: "Grid") -> "Grid":
        """Return this grid with the values that another one of the same names has more, appended
        to the axes."""
        axes = tuple(mine.extended(its) for mine, its in zip(self.axes, other.axes, strict=True))
        return Grid(axes, self.fixed, tuple((dict(self.targets) | dict(other.targets)).items()))


def make_grid(given: Grid | Mapping[Any, Any]) -> Grid:
    """Make a `Grid` from a mapping of names to values.

    `{"epsilon": [0.1, 1.0], "seed": range(20)}` is a product of axes, a key of several names such
    as `("width", "eta"): [(10, 1e-2), (20, 4e-3)]` one axis on which they go together, a single
    value holds everywhere, and `"target"` has labels: `{"stairs": target, ...}`.

    **Raises:** `ValueError` for what is no such mapping, names given twice, axes that are empty,
    repeat a value, or hold something else than numbers.
    """
    if isinstance(given, Grid):
        return given
    if not isinstance(given, Mapping):
        raise argument_error("grid", "a mapping of names to values", f"a {type(given).__name__}")
    axes, fixed, targets = [], {}, ()
    for key, values in given.items():
        if not isinstance(key, str | tuple) or not key:
            raise argument_error("grid", "a mapping of names to values", f"one of {key!r}")
        names = tuple([key] if isinstance(key, str) else key)
        if len(names) == 1 and names[0] == "target":
            targets = _targets(values)
            values = tuple(label for label, _ in targets)
        single = isinstance(values, str | bytes | bytearray) or not isinstance(values, Iterable)
        if single or getattr(values, "shape", None) == ():
            if len(names) > 1:
                raise argument_error(f"grid[{names}]", "rows of values", repr(values))
            for name in names:
                fixed[name] = _value(name, values)
        else:
            axes.append(_axis(names, _listed(key, values)))
    grid = Grid(tuple(axes), tuple(fixed.items()), targets)
    twice = {name for name in grid.names if grid.names.count(name) > 1}
    if twice:
        raise argument_error("grid", "of names given once", f"of {sorted(twice)} given twice")
    check_memory("grid", grid.size)
    return grid


MOST_VALUES = 1_000_000
"""Values on an axis, at most: what has no end is not waited for."""


def _listed(key: Any, values: Iterable) -> list:
    found = list(itertools.islice(iter(values), MOST_VALUES + 1))
    if len(found) > MOST_VALUES:
        expected = f"of at most {MOST_VALUES} values on an axis"
        raise argument_error(f"grid[{key!r}]", expected, "of more")
    return found


def _axis(names: tuple[str, ...], values: list) -> Axis:
    label = "grid[" + ", ".join(map(repr, names)) + "]"
    rows = [(value,) if len(names) == 1 else value for value in values]
    if len(names) > 1 and "target" in names:
        raise argument_error(label, "without `target`, which has an axis of its own", "with it")
    if not rows:
        raise argument_error(label, "at least one value", "empty")
    found = []
    for row in rows:
        if not isinstance(row, Sequence | np.ndarray) or len(row) != len(names):
            raise argument_error(label, f"rows of {len(names)} values", repr(row))
        cells = zip(names, row, strict=True)
        found.append(tuple(_value(name, value) for name, value in cells))
    if len(set(found)) < len(found):
        again = next(row for row in found if found.count(row) > 1)
        shown = again[0] if len(names) == 1 else again
        raise argument_error(label, "each value once", f"{shown!r} more than once")
    return Axis(names, tuple(found))


def _targets(given: Any) -> tuple[tuple[str, AbstractLabels], ...]:
    if not isinstance(given, Mapping) or not given:
        raise argument_error("grid['target']", "a mapping of labels to targets", repr(given))
    for label, target in given.items():
        if not isinstance(label, str) or not isinstance(target, AbstractLabels):
            expected = "a mapping of labels to targets"
            raise argument_error("grid['target']", expected, f"{label!r}: {type(target).__name__}")
    return tuple(given.items())


def _value(name: str, value: Any) -> Value:
    """A coordinate as a Python number, so that it prints and compares the same everywhere."""
    label = f"grid[{name!r}]"
    if name == "target":
        return str(value)
    if isinstance(value, Sequence):
        raise argument_error(label, "numbers", shown(value))
    number = float(as_real(label, value))
    if not math.isfinite(number):
        raise argument_error(label, "finite numbers", number)
    if name in START_NAMES:
        if number != int(number) or number < (1 if name == "width" else 0):
            expected = "whole numbers of at least " + ("1" if name == "width" else "0")
            raise argument_error(label, expected, repr(value))
        whole = int(value)  # through a float it would lose digits
        if whole >= 2**63:
            raise argument_error(label, "whole numbers below 2^63", repr(value))
        return whole
    return number


def kind_of(point: Point) -> Kind:
    """Return the width and the label of the target at a point."""
    label = point.get("target")
    return int(point["width"]), None if label is None else str(label)


def stream(point: Point) -> int:
    """Return a number below 2^64 from all coordinates but the seed: which stream of noise a run
    hears.

    It depends on the run alone, and not on what else is swept.
    """
    others = {name: value for name, value in sorted(point.items()) if name != "seed"}
    return int.from_bytes(hashlib.sha256(json.dumps(others).encode()).digest()[:8])
