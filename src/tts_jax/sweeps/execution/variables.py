"""What a run leaves: names, axes, lengths and dtypes, by an abstract evaluation."""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np

from ..study.grid import Kind, kind_of
from ..study.study import Study
from .structure import Settings, Structure, one_run

_KEPT = 256
"""Structures whose variables are kept between sweeps: they take little memory."""


class Variable(NamedTuple):
    """What a run leaves under one name: the names of its axes, their lengths, and its dtype."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype


Variables = dict[Kind, dict[str, Variable]]
"""By width and target, and then by name."""


def variables_of(study: Study) -> Variables:
    """Return what the runs of a study leave. Traces a run for each width and target that is new."""
    settings = Settings.of(study)
    kinds = dict.fromkeys(map(kind_of, study.axes.subgrid("width", "target")[1]))
    return {kind: _variables(settings, *kind) for kind in kinds}


def _variables(settings: Settings, width: int, label: str | None) -> dict[str, Variable]:
    structure, numbers = settings.split(width, label)
    shapes = tuple(None if n is None else (n.shape, n.dtype) for n in numbers)
    return _traced(structure, shapes, settings.numbers, len(settings.taus))


@functools.lru_cache(maxsize=_KEPT)
def _traced(
    structure: Structure, shapes: tuple, names: tuple[str, ...], count: int
) -> dict[str, Variable]:
    numbers = [None if shape is None else jax.ShapeDtypeStruct(*shape) for shape in shapes]
    swept = {name: jax.ShapeDtypeStruct((), np.float64) for name in names}
    seed, stream = (jax.ShapeDtypeStruct((), kind) for kind in (np.int64, np.uint64))
    taus = jax.ShapeDtypeStruct((count,), np.float64)
    found = eqx.filter_eval_shape(
        functools.partial(one_run, structure), numbers, swept, seed, stream, taus
    )
    return {
        name: Variable(axes, leaf.shape, np.dtype(leaf.dtype))
        for name, (axes, leaf) in found.items()
    }
