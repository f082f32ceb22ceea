"""Columns of numbers from .npz, .csv and .parquet files, of which nothing is trusted.

No pickle is read, and no array is made before its size is known. What is no number is refused.
"""

import csv
import lzma
import math
import zipfile
import zlib
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..._memory import check_memory

Columns = dict[str, np.ndarray]
"""Arrays by the names that a file has for them."""


class FormatError(Exception):
    """What is wrong with a file. `name` is that of the column, if it is one."""

    def __init__(self, message: str, name: str | None = None):
        super().__init__(message)
        self.name = name


def read_columns(file: Path, names: Sequence[str]) -> Columns:
    """Return the arrays of numbers that a file has under some names.

    Those of .csv and .parquet files are columns (N,), those of .npz files have any shape.

    **Raises:** `FormatError` for what is no such file, lacks a name, or has something else than
    numbers under it.
    """
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise FormatError(f"must end in {', '.join(_READERS)}, by which its format is known")
    try:
        return reader(file, names)
    except _UNREADABLE as error:
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise FormatError(f"cannot be read: {what.splitlines()[0]}") from error


def _check_names(names: Sequence[str], there: Sequence[str]) -> None:
    for name in names:
        if name not in there:
            shown = ", ".join(f"`{one}`" for one in there[:_SHOWN]) or "nothing"
            more = ", ..." if len(there) > _SHOWN else ""
            raise FormatError(f"has no `{name}`; it has {shown}{more}", name)
        if there.count(name) > 1:
            raise FormatError(f"has `{name}` {there.count(name)} times", name)


_SHOWN = 20
"""Names that a message lists, at most."""


def _npz(file: Path, names: Sequence[str]) -> Columns:
    with zipfile.ZipFile(file) as archive:
        members = archive.namelist()
        _check_names(names, [m.removesuffix(".npy") for m in members if m.endswith(".npy")])
        count = sum(_numbers_in(archive, name) for name in names)
    check_memory(file.name, count, at_once=2)
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names}


def _numbers_in(archive: zipfile.ZipFile, name: str) -> int:
    """Return how many numbers an array in an archive has, by its header, which is checked."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise FormatError(
                f"has `{name}` in a format of NumPy's that is not read, {version}", name
            )
        shape, _, dtype = _HEADERS[version](member)
        size = info.file_size - member.tell()
    if dtype.hasobject:
        raise FormatError(f"has objects of Python in `{name}`, which must be numbers", name)
    if dtype.kind not in "fiu":
        raise FormatError(f"has values of dtype {dtype} in `{name}`, which must be numbers", name)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size:
        raise FormatError(
            f"has `{name}` with a shape, {shape}, that does not go with its size", name
        )
    return math.prod(shape)


_HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _csv(file: Path, names: Sequence[str]) -> Columns:
    with file.open(newline="", encoding="utf-8-sig") as text:  # some editors write a mark first
        rows = csv.reader(text, strict=True)
        header = [name.strip() for name in next(rows, [])]
        _check_names(names, header)
        columns = {name: array("d") for name in names}
        places = [(name, header.index(name)) for name in names]
        empty = 0
        for row in rows:
            if not row:
                empty = empty or rows.line_num
                continue
            if empty:
                raise FormatError(f"has an empty line, {empty}, before its end")
            if len(row) != len(header):
                expected = f"{len(header)} cells, as its first line"
                raise FormatError(
                    f"has {len(row)} cells in line {rows.line_num}, and must have {expected}"
                )
            for name, place in places:
                columns[name].append(_number(row[place], name, rows.line_num))
            if rows.line_num % _OFTEN == 0:
                check_memory(file.name, rows.line_num * len(names), at_once=2)
    return {name: np.array(column) for name, column in columns.items()}


_OFTEN = 2**16
"""Lines of a .csv file after which it is looked whether as many fit into memory again."""


def _number(cell: str, name: str, line: int) -> float:
    try:
        number = math.nan if "_" in cell else float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        shown = repr(cell[:40])
        raise FormatError(
            f"has {shown} in line {line} of `{name}`, which must be finite numbers", name
        )
    return number


def _parquet(file: Path, names: Sequence[str]) -> Columns:
    try:
        from pyarrow import parquet, types
    except ImportError as error:
        raise FormatError("needs PyArrow: pip install 'tts-jax[data]'") from error
    with parquet.ParquetFile(file) as table:
        schema = table.schema_arrow
        _check_names(names, schema.names)
        for name in names:
            kind = schema.field(name).type
            if not (types.is_integer(kind) or types.is_floating(kind)):
                raise FormatError(
                    f"has values of type {kind} in `{name}`, which must be numbers", name
                )
        check_memory(file.name, table.metadata.num_rows * len(names), at_once=3)
        found = table.read(columns=list(names))
    for name in names:
        if found[name].null_count:
            raise FormatError(f"lacks {found[name].null_count} values of `{name}`", name)
    return {name: found[name].to_numpy() for name in names}


_READERS: dict[str, Callable[[Path, Sequence[str]], Columns]] = {
    ".npz": _npz,
    ".csv": _csv,
    ".parquet": _parquet,
}

_UNREADABLE = (
    *(OSError, ValueError, EOFError, LookupError, RuntimeError, csv.Error),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What a file that is damaged, or of another format, makes its reader raise. Errors of PyArrow are
among them, and UnicodeDecodeError is a ValueError."""
