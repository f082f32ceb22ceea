"""The sample of a study that stands in a file: which file, and what of it is x, y and weights."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..._errors import check_finite
from ..._files import as_path
from ..._numbers import as_floats, shown
from .formats import Columns, FormatError, read_columns
from .tables import SAMPLE, TableError, check_names, describe_sample

Names = str | tuple[str, ...]
"""An array by its name, or several columns (N,) that are to stand side by side (N, k)."""


@dataclass(frozen=True)
class DataFile:
    """The file with the sample of a study, and the names of what is taken from it."""

    path: Path
    names: Mapping[str, Names]
    """By "x", "y" and, if samples have them, "weights"."""

    def description(self) -> dict[str, Any]:
        """Return a plain table, with the path as it is on this machine, from its root."""
        plain = {n: v if isinstance(v, str) else list(v) for n, v in self.names.items()}
        return {"file": str(self.path), **plain}


def read_data(table: Any, folder: Path) -> tuple[DataFile, dict[str, np.ndarray]]:
    """Read the sample that the table `data` of a study names.

    **Arguments:** the table: `file`, relative to the folder of the study, `x` and `y` (by default
    "x" and "y"), and `weights` if samples have them: names in the file, or lists of names.

    **Returns:** where it stands, and the arrays by "x", "y" and "weights".

    **Raises:** `TableError`.
    """
    if not isinstance(table, Mapping):
        raise TableError(("data",), "`data` must be a table.")
    check_names("table `data`", ("file", *SAMPLE), table, ("data",))
    given = table.get("file")
    path = _path_of(given, folder)
    asked = {"x": "x", "y": "y", **{n: v for n, v in table.items() if n != "file"}}
    names = {name: _names(name, value) for name, value in asked.items()}
    listed = dict.fromkeys(one for some in names.values() for one in _listed(some))
    try:
        columns = read_columns(path, list(listed))
    except FormatError as error:
        where = next((n for n in names if error.name in _listed(names[n])), "file")
        where = where if where in table else "file"
        raise TableError(("data", where), f"`{given}` {error}.") from error
    arrays = {name: _gathered(name, names[name], columns, given) for name in names}
    return DataFile(path, names), arrays


def check_unchanged(
    stored: Mapping[str, Any], arrays: Mapping[str, np.ndarray], data: DataFile
) -> None:
    """Raise `TableError` unless arrays from a file are those of which a store has the hashes."""
    found = {name: describe_sample(values) for name, values in arrays.items()}
    for name in {**stored, **found}:
        if stored.get(name) != found.get(name):
            message = f"the `{name}` in {data.path} is no longer that which the store was made of."
            raise TableError(("data", name), message)


def _path_of(given: Any, folder: Path) -> Path:
    where = ("data", "file")
    if not isinstance(given, str):
        got = "is missing" if given is None else f"is {shown(given)}"
        raise TableError(where[: 1 if given is None else 2], f"`file` {got}: it must be a path.")
    try:
        path = Path(os.path.abspath(folder / as_path("file", given)))
    except ValueError as error:
        raise TableError(where, str(error)) from error
    if not path.is_file():
        what = f"`{given}` is no file" if path.exists() else f"there is no file `{given}`"
        looked_for = "" if os.path.isabs(given) else f" (looked for as {path})"
        raise TableError(where, f"{what}{looked_for}.")
    return path


def _names(name: str, value: Any) -> Names:
    some = list(value) if isinstance(value, list | tuple) else [value]
    is_right = some and all(isinstance(one, str) for one in some) and len(set(some)) == len(some)
    if not is_right or (name == "weights" and not isinstance(value, str)):
        several = "" if name == "weights" else ", or a list of names, each once"
        message = f"`{name}` must be a name in the file{several}, but is {shown(value)}."
        raise TableError(("data", name), message)
    return value if isinstance(value, str) else tuple(some)


def _listed(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _gathered(name: str, names: Names, columns: Columns, file: Any) -> np.ndarray:
    """The array of a name, or the columns of several names side by side."""
    try:
        for one in _listed(names):
            check_finite(one, columns[one])
        if isinstance(names, str):
            return as_floats(names, columns[names])
        shapes = {one: columns[one].shape for one in names}
        if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) > 1:
            listed = ", ".join(f"`{one}` {shape}" for one, shape in shapes.items())
            raise ValueError(f"Columns side by side must be of one shape (N,), but are {listed}.")
        return as_floats(name, np.stack([columns[one] for one in names], axis=1))
    except ValueError as error:
        raise TableError(("data", name), f"`{file}`: {error}") from error
