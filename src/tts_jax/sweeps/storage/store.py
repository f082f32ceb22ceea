"""The store of a sweep: a Zarr group that xarray opens, written a chunk at a time.

A reader never sees a file that is half written. The status of a run is -1 until it has been made,
and the chunk of statuses is the last that a unit of work writes: that marks the unit as done. A
chunk ends in a checksum. The metadata of all arrays stand in one file, the root, so that readers
never see half a change.

Of the files only those are read and written whose names a study makes.
"""

import datetime
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import zarr

from ..._files import HeldError, held
from ..errors import SweepError
from ..execution.layout import Index, Layout, Unit
from ..study.grid import kind_of
from ..study.study import Study
from ..study.tables import TableError
from ..study.toml import study_from
from .arrays import PENDING, check_arrays, empty, fixed_values
from .contents import (
    check_links,
    chunk_files,
    describe_kinds,
    hash_of,
    remove_partial,
)
from .root import FILE, Root, read_root, write_json, write_root

_LOCK = ".lock"

_REMEMBER = 10.0
"""Seconds between two notes of how far a session has come."""


class Store:
    """The group of a sweep in a folder. Open it by `open_store` or `create_store`."""

    def __init__(self, folder: Path, root: Root):
        self.folder, self._root = folder, root
        self._arrays: dict[str, Any] = {}
        self._lock: tuple[int, int] | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        return self._root.attributes

    def chunks(self, study: Study) -> Index:
        """Return the lengths of chunks on the axes of the grid of a study."""
        found = self._root.attributes["layout"].get("chunks")
        lengths = found if isinstance(found, list) else []
        if len(lengths) != len(study.axes.shape) or not all(
            type(length) is int and length > 0 for length in lengths
        ):
            raise SweepError(f"{self.folder} holds no sweep: its chunks are {found!r}.")
        return tuple(lengths)

    def study(self) -> Study:
        """Return the study, built from its description.

        **Raises:** `SweepError` if it holds functions or classes that are not of this package, or
        if the file that it takes its sample from has other numbers now.
        """
        try:
            return study_from(self.attributes["study"])
        except TableError as error:
            if error.path[:1] == ("data",):
                raise SweepError(
                    f"the data of {self.folder} cannot be read again: {error.message} Put back the "
                    "file, or call `tts-jax sweep` with a study that names it where it is now and "
                    "with this store."
                ) from error
            raise SweepError(
                f"the study of {self.folder} cannot be built from its description, "
                f"{error.message} Resume it in Python: call `tts.sweep` with the same arguments."
            ) from error

    def check(self, layout: Layout) -> None:
        """Raise `SweepError` unless the store has the arrays that a layout makes, and no other."""
        check_arrays(self.folder, self._root.arrays, layout)

    def pending(self, layout: Layout) -> list[tuple[Index, np.ndarray]]:
        """Return, for every chunk, which of its runs are to be made: all, if it is damaged."""
        chunks = layout.all_chunks()
        begun = np.ones(layout.study.axes.shape, bool)
        with suppress(Exception):  # damaged: then every chunk is looked at
            begun = np.asarray(self._array("status")[...]) != PENDING
        return [
            (chunk, self._pending(layout, chunk, begun[layout.region(chunk)])) for chunk in chunks
        ]

    def _pending(self, layout: Layout, chunk: Index, begun: np.ndarray) -> np.ndarray:
        region = layout.region(chunk)
        everything = np.ones(begun.shape, bool)
        if not np.any(begun):
            return everything
        try:
            status = np.asarray(self._array("status")[region])
            point = layout.study.axes.point([part.start for part in region])
            for name, variable in layout.variables[kind_of(point)].items():
                # Zarr takes a missing file for an empty one.
                sizes = self._array(name).chunks[len(chunk) :]
                files = chunk_files(name, chunk, variable.shape, sizes)
                if not all((self.folder / file).exists() for file in files):
                    return everything
                self._array(name)[region]  # reading it looks at the checksums
        except Exception:  # whatever a damaged chunk makes the codecs say
            return everything
        return status == PENDING

    def forget(self, layout: Layout, pending: Mapping[Index, np.ndarray]) -> None:
        """Tell readers which runs are to be made again: they lose their status."""
        for chunk, runs in pending.items():
            if np.all(runs) and self.folder.joinpath("status", "c", *map(str, chunk)).exists():
                self._array("status")[layout.region(chunk)] = PENDING

    def write(self, layout: Layout, unit: Unit, found: Mapping[str, np.ndarray]) -> None:
        """Write what the runs of a unit left, in their order on the first axis of each array."""
        self._check_place()
        region = layout.region(unit.chunk)
        for name, variable in layout.whole.items():
            if name not in found:
                continue
            shape = (*unit.mask.shape, *variable.shape)
            if np.all(unit.mask):
                block = np.full(shape, empty(variable.dtype), variable.dtype)
            else:
                block = np.array(self._array(name)[region]).reshape(shape)
            filled = tuple(slice(0, n) for n in found[name].shape[1:])
            block[(..., *filled)][unit.mask] = found[name]
            self._array(name)[region] = block

    def repair(self, layout: Layout) -> None:
        """Write the root again, and the metadata of arrays where they differ from it.

        To be called by who holds the store, with the layout that it has.

        **Raises:** `SweepError` if it has other arrays than the layout makes.
        """
        self.check(layout)
        self._lock = _identity(self.folder / _LOCK)
        remove_partial(self.folder, self._root.arrays)
        write_root(self.folder, self._root)
        for name, metadata in self._root.arrays.items():
            file = self.folder / name / FILE
            try:
                is_same = json.loads(file.read_bytes()) == metadata
            except (OSError, ValueError, RecursionError):
                is_same = False
            if not is_same:  # damaged, or of a process that was killed while it made room
                file.parent.mkdir(exist_ok=True)
                write_json(file, metadata)

    def extend(self, layout: Layout) -> None:
        """Make room for the values that a study has more, and touch no run that is there."""
        fixed = {n: values for n, values, _ in fixed_values(layout) if n in self._root.arrays}
        for name, values in fixed.items():
            self._grow(name, values.shape)
            self._array(name)[...] = values
        for name, variable in layout.whole.items():
            self._grow(name, (*layout.study.axes.shape, *variable.shape))
        self.publish_layout(layout, fixed)

    def publish_layout(
        self, layout: Layout, fixed: Mapping[str, np.ndarray], **attributes: Any
    ) -> None:
        """Publish a study and its layout, and the metadata of the arrays as they are now.

        `fixed`: the values of those arrays that are no variable of the runs.
        """
        names = (*fixed, *layout.whole)
        arrays = {name: json.loads((self.folder / name / FILE).read_bytes()) for name in names}
        self._root = Root(self._root.attributes, arrays)
        about: dict[str, Any] = {"chunks": list(layout.chunks)}
        about["kinds"] = describe_kinds(layout.variables)
        about["coordinates"] = hash_of(fixed)
        self.publish(study=layout.study.description(), layout=about, **attributes)

    def publish(self, **attributes: Any) -> None:
        """Write attributes into the one file that readers see."""
        self._check_place()
        self._root = Root(self._root.attributes | attributes, self._root.arrays)
        write_root(self.folder, self._root)

    def _grow(self, name: str, shape: tuple[int, ...]) -> None:
        if self._array(name).shape != shape:
            self._array(name).resize(shape)

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            array = zarr.open_array(self.folder / name, mode="r+")
            # A chunk of nothing but failures is data, too.
            self._arrays[name] = array.with_config({"write_empty_chunks": True})
        return self._arrays[name]

    def _check_place(self) -> None:
        """Raise `SweepError` if the folder that this process holds is there no more."""
        if self._lock is not None and _identity(self.folder / _LOCK) != self._lock:
            raise SweepError(
                f"{self.folder} has been moved or removed while this process was working on it. "
                "What was finished is in it: resume it where it is now.",
                code=1,
            )

    @contextmanager
    def session(self, devices: int) -> Iterator[Callable[..., None]]:
        """Keep a record of this process's work among the attributes, also if it is cut off.

        Yields a function that notes more of the work by name.
        """
        record: dict[str, Any] = {
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "device": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "devices": devices,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("tts-jax", "jax", "jaxlib", "diffrax")},
            },
            "runs": 0,
        }
        before = list(self.attributes["sessions"])
        began, kept = time.perf_counter(), 0.0

        def keep() -> None:
            nonlocal kept
            kept = time.perf_counter()
            self.publish(sessions=[*before, record | {"seconds": round(kept - began, 3)}])

        def note(**more: Any) -> None:
            record.update(more)
            if time.perf_counter() - kept > _REMEMBER:
                keep()

        keep()
        try:
            yield note
        finally:
            # A full disk has been told already, and so has a folder that was moved.
            with suppress(OSError, SweepError):
                keep()


def open_store(folder: Path) -> Store:
    """Open the store in a folder, to read. To write, hold it by `locked`, and `repair` it.

    **Raises:** `SweepError` if there is none.
    """
    check_links(folder)
    return Store(folder, read_root(folder, mend=True))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a store for writing, as long as the process lives.

    **Raises:** `SweepError` if another process holds it, or nothing can be written there.
    """
    with ExitStack() as stack:
        try:
            # A moment: who asks whether it is held, `is_held`, holds it for as long.
            stack.enter_context(held(folder / _LOCK, patience=1, keep=True))
        except HeldError as error:
            raise SweepError(f"another process is working on {folder}: {error}.") from error
        except OSError as error:
            raise SweepError(f"cannot write to {folder}: {error.strerror or error}.") from error
        yield


def is_held(folder: Path) -> bool:
    """Return whether a process holds a store for writing."""
    if not (folder / _LOCK).exists():
        return False
    try:
        with held(folder / _LOCK, keep=True):
            return False
    except HeldError:
        return True
    except OSError:  # a folder that cannot be written has no writer
        return False


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
