"""What runs are expected to cost, before any has been made."""

from ...dynamics.base import AbstractDynamics
from ..study.grid import Point, Value, kind_of
from ..study.study import Study
from ..study.values import with_values


class Costs:
    """Expected steps and seconds of the runs of a study, as its dynamics tell."""

    def __init__(self, study: Study):
        self._study = study
        self._taus = tuple(map(float, study.taus))
        self._names = study.names_in("dynamics")
        self._seconds: dict[tuple, float] = {}

    def steps(self, point: Point) -> float:
        """Return the steps of the run at a point: exact for SGD, 1 for a closed form."""
        return self._dynamics(point).expected_steps(self._taus[-1])

    def seconds(self, point: Point) -> float:
        """Return the seconds of one core that the run at a point is expected to take."""
        key = (*kind_of(point), *(point[name] for name in self._names))
        if key not in self._seconds:
            problem, dynamics = self._study.at_point(point)
            seconds = dynamics.expected_seconds(problem, int(point["width"]), self._taus)
            self._seconds[key] = seconds
        return self._seconds[key]

    def spread(self, name: str) -> float:
        """Return the largest number of steps over the smallest, as one coordinate changes alone."""
        if name not in self._names:
            return 1.0
        first = self._study.axes.point([0] * len(self._study.axes.axes))
        steps = [self.steps({**first, name: value}) for value in self._study.axes.values(name)]
        return max(steps) / min(steps)

    def _dynamics(self, point: Point) -> AbstractDynamics:
        numbers: dict[str, Value] = {name: point[name] for name in self._names}
        return with_values(self._study.problem, self._study.dynamics, numbers)[1]
