"""The plan of a sweep: in which order its units of work are made, and how long that takes."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...batching.devices import local_devices
from ...batching.threads import Threads
from .layout import Index, Layout, Unit

COMPILE = 3.0
"""Seconds that a program takes to compile, about."""
_PROBE = 2e5
"""Steps of equal length that tell how long a step takes."""


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
        """The expected seconds on all devices, by a rule of thumb. `predict` measures."""
        if not self.units:
            return 0.0
        programs = len({self.program(unit) for unit in self.units})
        work = sum(unit.seconds for unit in self.units)
        return max((work + COMPILE * programs) / self.devices, COMPILE + self.units[0].seconds)

    def program(self, unit: Unit) -> tuple:
        """What a unit needs to have been compiled."""
        return (unit.size, *self.layout.kind(unit))

    def predict(self, runner: Callable[..., Any]) -> float:
        """Return the expected seconds on all devices, by a unit that a `Runner` makes, to measure
        it, and that is thrown away."""
        if not self.units:
            return 0.0
        unit = self.units[len(self.units) // 2]
        points, share = self.layout.points(unit), 1.0
        if self.layout.study.dynamics.even_steps:
            share = min(1.0, _PROBE / self.layout.costs.steps(points[0]))
        hands = local_devices()

        def spent() -> float:
            began = time.perf_counter()
            # On all of them at once, as they will be: they get in each other's way.
            Threads().run(lambda device: runner(points, device, share=share), hands)
            return time.perf_counter() - began

        first, again = spent(), spent()
        programs = len({self.program(unit) for unit in self.units})
        work = sum(unit.seconds for unit in self.units) * again / (share * unit.seconds)
        return (work + max(0.0, first - again) * programs) / self.devices

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
    """Return a plan for the runs that are pending, an array of booleans for each chunk."""
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
        """Count the steps of the runs of a unit."""
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
