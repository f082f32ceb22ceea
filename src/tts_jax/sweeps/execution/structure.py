"""A run as a function of its numbers, and all else that it is made of, which is compiled for."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._programs import Fixed, code_of
from ..._types import Array, Times, as_array
from ...dynamics.base import AbstractDynamics
from ...models.targets import AbstractLabels
from ...problems.base import AbstractProblem
from ...simulation import simulate
from ...trajectory import Trajectory
from ..study.starts import seed_key
from ..study.study import Start, Study
from ..study.values import with_values


@dataclass(frozen=True)
class Structure:
    """All that a run is made of but its numbers. Runs of equal structure share a program.

    The problem, the dynamics and the start count by what they do, as `code` has it: others that do
    the same are as good, and one that has changed is another one.
    """

    fixed: Fixed = dataclasses.field(compare=False)
    """The problem and the dynamics without their numbers."""
    start: Start = dataclasses.field(compare=False)
    """Where runs start: see `Study`. Its numbers, if it holds any, are no arguments."""
    code: bytes
    width: int
    keep: str
    precision: str


@dataclass(frozen=True)
class Settings:
    """A study without the values of its grid: what a device or a worker is told once."""

    problem: AbstractProblem
    dynamics: AbstractDynamics
    start: Start
    targets: Mapping[str, AbstractLabels]
    numbers: tuple[str, ...]
    """The names of the grid whose values are numbers of the problem or the dynamics."""
    taus: tuple[float, ...]
    keep: str
    precision: str

    @classmethod
    def of(cls, study: Study) -> "Settings":
        """Return the settings of a study."""
        return cls(
            study.problem,
            study.dynamics,
            study.start,
            dict(study.axes.targets),
            study.numbers,
            tuple(study.taus),
            study.keep,
            study.precision,
        )

    def split(self, width: int, label: str | None) -> tuple[Structure, list]:
        """Return the structure of runs of a width and a target, and the numbers that they share
        whatever the grid holds; None for a leaf that is no number.

        **Raises:** `ValueError` where nothing tells what a part of the study does.
        """
        values: dict[str, Any] = dict.fromkeys(self.numbers, 1.0)  # their place is what counts
        if label is not None:
            values["target"] = self.targets[label]
        problem, dynamics = with_values(self.problem, self.dynamics, values)
        fixed, numbers = Fixed.of((problem, dynamics), _as_number)
        problem, dynamics = fixed.tree([None] * len(numbers))
        code = code_of({"problem": problem, "dynamics": dynamics, "start": self.start})
        structure = Structure(fixed, self.start, code, width, self.keep, self.precision)
        return structure, numbers


def _as_number(leaf: Any) -> Any:
    """Return a leaf as an array if it is a number.

    A plain zero is none: it may switch something off, such as the noise of SGD, and what a run
    asks for then is looked at while it is traced.
    """
    return float(leaf) if isinstance(leaf, float) and leaf == 0.0 else as_array(leaf)


def one_run(
    structure: Structure,
    numbers: list,
    swept: Mapping[str, Array],
    seed: Array,
    stream: Array,
    taus: Times,
) -> dict[str, tuple[tuple[str, ...], Array]]:
    """Return what is kept of one run, by name: the names of its axes, and its values. To be traced.

    **Arguments:** the structure and the numbers of `Settings.split`; `swept`: the numbers of the
    grid by name; the seed, and the number of the stream of noise, see `grid.stream`; the recorded
    times.
    """
    problem, dynamics = structure.fixed.tree(numbers)
    problem, dynamics = with_values(problem, dynamics, swept)
    key = seed_key(seed)
    params = structure.start(jax.random.fold_in(key, 0), structure.width)
    dtype = jnp.dtype(structure.precision)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    noise_key = jax.random.fold_in(key, 1)
    for part in (stream >> np.uint64(32), stream):  # fold_in takes 32 bits
        noise_key = jax.random.fold_in(noise_key, part.astype(jnp.uint32))
    trajectory = simulate(problem, dynamics, params, taus, key=noise_key, throw=False)
    return trajectory.variables() if structure.keep == "all" else _last(trajectory)


def _last(trajectory: Trajectory) -> dict[str, tuple[tuple[str, ...], Array]]:
    """The risk at all times, and the parameters at the last one that the run reached."""
    final = jax.tree.map(lambda leaf: leaf[None], trajectory.final)
    trajectory = eqx.tree_at(lambda t: t.params, trajectory, final)
    found = {}
    for name, (axes, leaf) in trajectory.variables().items():
        once = name != "risk" and axes[:1] == ("tau",)
        found[name] = (axes[1:], leaf[0]) if once else (axes, leaf)
    return found
