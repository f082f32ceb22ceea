"""`open_sweep`: the Dataset in a store, after a look at whether all of it is there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xarray as xr

from ..._files import as_path
from ..errors import SweepError
from .contents import check_links, check_whole, hash_of
from .coordinates import FLOORS
from .root import Root, damaged, read_root

_TRIES = 20


def open_sweep(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open the store of a sweep to read, at any moment, also while a process works on it.

    Numbers come in increasing order. Statuses and coordinates are read at once, and everything else
    when it is needed: where a run has a status, all that it left is there. Where it is -1 the run
    has not been made, and what stands in its place says nothing.

    **Arguments:** `path`: the folder of the store.

    **Returns:** a Dataset as that of `sweep`.

    **Raises:** `SweepError` if there is no sweep, if a file of a run that was made is missing, if
    coordinates or attributes have been altered, or if the store holds links. What a chunk holds is
    compared with its checksum when it is read, which raises a `ValueError` or `RuntimeError`.
    """
    folder = as_path("path", path)
    check_links(folder)
    read_root(folder)
    with undamaged(folder):
        root, data = _opened(folder)
        # First: what it marks as done was there before it.
        data["status"].load()
        fixed = [str(n) for n in root.arrays if n in data.coords or n in FLOORS]
        if hash_of({n: data[n].load().values for n in fixed}) != _hash(root):
            raise damaged(folder, "the coordinates are not those of its study")
        check_whole(folder, root, data)
        order = [n for n in data.dims if n in data.indexes and data[n].dtype.kind in "fi"]
        return data.sortby([n for n in order if not data.indexes[n].is_monotonic_increasing])


def _opened(folder: Path) -> tuple[Root, xr.Dataset]:
    """The root and the Dataset of one moment."""
    for _ in range(_TRIES):
        root = read_root(folder)
        data = xr.open_zarr(str(folder), chunks=None, consolidated=True)
        if data.attrs.get("checksum") == root.document()["attributes"]["checksum"]:
            return root, data
    raise SweepError(f"{folder} changes faster than it can be read.")


def _hash(root: Root) -> str:
    return root.attributes["layout"]["coordinates"]


@contextmanager
def undamaged(folder: Path) -> Iterator[None]:
    """Raise a `SweepError` that says what to do where something cannot be read."""
    try:
        yield
    except SweepError:
        raise
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RuntimeError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise damaged(folder, what) from error
