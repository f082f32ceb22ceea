"""Units of work on all local devices, each taking the next one when it is free."""

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ...batching.devices import local_devices
from ...batching.threads import Threads
from .layout import Unit
from .plan import COMPILE, Plan
from .runner import Results, Runner

Done = Callable[[Unit, Results], None]


class _Waiting:
    """The units that nobody has taken yet, by the program that they need."""

    def __init__(self, plan: Plan, runner: Runner, devices: Sequence[Any]):
        self._turn = threading.Lock()
        self._units: dict[Hashable, list[Unit]] = defaultdict(list)
        for unit in reversed(plan.units):
            self._units[plan.program(unit)].append(unit)
        self._compiled: dict[Any, set[Hashable]] = {device: set() for device in devices}
        for program, units in self._units.items():
            for device in runner.compiled_on(plan.layout.points(units[0])) & set(devices):
                self._compiled[device].add(program)

    def next(self, device: Any) -> Unit | None:
        """Return a unit whose program the device has, or else the one most worth compiling."""
        with self._turn:
            left = {program: units for program, units in self._units.items() if units}
            ready = [program for program in left if program in self._compiled[device]]
            if not ready:
                elsewhere = set().union(*self._compiled.values())
                # One that another device has is worth it only if there is much of it.
                worth = [
                    program
                    for program, units in left.items()
                    if program not in elsewhere or sum(unit.seconds for unit in units) > COMPILE
                ]
                ready = sorted(worth, key=lambda program: program in elsewhere)
            if not ready:
                return None
            self._compiled[device].add(ready[0])
            return left[ready[0]].pop()


def on_devices(
    plan: Plan,
    runner: Runner,
    done: Done,
    devices: Sequence[Any] | None = None,
) -> None:
    """Compute every unit of a plan by a runner, and hand each to `done` as soon as it is there.

    An error, or an interrupt, stops it when the units under way are done. A second interrupt stops
    it at once, and what was under way is dropped.
    """
    devices = local_devices() if devices is None else devices
    waiting, threads = _Waiting(plan, runner, devices), Threads()

    def work(device: Any) -> None:
        while not threads.stop.is_set():
            unit = waiting.next(device)
            if unit is None:
                return
            threads.hand(done, unit, runner(plan.layout.points(unit), device))

    threads.run(work, devices)
