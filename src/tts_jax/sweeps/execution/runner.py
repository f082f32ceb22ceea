"""Units of work: runs that are computed in one call, on one device, by programs that are kept."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ..._programs import forget_with_jax
from ..._types import Array
from ...batching.devices import local_devices
from ...batching.vector_lanes import ROUND
from ..study.grid import Kind, Point, kind_of, stream
from .layout import Layout
from .structure import Settings, Structure, one_run

Results = dict[str, np.ndarray]
"""What the runs of a unit leave, by name, in their order on the first axis."""


class Runner:
    """Computes units of a study.

    Programs are compiled for a structure, a shape and a device, and kept: numbers are arguments.

    **Arguments:** `settings` of the study; `shared`: the names of the coordinates that all runs of
    a unit have in common.
    """

    def __init__(self, settings: Settings, shared: Sequence[str]):
        self.settings, self.shared = settings, tuple(shared)
        self._placed: dict[tuple[Kind, Any], tuple[Structure, list]] = {}

    @classmethod
    def of(cls, layout: Layout) -> "Runner":
        """Return the runner for the units of a layout."""
        return cls(Settings.of(layout.study), layout.shared)

    def __call__(
        self, points: Sequence[Point], device: Any = None, *, share: float = 1.0
    ) -> Results:
        """Return what the runs at `points`, which are of one width and target, leave.

        With a `share` below 1 they end at that share of their time.
        """
        structure, numbers = self._on_device(kind_of(points[0]), device)
        given = (numbers, *jax.device_put(self._arguments(points, share), device))
        # What a seed draws depends on this setting of JAX.
        with jax.threefry_partitionable(True):
            out = _PROGRAMS.of(structure, given)(given, device)
        return {name: np.asarray(values)[: len(points)] for name, values in out.items()}

    def compiled_on(self, points: Sequence[Point]) -> set[Any]:
        """Return the devices for which the program of these runs is there already."""
        structure, numbers = self.settings.split(*kind_of(points[0]))
        return _PROGRAMS.devices(structure, (numbers, *self._arguments(points, 1.0)))

    def _on_device(self, kind: Kind, device: Any) -> tuple[Structure, list]:
        """The structure of the runs of a kind, and their numbers, which go to a device once."""
        if (kind, device) not in self._placed:
            structure, numbers = self.settings.split(*kind)
            self._placed[kind, device] = structure, jax.device_put(numbers, device)
        return self._placed[kind, device]

    def _arguments(self, points: Sequence[Point], share: float) -> tuple:
        """What differs from run to run, with a leading axis, what does not, and the times."""
        settings, count = self.settings, len(points)
        if settings.dynamics.even_steps and count > 1:
            # From so many side by side on, a run does not depend on how many others there are.
            count = max(count, ROUND)
        rows = [points[min(i, len(points) - 1)] for i in range(count)]
        names = settings.numbers
        varied = {n: np.array([row[n] for row in rows]) for n in names if n not in self.shared}
        shared = {name: np.asarray(rows[0][name]) for name in names if name in self.shared}
        seeds = np.array([row.get("seed", 0) for row in rows], np.int64)
        streams = np.array([stream(row) for row in rows], np.uint64)
        return (varied, seeds, streams), shared, share * np.asarray(settings.taus)


class _Program:
    """A unit of one structure and shape, compiled for every device that it is called on."""

    def __init__(self, structure: Structure):
        def together(numbers: list, varied: tuple, shared: dict, taus: Array) -> dict[str, Array]:
            def one(varied: tuple) -> dict[str, Array]:
                swept, seed, stream = varied
                found = one_run(structure, numbers, {**swept, **shared}, seed, stream, taus)
                return {name: values for name, (_, values) in found.items()}

            return jax.vmap(one)(varied)

        self.devices: set[Any] = set()
        self._jitted = jax.jit(together)
        self._turn, self._traced = threading.Lock(), False

    def __call__(self, given: tuple, device: Any) -> dict[str, Array]:
        with self._turn:  # traced once, and not by every device's thread that comes first
            if not self._traced:
                self._jitted.trace(*given)
                self._traced = True
        out = jax.block_until_ready(self._jitted(*given))
        self.devices.add(device)
        return out


class _Programs:
    """Programs by structure and shapes, of which those are kept that were asked for last.

    A program of a flow takes some 25 MB of memory on every device that it is compiled for.
    """

    def __init__(self, most: int | None = None):
        self._most = most
        self._turn = threading.Lock()
        self._kept: OrderedDict[tuple, _Program] = OrderedDict()

    def of(self, structure: Structure, given: tuple) -> _Program:
        """Return the program for a structure and for arguments of these shapes and dtypes."""
        most = self._most or max(32, 16 * len(local_devices()))
        key = _key(structure, given)
        with self._turn:
            program = self._kept.setdefault(key, _Program(structure))
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and self._compiled() > most:
                self._kept.popitem(last=False)
        return program

    def devices(self, structure: Structure, given: tuple) -> set[Any]:
        """Return the devices for which such a program is there."""
        with self._turn:
            program = self._kept.get(_key(structure, given))
            return set() if program is None else set(program.devices)

    def clear(self) -> None:
        """Keep none."""
        with self._turn:
            self._kept.clear()

    def _compiled(self) -> int:
        return sum(max(1, len(program.devices)) for program in self._kept.values())


def _key(structure: Structure, given: tuple) -> tuple:
    leaves, tree = jax.tree.flatten(given)
    return structure, tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


_PROGRAMS = _Programs()
forget_with_jax(_PROGRAMS.clear)
