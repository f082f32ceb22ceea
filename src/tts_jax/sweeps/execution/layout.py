"""The layout of a sweep: which runs make a chunk of its store, and what each of them leaves."""

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...batching.devices import on_cpu
from ...batching.vector_lanes import LANES
from ..study.grid import Axis, Kind, Point, kind_of
from ..study.study import Study
from .cost import Costs
from .variables import Variable

Index = tuple[int, ...]

_SECONDS = 2.0
"""A unit on a CPU is to take about so long: a kill costs that, and storing it little beside it."""
_LONGEST = 60.0
"""Seconds that no unit is to exceed."""
_UNITS = 16
"""A sweep has at least so many units, if it can, so that devices end together."""
_FEWEST = 16
"""Runs of a unit, if they are short: the sweep may be extended."""
_MEMORY = {"cpu": 2**28, "accelerator": 2**31}
"""Bytes that the records of a unit may take, with what making them needs."""
_MOST = {"cpu": 1024, "accelerator": 131_072}
"""Runs of a unit."""
_FILLED = 16_384
"""Runs that fill an accelerator. More take less time each: where units are neither few nor long."""
_ACCELERATED = 1e-10
"""Seconds of a step of SGD and a run on an accelerator, at best."""


class Unit(NamedTuple):
    """Runs that go together: a chunk of the store, and which runs of its region are to be made."""

    chunk: Index
    mask: np.ndarray
    seconds: float

    @property
    def size(self) -> int:
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True)
class Layout:
    """How the runs of a study are cut into chunks, and what each leaves. Fixed with the store."""

    study: Study
    variables: Mapping[Kind, Mapping[str, Variable]]
    chunks: Index

    @property
    def shared(self) -> tuple[str, ...]:
        """The names of the coordinates that all runs of a chunk have in common."""
        axes = zip(self.study.axes.axes, self.chunks, strict=True)
        names = [name for axis, size in axes if size == 1 for name in axis.names]
        return (*names, *dict(self.study.axes.fixed))

    @functools.cached_property
    def costs(self) -> Costs:
        """What the runs are expected to cost."""
        return Costs(self.study)

    @property
    def shapes(self) -> int:
        """How many programs there are to compile."""
        return len({tuple(variables.items()) for variables in self.variables.values()})

    @functools.cached_property
    def whole(self) -> dict[str, Variable]:
        """Every variable with the largest lengths that it has anywhere."""
        found: dict[str, Variable] = {}
        for variables in self.variables.values():
            for name, new in variables.items():
                old = found.get(name, new)
                shape = tuple(map(max, old.shape, new.shape))
                found[name] = Variable(new.axes, shape, new.dtype)
        # The status last: it is what marks a unit as done.
        return {**{n: v for n, v in found.items() if n != "status"}, "status": found["status"]}

    def all_chunks(self) -> list[Index]:
        counts = [-(-n // c) for n, c in zip(self.study.axes.shape, self.chunks, strict=True)]
        return list(itertools.product(*map(range, counts)))

    def region(self, chunk: Index) -> tuple[slice, ...]:
        """Return where a chunk lies on the axes of the grid."""
        sizes = zip(chunk, self.chunks, self.study.axes.shape, strict=True)
        return tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in sizes)

    def unit(self, chunk: Index, pending: np.ndarray) -> Unit:
        """Return the unit of the runs of a chunk where `pending`, an array of its region, is
        true."""
        unit = Unit(chunk, pending, 0.0)
        one = np.mean([self.costs.seconds(point) for point in self.points(unit, ends_only=True)])
        return unit._replace(seconds=float(one) * unit.size)

    def points(self, unit: Unit, *, ends_only: bool = False) -> list[Point]:
        """Return the points of the runs of a unit, or of its first and its last one."""
        corner = np.array([part.start for part in self.region(unit.chunk)], int)
        places = np.argwhere(unit.mask) + corner
        return [self.study.axes.point(p) for p in (places[[0, -1]] if ends_only else places)]

    def kind(self, unit: Unit) -> Kind:
        """Return the width and the target of the runs of a unit."""
        return kind_of(self.points(unit, ends_only=True)[0])


def make_layout(
    study: Study, variables: Mapping[Kind, Mapping[str, Variable]], chunks: Index | None = None
) -> Layout:
    """Return the layout of a study whose runs leave these variables, in given chunks if it has a
    store already."""
    return Layout(study, variables, _chunks(study, variables) if chunks is None else chunks)


def on_accelerator() -> bool:
    return not on_cpu()


def _corners(study: Study) -> list[Point]:
    """Points with the smallest and the largest value on each axis."""
    ends = []
    for axis in study.axes.axes:
        columns = [list(column) for column in zip(*axis.values, strict=True)]
        ends.append({c.index(end(c)) for c in columns for end in (min, max)})
    return [study.axes.point(index) for index in itertools.product(*ends)]


def _chunks(study: Study, variables: Mapping[Kind, Mapping[str, Variable]]) -> Index:
    """Lengths of a chunk on every axis: few runs that cost alike, filled up axis by axis."""
    axes, costs = study.axes.axes, Costs(study)
    found, left = [1] * len(axes), max(1, _most_runs(study, variables, costs))
    spreads = [_spread(axis, costs) for axis in axes]
    # Seeds first: runs that differ in nothing else cost most alike.
    for i in sorted(range(len(axes)), key=lambda i: ("seed" not in axes[i].names, spreads[i])):
        apart = {"width", "target"} & set(axes[i].names)
        # Where all make equally long steps, those with fewer would wait for the others.
        if apart or (study.dynamics.even_steps and spreads[i] > 1):
            continue
        parts = -(-len(axes[i].values) // left)
        found[i] = -(-len(axes[i].values) // parts)  # all parts about as long
        left = max(1, left // found[i])
    return tuple(found)


def _spread(axis: Axis, costs: Costs) -> float:
    return max(costs.spread(name) for name in axis.names)


def _most_runs(study: Study, variables: Mapping[Kind, Mapping[str, Variable]], costs: Costs) -> int:
    """The most runs that a chunk is to have."""
    size = max(
        sum(math.prod(v.shape) * v.dtype.itemsize for v in one.values())
        for one in variables.values()
    )
    even, corners = study.dynamics.even_steps, _corners(study)
    if on_accelerator():
        most = min(_MEMORY["accelerator"] // max(1, 4 * size), _MOST["accelerator"])
        most = min(most, max(_FILLED, math.ceil(study.axes.size / _UNITS)))
        if even:
            steps = max(map(costs.steps, corners))
            most = min(most, max(_FILLED, int(_LONGEST / (_ACCELERATED * steps))))
        return most
    most = min(_MEMORY["cpu"] // max(1, 4 * size), _MOST["cpu"])
    middle = study.axes.point([len(axis.values) // 2 for axis in study.axes.axes])
    most = min(most, math.ceil(_SECONDS / costs.seconds(middle)))
    most = min(most, max(1, int(_LONGEST / max(map(costs.seconds, corners)))))
    most = min(most, max(_FEWEST, math.ceil(study.axes.size / _UNITS)))
    # Side by side, so many take no longer than one.
    return min(max(most, LANES), max(1, _MEMORY["cpu"] // size)) if even else most
