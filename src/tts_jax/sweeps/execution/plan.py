"""The plan of a sweep: which runs make a unit of work, in which order, and how long it takes."""

import functools
import itertools
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from ...dynamics.sgd.dynamics import SGD
from ..study.grid import Point
from ..study.study import Study
from .cost import expected_seconds, expected_steps, in_step, on_accelerator
from .runner import Runner, Variable

Index = tuple[int, ...]

_SECONDS = 2.0
"""A unit on a CPU is to take about so long: a kill costs that, and storing it little beside it."""
_LONGEST = 60.0
"""None is to take longer than that."""
_UNITS = 16
"""A sweep has at least so many units, if it can, so that devices end together."""
_FEWEST = 16
"""Runs of a unit, if they are short: the sweep may be extended."""
_MEMORY = {"cpu": 2**28, "accelerator": 2**31}
"""Bytes that the records of a unit may take, with what making them needs."""
_MOST = {"cpu": 1024, "accelerator": 131_072}
"""Runs of a unit."""
_FILLED = 16_384
"""So many fill an accelerator. More take less time each: where units are neither few nor long."""
_ACCELERATED = 1e-10
"""Seconds of a step of SGD and a run on an accelerator, at best."""
_LANES = 32
"""Runs of SGD that a CPU takes side by side."""
COMPILE = 3.0
"""Seconds that a program takes to compile, about."""
_PROBE = 2e5
"""Steps of a run of SGD that tell how long a step takes."""


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
    """How a study is cut into chunks, and what a run leaves. It is fixed with the store."""

    study: Study
    chunks: Index
    runner: Runner = field(compare=False)

    @classmethod
    def of(cls, study: Study, chunks: Index | None = None) -> "Layout":
        """A layout of a study, or the one with given chunks."""
        chunks = _chunks(study) if chunks is None else chunks
        shared = [
            name
            for axis, size in zip(study.axes.axes, chunks, strict=True)
            if size == 1
            for name in axis.names
        ]
        return cls(study, chunks, Runner(study, [*shared, *dict(study.axes.fixed)]))

    @functools.cached_property
    def variables(self) -> dict[tuple, dict[str, Variable]]:
        """What a run leaves, for every width and target."""
        return {key: self.runner.variables(point) for key, point in _kinds(self.study).items()}

    @property
    def shapes(self) -> int:
        """How many programs there are to compile."""
        return len({tuple(v.items()) for v in self.variables.values()})

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
        """Where a chunk lies on the axes of the grid."""
        sizes = zip(chunk, self.chunks, self.study.axes.shape, strict=True)
        return tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in sizes)

    def unit(self, chunk: Index, pending: np.ndarray) -> Unit:
        """The unit of the runs of a chunk where `pending`, an array of its region, is true."""
        unit = Unit(chunk, pending, 0.0)
        ends = self.points(unit, ends_only=True)
        one = np.mean([expected_seconds(self.study, point) for point in ends])
        return unit._replace(seconds=float(one) * unit.size)

    def points(self, unit: Unit, *, ends_only: bool = False) -> list[Point]:
        """The points of the runs of a unit, or of its first and its last one."""
        corner = np.array([part.start for part in self.region(unit.chunk)], int)
        places = np.argwhere(unit.mask) + corner
        return [self.study.axes.point(p) for p in (places[[0, -1]] if ends_only else places)]


def kind(point: Point) -> tuple:
    """What the shapes of a run depend on."""
    return point["width"], point.get("target")


def _kinds(study: Study) -> dict[tuple, Point]:
    """A point for every width and target."""
    return {kind(point): point for point in study.axes.along("width", "target")[1]}


def _corners(study: Study) -> list[Point]:
    """Points with the smallest and the largest value on each axis."""
    ends = []
    for axis in study.axes.axes:
        columns = [list(column) for column in zip(*axis.values, strict=True)]
        ends.append({c.index(end(c)) for c in columns for end in (min, max)})
    return [study.axes.point(index) for index in itertools.product(*ends)]


