"""What stands in a store beside the runs: their coordinates, and the floor of the risk with the
threshold below which a target is recovered."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from ..._programs import compiled
from ..._types import Array, as_arrays
from ...metrics import floor, recovery_threshold
from ...problems.population import Problem
from ..study.study import Study


def coordinates(study: Study) -> Iterator[tuple[str, np.ndarray, str | None]]:
    """Yield names, values and dimensions of the coordinates; the dimension is None for one value
    that holds everywhere."""
    for axis in study.axes.axes:
        for name in axis.names:
            yield name, _array_of(study.axes.values(name)), axis.dimension
    for name, value in study.axes.fixed:
        yield name, np.asarray(value), None
    yield "tau", np.asarray(study.taus), "tau"


def _array_of(values: tuple) -> np.ndarray:
    return np.array(values, dtype=object) if isinstance(values[0], str) else np.asarray(values)


def floor_dimensions(study: Study) -> tuple[str, ...]:
    """Return the dimensions of the grid that the problem depends on."""
    return tuple(axis.dimension for axis in study.axes.subgrid(*study.names_in("problem"))[0])


FLOORS = ("floor", "recovered_below")
"""The names of what `floors` returns: `metrics.floor` and `metrics.recovery_threshold`."""


def floors(study: Study) -> dict[str, np.ndarray]:
    """Return by the names of `FLOORS` the numbers at every place of `floor_dimensions`.

    NaN where there is no such thing.
    """
    axes, points = study.axes.subgrid(*study.names_in("problem"))
    found = np.full((len(points), len(FLOORS)), np.nan)
    for i, point in enumerate(points):
        problem = study.at_point(point)[0]
        if isinstance(problem, Problem):
            with suppress(ValueError):  # there is none for other targets and activations
                found[i] = _floor(as_arrays(problem))
    shape = [len(axis.values) for axis in axes]
    return {name: found[:, k].reshape(shape) for k, name in enumerate(FLOORS)}


@compiled
def _floor(problem: Problem) -> tuple[Array, Array]:
    # One program for all numbers: run as it is, each of its operations would be compiled alone.
    return floor(problem), recovery_threshold(problem)
