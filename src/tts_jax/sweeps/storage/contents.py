"""What lies in the folder of a store: nothing in it leads elsewhere, and nothing is missing."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import SweepError
from ..execution.layout import Index
from ..execution.variables import Variable
from ..study.grid import Kind
from .arrays import chunk_sizes
from .root import PARTIAL, Root, damaged


def check_links(folder: Path) -> None:
    """Raise `SweepError` if anything inside a store is neither a folder nor a plain file.

    A link would have its target read, or written, in place of what it stands for.
    """
    for entry in _entries(folder):
        if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
            raise SweepError(
                f"{entry.path} is a link, or no file: a store holds neither. Remove it, and look "
                "where the store came from."
            )


def remove_partial(folder: Path, names: Iterable[str]) -> None:
    """Remove what a killed process was writing: in the folder and its arrays, and nothing else."""
    inside = (file for name in names for file in (folder / name).rglob("*"))
    for file in [*folder.iterdir(), *inside]:
        if PARTIAL.fullmatch(file.name):
            file.unlink(missing_ok=True)


def chunk_files(name: str, chunk: Index, lengths: Iterable[int], sizes: Iterable[int]) -> list[str]:
    """Return the files, below the folder, of what the runs of a chunk left under a name.

    **Arguments:** the lengths of what a run leaves, and those of a chunk along them.
    """
    parts = [range(-(-length // size)) for length, size in zip(lengths, sizes, strict=True)]
    return [
        os.path.join(name, "c", *map(str, (*chunk, *rest))) for rest in itertools.product(*parts)
    ]


def describe_kinds(
    variables: Mapping[Kind, Mapping[str, Variable]],
) -> list[dict[str, Any]]:
    """Return a table of what runs of each width and target leave, for `check_whole`."""
    return [
        {
            "width": width,
            "target": label,
            "lengths": {name: list(variable.shape) for name, variable in found.items()},
        }
        for (width, label), found in variables.items()
    ]


def check_whole(folder: Path, root: Root, data: xr.Dataset) -> None:
    """Raise `SweepError` if a file is missing of a run that has a status.

    `data`: the Dataset as it is stored, with its statuses loaded before: runs that are made
    meanwhile do not count.
    """
    layout = root.attributes["layout"]
    lengths = {(k["width"], k["target"]): k["lengths"] for k in layout["kinds"]}
    sizes = {name: chunk_sizes(metadata) for name, metadata in root.arrays.items()}
    statuses, chunks = data.status.values, tuple(layout["chunks"])
    counts = [-(-n // size) for n, size in zip(statuses.shape, chunks, strict=True)]
    for chunk in np.ndindex(*counts):
        corner = tuple(i * size for i, size in zip(chunk, chunks, strict=True))
        region = tuple(slice(c, c + size) for c, size in zip(corner, chunks, strict=True))
        if not np.any(statuses[region] >= 0):
            continue
        for name, shape in lengths[_kind_at(data, corner)].items():
            for file in chunk_files(name, chunk, shape, sizes[name][len(chunk) :]):
                if not (folder / file).is_file():
                    raise damaged(folder, f"{file} is missing")


def hash_of(values: Mapping[str, np.ndarray]) -> str:
    """Return a hash of the values of coordinates by their names."""
    listed = {name: np.asarray(found).tolist() for name, found in values.items()}
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def _kind_at(data: xr.Dataset, corner: Index) -> Kind:
    """The width and the target at a place of the grid, which are those of its whole chunk."""
    place = dict(zip(data.status.dims, corner, strict=True))
    found = {}
    for name in ("width", "target"):
        if name in data.coords:
            values = data[name].variable
            found[name] = values.values[tuple(place[dim] for dim in values.dims)]
    return int(found["width"]), str(found["target"]) if "target" in found else None


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    """Everything below a folder. No link is followed; what vanishes meanwhile was temporary."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                found = list(entries)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise SweepError(f"cannot read {folder}: {error.strerror or error}.") from error
        for entry in found:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
