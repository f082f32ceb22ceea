"""What stands in a store beside the runs: their coordinates, and the floor of the risk."""

import itertools
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from ..metrics import floor
from ..problem import Problem
from .grid import Axis
from .study import Study


def coordinates(study: Study) -> Iterator[tuple[str, np.ndarray, str | None]]:
    """Names, values and dimensions of the coordinates; None for one value that holds everywhere."""
    for axis in study.axes.axes:
        for name in axis.names:
            yield name, _array_of(study.axes.values(name)), axis.dimension
    for name, value in study.axes.fixed:
        yield name, np.asarray(value), None
    yield "tau", np.asarray(study.taus), "tau"


def _array_of(values: tuple) -> np.ndarray:
    return np.array(values, dtype=object) if isinstance(values[0], str) else np.asarray(values)


def _floor_axes(study: Study) -> list[Axis]:
    return [axis for axis in study.axes.axes if {"eta", "target"} & set(axis.names)]


def floor_dimensions(study: Study) -> tuple[str, ...]:
    return tuple(axis.dimension for axis in _floor_axes(study))


def floors(study: Study) -> Iterator[tuple[str, np.ndarray]]:
    """The risk of one neuron on each jump, `metrics.floor`, NaN where there is no such thing."""
    axes, found = _floor_axes(study), []
    cells = list(itertools.product(*(range(len(axis.values)) for axis in axes)))
    for cell in cells:
        choice = dict(zip([axis.dimension for axis in axes], cell, strict=True))
        point = study.axes.point([choice.get(a.dimension, 0) for a in study.axes.axes])
        numbers = {name: float(point[name]) for name in ("eta",) if name in point}
        target = dict(study.axes.targets).get(str(point.get("target")))
        problem = study.at(numbers, target)[0]
        found.append(np.nan)
        if isinstance(problem, Problem):
            with suppress(ValueError):  # there is none for other targets and activations
                found[-1] = float(floor(problem))
    yield "floor", np.array(found).reshape([len(axis.values) for axis in axes])
