"""A study: everything that decides what a sweep computes."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np

from ..._errors import argument_error, check_64_bit, check_type
from ..._types import Key, Times
from ...dynamics.base import AbstractDynamics, check_taus
from ...dynamics.sgd.dynamics import SGD
from ...models.initialisers import init_uniform
from ...models.network import Params
from ...models.targets import AbstractLabels
from ...problems.base import AbstractProblem
from ...problems.population import Problem
from .grid import Grid, make_grid
from .tables import SWEPT, describe

Start = Callable[[Key, int], Params]


@dataclass(frozen=True)
class Study:
    """What a sweep computes.

    **Arguments:**

    - `problem`, `dynamics`: as for `simulate`; the grid's values stand in place of theirs.
    - `grid`: a mapping of names to values. Names are `seed`, `width`, `eta`, `target`, and the
      numbers of the dynamics, such as `epsilon`, `step_size`, `noise` and `rtol`.
      `{"epsilon": [0.1, 1.0], "seed": range(20), "width": 20}` is a product of two axes at one
      width; a key of several names, `("width", "eta"): [(10, 1e-2), (20, 4e-3)]`, is one axis on
      which they go together; `"target"` has labels, `{"stairs": target, ...}`.
    - `taus` (T,): slow times to record.
    - `start`: a function of a key and a width that returns where a run starts. The key depends on
      the seed only: runs of one seed and width start at the same place.
    - `keep`: the parameters at "all" times, or at the "last" one only.
    - `precision`: "float64", or "float32" for SGD.

    Frozen. **Raises:** `ValueError` for what none of its runs could go with.
    """

    problem: AbstractProblem
    dynamics: AbstractDynamics
    grid: Grid | Mapping[Any, Any]
    taus: Times | tuple[float, ...]
    start: Start = dataclasses.field(default=init_uniform, kw_only=True)
    keep: Literal["all", "last"] = dataclasses.field(default="all", kw_only=True)
    precision: Literal["float64", "float32"] = dataclasses.field(default="float64", kw_only=True)

    def __post_init__(self):
        check_64_bit()
        check_type("problem", self.problem, AbstractProblem)
        check_type("dynamics", self.dynamics, AbstractDynamics)
        check_taus(self.taus)
        object.__setattr__(self, "taus", tuple(np.asarray(self.taus, np.float64).tolist()))
        object.__setattr__(self, "grid", make_grid(self.grid))
        if not callable(self.start):
            raise argument_error("start", "a function of a key and a width", repr(self.start))
        if self.keep not in ("all", "last"):
            raise argument_error("keep", '"all" or "last"', repr(self.keep))
        if self.precision not in ("float64", "float32"):
            raise argument_error("precision", '"float64" or "float32"', repr(self.precision))
        if self.precision == "float32" and not isinstance(self.dynamics, SGD):
            raise argument_error("precision", '"float64" for a flow', repr(self.precision))
        self._check_names()
        self._check_values()

    def _check_names(self) -> None:
        names = self.axes.names
        known = ["seed", "width", *numbers_of(self.dynamics)]
        if _has_eta(self.problem):
            known.append("eta")
        if isinstance(self.problem, Problem):
            known.append("target")
        for name in names:
            if name not in known:
                what = f"a {type(self.problem).__name__} under {type(self.dynamics).__name__}"
                raise argument_error("grid", f"of names among {known} for {what}", f"of `{name}`")
        if "width" not in names:
            raise argument_error("grid", "with a `width`", f"of {list(names)}")

    def _check_values(self) -> None:
        """Make what every value asks for once, so that a bad one is told before the first run."""
        for name in self.axes.names:
            if name in numbers_of(self.dynamics):
                for value in self.axes.values(name):
                    dataclasses.replace(self.dynamics, **{name: value})
            elif name == "eta":
                for value in self.axes.values(name):
                    activation = self.problem.network.activation  # pyright: ignore
                    dataclasses.replace(activation, eta=value)

    @property
    def axes(self) -> Grid:
        """The grid, as a `Grid`."""
        assert isinstance(self.grid, Grid)
        return self.grid

    def at(
        self, numbers: Mapping[str, Any], target: AbstractLabels | None = None
    ) -> tuple[AbstractProblem, AbstractDynamics]:
        """The problem and the dynamics with other numbers, which may be traced, and target."""
        problem, dynamics = self.problem, self.dynamics
        if target is not None:
            problem = eqx.tree_at(lambda p: p.target, problem, target)
        for name, number in numbers.items():
            if name == "eta":
                problem = eqx.tree_at(lambda p: p.network.activation.eta, problem, number)
            elif name in numbers_of(dynamics):
                dynamics = eqx.tree_at(lambda d, name=name: getattr(d, name), dynamics, number)
        return problem, dynamics

    def extended(self, other: "Study") -> "Study":
        """With the values of another study that differs in the values of its axes only."""
        return dataclasses.replace(self, grid=self.axes.extended(other.axes))

    def description(self) -> dict[str, Any]:
        """The study as a plain table, as a TOML file may have it, too."""
        names = self.axes.names
        # What the grid has values for must not tell two studies apart.
        swept = {name: 1.0 for name in names if name not in ("seed", "width", "target")}
        problem, dynamics = self.at(swept)
        if "target" in names:
            problem = eqx.tree_at(lambda p: p.target, problem, None)
        table = {"problem": describe(problem), "dynamics": describe(dynamics)}
        for name in names:
            place = table["dynamics"]
            if name == "eta":
                place = table["problem"].get("network", {}).get("activation", {})
            elif name == "target":
                place = table["problem"]
            if name not in ("seed", "width") and "digest" not in place:
                place[name] = SWEPT
        if self.start is not init_uniform:
            table["start"] = describe(self.start)
        table |= {"keep": self.keep, "precision": self.precision, "taus": list(self.taus)}
        return table | {"grid": _describe_grid(self.axes)}


def numbers_of(dynamics: AbstractDynamics) -> tuple[str, ...]:
    """The names of the numbers of a dynamics that can be swept."""
    return tuple(
        field.name
        for field in dataclasses.fields(dynamics)
        if not field.metadata.get("static", False)
        and isinstance(getattr(dynamics, field.name), float | np.ndarray | jax.Array)
    )


def _has_eta(problem: AbstractProblem) -> bool:
    activation = getattr(getattr(problem, "network", None), "activation", None)
    return hasattr(activation, "eta")


def _describe_grid(grid: Grid) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for axis in grid.axes:
        columns = [list(column) for column in zip(*axis.values, strict=True)]
        if axis.names == ("target",):
            found["target"] = {label: describe(target) for label, target in grid.targets}
        elif axis.names == ("seed",) and columns[0] == list(
            range(columns[0][0], columns[0][0] + len(columns[0]))
        ):
            found["seed"] = {"from": columns[0][0], "count": len(columns[0])}
        elif len(axis.names) == 1:
            found[axis.names[0]] = columns[0]
        else:
            found[axis.dimension] = dict(zip(axis.names, columns, strict=True))
    return found | dict(grid.fixed)