def _chunks(study: Study) -> Index:
    """Lengths of a chunk on every axis: few runs that cost alike, filled up axis by axis."""
    axes = study.axes.axes
    middle = study.axes.point([len(axis.values) // 2 for axis in axes])
    runner = Runner(study, ())
    size = max(
        sum(math.prod(v.shape) * v.dtype.itemsize for v in runner.variables(point).values())
        for point in _kinds(study).values()
    )
    device = "accelerator" if on_accelerator() else "cpu"
    most = min(_MEMORY[device] // max(1, 4 * size), _MOST[device])
    if device == "accelerator":
        most = min(most, max(_FILLED, math.ceil(study.axes.size / _UNITS)))
        if isinstance(study.dynamics, SGD):
            steps = max(expected_steps(study, point) for point in _corners(study))
            most = min(most, max(_FILLED, int(_LONGEST / (_ACCELERATED * steps))))
    else:
        seconds = expected_seconds(study, middle)
        most = min(most, math.ceil(_SECONDS / seconds))
        longest = max(expected_seconds(study, point) for point in _corners(study))
        most = min(most, max(1, int(_LONGEST / longest)))
        most = min(most, max(_FEWEST, math.ceil(study.axes.size / _UNITS)))
        if isinstance(study.dynamics, SGD):
            most = min(max(most, _LANES), max(1, _MEMORY["cpu"] // size))
    found, left = [1] * len(axes), max(1, most)
    for i in sorted(range(len(axes)), key=lambda i: _rank(axes[i].names)):
        names = set(axes[i].names)
        if names & {"width", "target"} or not all(in_step(study, name) for name in names):
            continue
        parts = -(-len(axes[i].values) // left)
        found[i] = -(-len(axes[i].values) // parts)  # all parts about as long
        left = max(1, left // found[i])
    return tuple(found)


def _rank(names: Sequence[str]) -> int:
    """Seeds first: runs that differ in nothing else cost most alike."""
    order = ("seed", "noise", "eta", "rtol", "atol", "ridge", "step_size", "epsilon")
    return max(order.index(name) if name in order else len(order) for name in names)


@dataclass(frozen=True)
class Plan:
    """Units of work, those that are expected to take longest first."""

    layout: Layout
    units: tuple[Unit, ...]
    devices: int

    @property
    def runs(self) -> int:
        return sum(unit.size for unit in self.units)

    @property
    def seconds(self) -> float:
        """Expected time on all devices, by a rule of thumb. `predict` measures."""
        if not self.units:
            return 0.0
        programs = len({self.program(unit) for unit in self.units})
        work = sum(unit.seconds for unit in self.units)
        return max((work + COMPILE * programs) / self.devices, COMPILE + self.units[0].seconds)

    def program(self, unit: Unit) -> tuple:
        """What a unit needs to have been compiled."""
        return (unit.size, *kind(self.layout.points(unit, ends_only=True)[0]))

    def predict(self) -> float:
        """Expected time on all devices, by a unit that is made, and thrown away, to measure it."""
        if not self.units:
            return 0.0
        unit = self.units[len(self.units) // 2]
        runner, points = self.layout.runner, self.layout.points(unit)
        study, share = self.layout.study, 1.0
        if isinstance(study.dynamics, SGD):
            share = min(1.0, _PROBE / expected_steps(study, points[0]))
        hands = jax.local_devices()

        def spent() -> float:
            began = time.perf_counter()
            # On all of them at once, as they will be: they get in each other's way.
            with ThreadPoolExecutor(len(hands)) as pool:
                list(pool.map(lambda device: runner(points, device, share=share), hands))
            return time.perf_counter() - began

        first, again = spent(), spent()
        programs = len({self.program(unit) for unit in self.units})
        work = sum(unit.seconds for unit in self.units) * again / (share * unit.seconds)
        return (work + (first - again) * programs) / self.devices

    def __str__(self) -> str:
        layout, axes = self.layout, self.layout.study.axes
        study = layout.study
        product = " x ".join(f"{len(a.values)} {'+'.join(a.names)}" for a in axes.axes) or "one run"
        names = ", ".join(f"{name} {value}" for name, value in axes.fixed)
        size = sum(math.prod(v.shape) * v.dtype.itemsize for v in layout.whole.values())
        most = max((unit.size for unit in self.units), default=0)
        return "\n".join(
            [
                f"{type(study.dynamics).__name__}: {product} = {axes.size} runs"
                + (f" ({names})" if names else "")
                + f", {len(study.taus)} recorded times",
                f"  to do: {self.runs} runs in {len(self.units)} units of up to {most}, "
                f"{layout.shapes} shape{'s' if layout.shapes > 1 else ''} to compile, "
                f"on {self.devices} device{'s' if self.devices > 1 else ''}"
                if self.units
                else "  nothing to do",
                f"  data: {_bytes(size * axes.size)}, {_bytes(size * math.prod(layout.chunks))} a "
                "unit, before compression",
            ]
        )


def make_plan(layout: Layout, pending: Sequence[tuple[Index, np.ndarray]], devices: int) -> Plan:
    """A plan for the runs that are pending, an array of booleans for each chunk."""
    units = [layout.unit(chunk, runs) for chunk, runs in pending if np.any(runs)]
    # Those of one shape stay together where they cost alike, and the last ones are short, so that
    # all devices end at about the same time.
    units.sort(key=lambda unit: (-unit.seconds, unit.chunk))
    return Plan(layout, tuple(units), devices)


class Efficiency:
    """Mean over largest number of steps in the units: what stays busy where runs go in step."""

    def __init__(self):
        self._made, self._wanted = 0.0, 0.0

    def add(self, steps: np.ndarray) -> None:
        """The numbers of steps of the runs of a unit."""
        self._made += float(np.sum(steps))
        self._wanted += float(np.max(steps)) * np.size(steps)

    @property
    def share(self) -> float:
        return self._made / self._wanted if self._wanted else 1.0


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
