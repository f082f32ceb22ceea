"""A study: everything that decides what a sweep computes."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from ..._errors import argument_error, check_64_bit, check_type
from ..._numbers import as_word, shown
from ..._sweepable import at_place, check_number
from ..._types import Key, Times
from ...dynamics.base import AbstractDynamics, as_taus
from ...models.initialisers import init_uniform
from ...models.network import Params
from ...models.targets import AbstractLabels
from ...problems.base import AbstractProblem
from .data import DataFile
from .grid import START_NAMES, Grid, Point, make_grid
from .starts import TwoLayerStart, like, seed_key
from .tables import describe, mark_swept
from .values import check_names, places_of, with_values

Start = Callable[[Key, int], Params]


@dataclass(frozen=True)
class Study:
    """What a sweep computes.

    **Arguments:**

    - `problem`, `dynamics`: as for `simulate`; the grid's values stand in place of theirs.
    - `grid`: a mapping of names to values. Names are `seed`, `width`, and what the classes of the
      problem and the dynamics, and of their parts, name in `sweepable`: such as `target`, `eta`,
      `epsilon`, `step_size`, `noise` and `rtol`.
      `{"epsilon": [0.1, 1.0], "seed": range(20), "width": 20}` is a product of two axes at one
      width; a key of several names, `("width", "eta"): [(10, 1e-2), (20, 4e-3)]`, is one axis on
      which they go together; `"target"` has labels, `{"stairs": target, ...}`.
    - `taus` (T,): slow times to record.
    - `start`: a function of a key and a width that returns where a run starts, and draws by
      `jax.random` only. The key depends on the seed only: runs of one seed and width start at the
      same place.
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
    data: DataFile | None = dataclasses.field(default=None, init=False)
    """The file that the sample of the problem was read from, for studies that name one."""

    def __post_init__(self):
        check_64_bit()
        check_type("problem", self.problem, AbstractProblem)
        check_type("dynamics", self.dynamics, AbstractDynamics)
        object.__setattr__(self, "taus", tuple(np.asarray(as_taus(self.taus)).tolist()))
        object.__setattr__(self, "grid", make_grid(self.grid))
        if not callable(self.start):
            raise argument_error("start", "a function of a key and a width", shown(self.start))
        as_word("keep", self.keep, ("all", "last"))
        as_word("precision", self.precision, ("float64", "float32"))
        if self.precision not in self.dynamics.precisions:
            allowed = " or ".join(f'"{name}"' for name in self.dynamics.precisions)
            expected = f"{allowed} for a {type(self.dynamics).__name__}"
            raise argument_error("precision", expected, repr(self.precision))
        self._check_names()
        self._check_values()
        self._check_start()

    def _check_start(self) -> None:
        """Raise, or warn, if the problem does not take the start, as far as that is known."""
        width = min(int(value) for value in self.axes.values("width"))
        params = like(self.start, width)
        if params is None:
            self._check_draws(width)
            return
        problems = [self.at({}, target)[0] for _, target in self.axes.targets] or [self.problem]
        for problem in problems:
            try:
                problem.check(params)
            except ValueError as error:
                if self.start is not init_uniform:
                    raise
                expected = "a function of a key and a width for this problem"
                got = "`init_uniform`, which is for a network of one input"
                raise argument_error("start", expected, got) from error

    def _check_draws(self, width: int) -> None:
        """Make a start twice: one that draws from elsewhere would be the same for every seed, since
        it is called once, to be compiled."""
        first, second = (jax.tree.leaves(self.start(seed_key(0), width)) for _ in range(2))
        if len(first) != len(second) or not all(map(np.array_equal, first, second)):
            raise argument_error(
                "start",
                "a function of its key and width alone, which draws by `jax.random`",
                "one that returned two different starts for one key",
            )

    def _check_names(self) -> None:
        names = self.axes.names
        check_names(names, self.problem, self.dynamics)
        for _, target in self.axes.targets:  # each may declare numbers that others lack
            check_names(names, *self.at({}, target))
        if "width" not in names:
            raise argument_error("grid", "with a `width`", f"of {list(names)}")

    def _check_values(self) -> None:
        """Make what every value asks for once, so that a bad one is told before the first run."""
        targets = [target for _, target in self.axes.targets] or [None]
        for target in targets:
            problem, dynamics = self.at({}, target)
            places = places_of(problem, dynamics)
            for name in self.numbers:
                holder = at_place({"problem": problem, "dynamics": dynamics}, places[name][0][:-1])
                for value in self.axes.values(name):
                    check_number(holder, name, value)
            if target is not None:
                holder = at_place({"problem": problem}, places["target"][0][:-1])
                check_number(holder, "target", target)

    @property
    def axes(self) -> Grid:
        """The grid, as a `Grid`."""
        assert isinstance(self.grid, Grid)
        return self.grid

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the grid whose values are numbers of the problem or the dynamics."""
        apart = (*START_NAMES, "target")
        return tuple(name for name in self.axes.names if name not in apart)

    def names_in(self, part: Literal["problem", "dynamics"]) -> tuple[str, ...]:
        """Return the names of the grid whose values stand in the problem, or in the dynamics."""
        places = places_of(self.problem, self.dynamics)
        inside = {name for name, (place, *_) in places.items() if place[0] == part}
        return tuple(name for name in self.axes.names if name in inside)

    def at(
        self, numbers: Mapping[str, Any], target: AbstractLabels | None = None
    ) -> tuple[AbstractProblem, AbstractDynamics]:
        """Return the problem and the dynamics with other numbers, which may be traced, and another
        target unless it is None."""
        values = dict(numbers) if target is None else {**numbers, "target": target}
        return with_values(self.problem, self.dynamics, values)

    def at_point(self, point: Point) -> tuple[AbstractProblem, AbstractDynamics]:
        """Return the problem and the dynamics of the run at a point of the grid."""
        target = dict(self.axes.targets).get(str(point.get("target")))
        return self.at({name: point[name] for name in self.numbers if name in point}, target)

    def with_data(self, data: DataFile) -> "Study":
        """Return this study with the name of the file that its sample was read from."""
        found = copy.copy(self)
        object.__setattr__(found, "data", data)
        return found

    def extended(self, other: "Study") -> "Study":
        """Return this study with the values that another one, which is equal but for the values
        of its axes, has more."""
        return self.with_grid(self.axes.extended(other.axes))

    def with_grid(self, grid: Grid | Mapping[Any, Any]) -> "Study":
        """Return this study with other values on its axes, which are checked alone."""
        found = copy.copy(self)
        object.__setattr__(found, "grid", make_grid(grid))
        found._check_names()
        found._check_values()
        return found

    def description(self) -> dict[str, Any]:
        """Return the study as a plain table, as a TOML file may have it, too."""
        # What the grid has values for must not tell two studies apart.
        swept: dict[str, Any] = dict.fromkeys(self.numbers, 1.0)
        problem, dynamics = self.at(swept)
        places = places_of(problem, dynamics)
        if "target" in self.axes.names:
            swept["target"] = None
            problem, dynamics = with_values(problem, dynamics, {"target": None})
        table = {"problem": describe(problem), "dynamics": describe(dynamics)}
        for name in swept:
            mark_swept(table, places[name][0])
        if isinstance(self.start, TwoLayerStart):
            table["start"] = self.start.description()
        elif self.start is not init_uniform:
            table["start"] = describe(self.start)
        if self.data is not None:
            table["data"] = self.data.description()
        table |= {"keep": self.keep, "precision": self.precision, "taus": list(self.taus)}
        targets = {}
        for label, target in self.axes.targets:
            problem = self.at(dict.fromkeys(self.numbers, 1.0), target)[0]
            targets[label] = describe(at_place({"problem": problem}, places["target"][0]))
        return table | {"grid": _describe_grid(self.axes, targets)}


def _describe_grid(grid: Grid, targets: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for axis in grid.axes:
        columns = [list(column) for column in zip(*axis.values, strict=True)]
        if axis.names == ("target",):
            found["target"] = targets
        elif axis.names == ("seed",) and columns[0] == list(
            range(columns[0][0], columns[0][0] + len(columns[0]))
        ):
            found["seed"] = {"from": columns[0][0], "count": len(columns[0])}
        elif len(axis.names) == 1:
            found[axis.names[0]] = columns[0]
        else:
            found[axis.dimension] = dict(zip(axis.names, columns, strict=True))
    return found | dict(grid.fixed)
