"""Studies as TOML files, and as the tables that a store keeps."""

import functools
import itertools
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..._files import as_path
from ...models.initialisers import init_uniform
from ...models.targets import AbstractLabels
from ...models.two_layer import TwoLayerNetwork
from ...problems.base import AbstractProblem
from ..errors import StudyError
from .data import DataFile, check_unchanged, read_data
from .grid import MOST_VALUES, START_NAMES
from .starts import OPTIONS, two_layer_start
from .study import Start, Study
from .tables import DRAWN, KNOWN, SAMPLE, SWEPT, TableError, build, call, check_names

_SPACED = {"from", "to", "count", "scale"}
_LARGEST = 1e300
"""More than all numbers that values lie between. TOML has whole numbers that no float holds."""

_PARTS = ("problem", "dynamics", "taus", "grid", "keep", "precision", "start", "data")
_NETWORKS = {
    "Problem": "ShallowNetwork",
    "EmpiricalProblem": "ShallowNetwork",
    "GaussianProblem": "TwoLayerNetwork",
}
"""The usual network of a problem, where a table names none."""


def read_study(path: str | os.PathLike[str]) -> Study:
    """Read a `Study` from a TOML file.

    **Raises:** `StudyError` with the file, the line that is wrong, and what is expected there.
    """
    path = as_path("path", path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors write a mark first
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: {getattr(error, 'strerror', None) or error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: {error}.") from error
    try:
        return study_from(table, path.parent)
    except TableError as error:
        raise StudyError(f"{path}, line {_line(text, error.path)}: {error.message}") from error


def study_from(table: Mapping[str, Any], folder: Path = Path()) -> Study:
    """Return the study that a plain table stands for, the inverse of `Study.description`.

    The file of its data, if it has one, is relative to the folder.

    **Raises:** `TableError`.
    """
    for name in table:
        if name not in _PARTS:
            raise TableError((name,), f"a study has no `{name}`; it has {', '.join(_PARTS)}.")
    for name in ("problem", "dynamics", "taus", "grid"):
        if name not in table:
            raise TableError((), f"`{name}` is missing.")
    grid = grid_from(table["grid"])
    problem_table, stored = _without_sample(_with_types(table["problem"], "data" in table))
    data, arrays = None, {}
    if problem_table["type"] == "EmpiricalProblem":
        data, arrays = _sample(table, stored, folder)
    elif "data" in table:
        message = f"`data` is for an EmpiricalProblem, not for a {problem_table['type']}."
        raise TableError(("data",), message)
    _check_names(grid, problem_table, table["dynamics"])
    try:
        filled = _filled(problem_table, grid, ("problem",))
        problem = build({**filled, **arrays}, ("problem",))
        dynamics = build(_filled(table["dynamics"], grid, ("dynamics",)), ("dynamics",))
    except TableError as error:
        name = error.path[-1] if error.path else ""
        if name in table["grid"] and not _says(table, error.path):
            # It is the grid's first value that is wrong.
            raise TableError(("grid", name), error.message) from error
        if name in arrays:
            raise TableError(("data", name), error.message) from error
        raise
    taus = _values("taus", table["taus"], ("taus",))
    options = {name: table[name] for name in ("keep", "precision") if name in table}
    options["start"] = _start(table.get("start"), problem)
    try:
        study = Study(problem, dynamics, grid, taus, **options)
        return study if data is None else study.with_data(data)
    except ValueError as error:
        raise TableError(_path_of(str(error), table, arrays), str(error)) from error


def _says(table: Any, path: tuple[str, ...]) -> bool:
    """Whether a table of tables has a value of its own, and not the grid's, at a path."""
    for name in path:
        if not isinstance(table, Mapping) or name not in table:
            return False
        table = table[name]
    return table != SWEPT


def _path_of(complaint: str, table: Mapping[str, Any], sample: Mapping[str, Any]) -> tuple:
    """Where in the table of a study that stands which `Study` complains of."""
    found = re.search(r"`grid\['(\w+)|`(\w+)", complaint)
    name = (found[1] or found[2]) if found else ""
    if name in table:
        return (name,)
    if name in sample:
        return ("data", name)
    if name == "params":  # those of the start
        return ("start",)
    return ("grid", name) if name in table["grid"] else ("grid",)


def _check_names(grid: Mapping[Any, Any], *tables: Any) -> None:
    """Raise `TableError` for a name of the grid that nothing declares, before it is missed."""
    try:
        known = [*START_NAMES, *itertools.chain(*map(_declared, tables))]
    except KeyError:
        return  # of a class that is not known: `build` will tell
    for key in grid:
        for name in (key,) if isinstance(key, str) else key:
            if name not in known:
                message = f"there is no `{name}` to sweep; there are {', '.join(known)}."
                raise TableError(("grid", name if isinstance(key, str) else key[0]), message)


def _declared(table: Any) -> list[str]:
    """The names that a table's class, and those of its parts, declare in `sweepable`."""
    kind = _class_of(table)
    return [*_sweepable(kind), *itertools.chain(*map(_declared, _parts(table, kind).values()))]


def _class_of(table: Any) -> Any:
    """The class that a table is for; raises KeyError if there is none."""
    kind = table.get("type") if isinstance(table, Mapping) else None
    return KNOWN[kind if isinstance(kind, str) else ""]


def _sweepable(kind: Any) -> tuple[str, ...]:
    return getattr(kind, "sweepable", ())


def _parts(table: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """The tables in a table whose classes may declare names: none in a target, see `places_of`."""
    if issubclass(kind, AbstractLabels):
        return {}
    return {name: part for name, part in table.items() if isinstance(part, Mapping)}


def _with_types(table: Any, has_data: bool) -> dict[str, Any]:
    """A problem's table with the usual classes where none are named."""
    if not isinstance(table, Mapping):
        raise TableError(("problem",), "`problem` must be a table.")
    problem = {"type": "EmpiricalProblem" if has_data else "Problem", **table}
    kind = problem["type"]
    usual = _NETWORKS.get(kind) if isinstance(kind, str) else None
    if usual is None:
        return problem
    if not isinstance(problem.get("network", {}), Mapping):
        raise TableError(("problem", "network"), "`problem.network` must be a table.")
    return problem | {"network": {"type": usual, **problem.get("network", {})}}


def _without_sample(problem: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A problem's table without its sample, and what a store has in place of that: hashes."""
    if problem["type"] != "EmpiricalProblem":
        return dict(problem), {}
    stored = {name: problem[name] for name in SAMPLE if name in problem}
    for name, value in stored.items():
        if not isinstance(value, Mapping):
            message = f"`{name}` stands in a file, which the table `data` names."
            raise TableError(("problem", name), message)
    return {name: value for name, value in problem.items() if name not in SAMPLE}, stored


def _sample(
    table: Mapping[str, Any], stored: Mapping[str, Any], folder: Path
) -> tuple[DataFile, dict[str, np.ndarray]]:
    """The sample of a study, which is compared with what a store has of it."""
    if "data" not in table:
        message = "an EmpiricalProblem needs a table `data`, with the `file` that has x and y."
        raise TableError(("problem",), message)
    data, arrays = read_data(table["data"], folder)
    if stored:
        check_unchanged(stored, arrays, data)
    return data, arrays


def _start(table: Any, problem: AbstractProblem) -> Start:
    """The start that a table stands for; none stands for that of the paper."""
    if table is None:
        if isinstance(getattr(problem, "network", None), TwoLayerNetwork):
            message = (
                'a TwoLayerNetwork needs a table `start`, such as `start = { type = "'
                f'{DRAWN}" }}`; it may have {", ".join(OPTIONS)}.'
            )
            raise TableError(("problem", "network"), message)
        return init_uniform
    if not isinstance(table, Mapping):
        raise TableError(("start",), "`start` must be a table.")
    if "digest" in table:
        raise TableError(("start",), f"`start` is a function, which no file has: {table}.")
    given = dict(table)
    kind = given.pop("type", None)
    if kind == "init_uniform":
        check_names(kind, (), given, ("start",))
        return init_uniform
    if kind != DRAWN:
        path = ("start", "type") if "type" in table else ("start",)
        message = f"`start.type` is {kind!r}: it must be init_uniform or {DRAWN}."
        raise TableError(path, message)
    check_names(DRAWN, OPTIONS, given, ("start",))
    return call(DRAWN, functools.partial(two_layer_start, problem), given, ("start",))


def _filled(table: Any, grid: Mapping[Any, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """A table, and the tables in it, with a first value wherever the grid has the values."""
    if not isinstance(table, Mapping):
        raise TableError(path, f"`{'.'.join(path)}` must be a table.")
    firsts = _first_values(grid)
    for name, value in table.items():
        if value == SWEPT and name not in firsts:
            message = f'`{name}` is "{SWEPT}", but the grid has no `{name}`.'
            raise TableError((*path, name), message)
    found = {name: value for name, value in table.items() if value != SWEPT}
    try:
        kind = _class_of(table)
    except KeyError:
        return found  # `build` will tell
    for name, part in _parts(found, kind).items():
        found[name] = _filled(part, grid, (*path, name))
    return {name: firsts[name] for name in _sweepable(kind) if name in firsts} | found


def _first_values(grid: Mapping[Any, Any]) -> dict[str, Any]:
    """The first value of every name. A target is built already: `build` leaves it as it is."""
    found: dict[str, Any] = {}
    for key, values in grid.items():
        if isinstance(values, Mapping):
            first = next(iter(values.values()))
        else:
            first = values if np.ndim(values) == 0 else next(iter(values))
        found |= {key: first} if isinstance(key, str) else dict(zip(key, first, strict=True))
    return found


def grid_from(table: Any, targets: Mapping[str, Any] | None = None) -> dict[Any, Any]:
    """Return the mapping that `Study` takes. Targets that are there already need not be built.

    **Raises:** `TableError`.
    """
    there = targets or {}
    if not isinstance(table, Mapping):
        raise TableError(("grid",), "`grid` must be a table.")
    found: dict[Any, Any] = {}
    for name, values in table.items():
        path = ("grid", name)
        if name == "target":
            if not isinstance(values, Mapping) or not values:
                raise TableError(path, "`grid.target` must be a table of labels and targets.")
            found[name] = {
                label: there[label] if label in there else build(value, (*path, label))
                for label, value in values.items()
            }
        elif isinstance(values, Mapping) and not set(values) & _SPACED:
            columns = {inner: _values(inner, v, (*path, inner)) for inner, v in values.items()}
            if not all(isinstance(column, list | range) for column in columns.values()):
                raise TableError(path, f"`{name}` must zip lists.")
            lengths = {len(column) for column in columns.values()}
            if len(lengths) != 1:
                raise TableError(path, f"`{name}` zips lists of different lengths, {lengths}.")
            found[tuple(columns)] = list(zip(*columns.values(), strict=True))
        else:
            found[name] = _values(name, values, path)
    return found


def _values(name: str, given: Any, path: tuple[str, ...]) -> Any:
    """Values that are listed, a single one, or `{from, to, count, scale}`."""
    if not isinstance(given, Mapping):
        if isinstance(given, list) and (
            not given or any(isinstance(v, bool) or not isinstance(v, int | float) for v in given)
        ):
            raise TableError(path, f"`{name}` must be a list of numbers with one at least.")
        return given
    for key, value in given.items():
        if key not in _SPACED:
            message = f"values are a list, or a table of from, to, count and scale, not `{key}`."
            raise TableError((*path, key), message)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if key != "scale" and not (is_number and abs(value) < _LARGEST):
            raise TableError((*path, key), f"`{key}` must be a number, but is {value!r}.")
    count, first = given.get("count"), given.get("from", 0)
    if not isinstance(count, int) or not 1 <= count <= MOST_VALUES:
        message = f"`count` must be a whole number from 1 to {MOST_VALUES}, but is {count!r}."
        raise TableError((*path, "count"), message)
    if name in START_NAMES and "to" not in given:
        if first != int(first):
            raise TableError((*path, "from"), f"`from` must be a whole number, but is {first}.")
        return range(int(first), int(first) + count)
    if "to" not in given:
        raise TableError(path, f"`{name}` needs a `to`.")
    scale = given.get("scale", "linear")
    if scale == "log" and first > 0 and given["to"] > 0:
        return np.geomspace(float(first), float(given["to"]), count).tolist()
    if scale != "linear":
        expected = '"linear", or "log" between positive numbers'
        raise TableError(path, f"`scale` must be {expected}, but is {scale!r} from {first}.")
    spaced, whole = np.linspace(float(first), float(given["to"]), count), name in START_NAMES
    return np.unique(np.round(spaced).astype(int)).tolist() if whole else spaced.tolist()


def _line(text: str, path: tuple[str, ...]) -> int:
    """The line of a TOML text where the value at a path begins, or the table that it is in."""
    best, at, table = 0, 1, ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+([^\[\]]+)\]+", line)
        key = re.match(r"\s*([\w.\"'-]+)\s*=", line)
        if header:
            table = tuple(re.findall(r"[\w-]+", header[1]))
            here = table
        elif key:
            here = (*table, *re.findall(r"[\w-]+", key[1]))
        else:
            continue
        shared = len(here) if here == path[: len(here)] else 0
        if shared > best:
            best, at = shared, number
    return at
