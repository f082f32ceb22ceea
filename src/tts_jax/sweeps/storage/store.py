"""The store of a sweep: a Zarr group that xarray opens, written a chunk at a time.

A reader never sees a file that is half written. The status of a run is -1 until it has been made,
and the chunk of statuses is the last that a unit of work writes: that marks the unit as done. A
chunk ends in a checksum. The metadata of all arrays stand in one file, so that readers never see
half a change.
"""

import datetime
import itertools
import json
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import jax
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from ..._errors import Status
from ..errors import SweepError
from ..execution.layout import Index, Layout, Unit
from ..execution.variables import Variable
from ..study.grid import kind_of
from ..study.study import Study
from ..study.tables import TableError
from ..study.toml import study_from
from .coordinates import coordinates, floor_dimensions, floors

PENDING = -1
"""The status of a run that has not been made."""

_FORMAT = 1

_REMEMBER = 10.0
"""Seconds between two notes of how far a session has come."""


class Store:
    """The group of a sweep in a folder. Open it by `open_store` or `create_store`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._group = zarr.open_group(str(folder), mode="r+", use_consolidated=False)
        self._arrays: dict[str, Any] = {}

    @property
    def attributes(self) -> dict[str, Any]:
        return json.loads((self.folder / "zarr.json").read_bytes())["attributes"]

    @property
    def chunks(self) -> Index:
        return tuple(self.attributes["chunks"])

    def study(self) -> Study:
        """Return the study, built from its description.

        **Raises:** `SweepError` if it holds functions or classes that are not of this package.
        """
        try:
            return study_from(self.attributes["study"])
        except TableError as error:
            raise SweepError(
                f"the study of {self.folder} cannot be built from its description, "
                f"{error.message} Resume it in Python: call `tts.sweep` with the same arguments."
            ) from error

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
                if not self._whole(name, chunk, variable):
                    return everything
                self._array(name)[region]  # reading it looks at the checksums
        except Exception:  # whatever a damaged chunk makes the codecs say
            return everything
        return status == PENDING

    def _whole(self, name: str, chunk: Index, variable: Variable) -> bool:
        """Whether all files of a chunk are there: Zarr takes a missing file for an empty one."""
        sizes = self._array(name).chunks[len(chunk) :]
        parts = [range(-(-n // c)) for n, c in zip(variable.shape, sizes, strict=True)]
        return all(
            self.folder.joinpath(name, "c", *map(str, (*chunk, *rest))).exists()
            for rest in itertools.product(*parts)
        )

    def write(self, layout: Layout, unit: Unit, found: Mapping[str, np.ndarray]) -> None:
        """Write what the runs of a unit left, in their order on the first axis of each array."""
        region = layout.region(unit.chunk)
        for name, variable in layout.whole.items():
            if name not in found:
                continue
            shape = (*unit.mask.shape, *variable.shape)
            if np.all(unit.mask):
                block = np.full(shape, _empty(variable.dtype), variable.dtype)
            else:
                block = np.array(self._array(name)[region]).reshape(shape)
            filled = tuple(slice(0, n) for n in found[name].shape[1:])
            block[(..., *filled)][unit.mask] = found[name]
            self._array(name)[region] = block

    def repair(self) -> None:
        """Write the metadata again of those arrays where they cannot be read, from their copies in
        the one file that has all of them."""
        root = json.loads((self.folder / "zarr.json").read_bytes())
        for name, metadata in root["consolidated_metadata"]["metadata"].items():
            file = self.folder / name / "zarr.json"
            try:
                json.loads(file.read_bytes())
            except (OSError, ValueError):
                file.parent.mkdir(exist_ok=True)
                _write_json(file, metadata)

    def extend(self, layout: Layout) -> None:
        """Make room for the values that a study has more, and touch no run that is there."""
        for name, values, axis in coordinates(layout.study):
            self._grow(name, values.shape)
            if axis is not None:
                self._array(name)[...] = values
        if (self.folder / "floor").exists():
            values = floors(layout.study)
            self._grow("floor", values.shape)
            self._array("floor")[...] = values
        for name, variable in layout.whole.items():
            self._grow(name, (*layout.study.axes.shape, *variable.shape))
        self._publish(study=layout.study.description())

    def _grow(self, name: str, shape: tuple[int, ...]) -> None:
        if self._array(name).shape != shape:
            self._array(name).resize(shape)

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            array = self._group[name]
            # A chunk of nothing but failures is data, too.
            self._arrays[name] = array.with_config({"write_empty_chunks": True})  # pyright: ignore
        return self._arrays[name]

    def _publish(self, **attributes: Any) -> None:
        """Write attributes, and the metadata of all arrays, in the one file that readers see.

        Zarr would write the attributes first, without the metadata, and then both.
        """
        file = self.folder / "zarr.json"
        root = json.loads(file.read_bytes())
        root["attributes"] |= attributes
        names = sorted(path.parent.name for path in self.folder.glob("*/zarr.json"))
        root["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": {
                name: json.loads((self.folder / name / "zarr.json").read_bytes()) for name in names
            },
        }
        _write_json(file, root)

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
            self._publish(sessions=[*before, record | {"seconds": round(kept - began, 3)}])

        def note(**more: Any) -> None:
            record.update(more)
            if time.perf_counter() - kept > _REMEMBER:
                keep()

        keep()
        try:
            yield note
        finally:
            with suppress(OSError):  # a full disk has been told already
                keep()


def create_store(folder: Path, layout: Layout) -> Store:
    """Create a store, which others see only when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        zarr.create_group(str(half), overwrite=True)
        _fill(Store(half), layout)
        try:
            half.rename(folder)
        except OSError as error:
            if folder.exists():
                raise SweepError(f"another process has just made {folder}.") from error
            raise
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    return Store(folder)


def _write_json(file: Path, content: Any) -> None:
    """Write a file so that no reader sees half of it."""
    half = file.with_suffix(".partial")
    half.write_text(json.dumps(content, indent=1))
    half.replace(file)


def open_store(folder: Path) -> Store:
    """Open the store in a folder, to read. To write, hold it by `locked`.

    **Raises:** `SweepError` if there is none.
    """
    try:
        attributes = json.loads((folder / "zarr.json").read_bytes())["attributes"]
    except (OSError, ValueError, KeyError) as error:
        raise SweepError(f"{folder} holds no sweep.") from error
    if "study" not in attributes or attributes.get("format") != _FORMAT:
        raise SweepError(f"{folder} holds no sweep of this version of tts_jax.")
    return Store(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a store for writing, as long as the process lives.

    **Raises:** `SweepError` if another process holds it, or nothing can be written there.
    """
    # A moment: who asks whether it is held, `report`, holds it for as long.
    lock = filelock.FileLock(folder / ".lock", timeout=1)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise SweepError(f"another process is working on {folder}; wait for it to end.") from error
    except OSError as error:
        raise SweepError(f"cannot write to {folder}: {error.strerror or error}.") from error
    try:
        for half in folder.rglob("*.partial"):  # what a killed process was writing
            half.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _fill(store: Store, layout: Layout) -> None:
    group, study = store._group, layout.study
    zipped = [name for axis in study.axes.axes if len(axis.names) > 1 for name in axis.names]
    for name, values, axis in coordinates(study):
        dimensions = () if axis is None else (axis,)
        _make(group, name, values.shape, (4096,) * values.ndim, values.dtype, dimensions)
        store._array(name)[...] = values
    values = floors(study)
    if np.any(np.isfinite(values)):
        dimensions = floor_dimensions(study)
        _make(group, "floor", values.shape, (4096,) * values.ndim, values.dtype, dimensions)
        store._array("floor")[...] = values
    names = tuple(axis.dimension for axis in study.axes.axes)
    for name, variable in layout.whole.items():
        shape, chunks = (*study.axes.shape, *variable.shape), (*layout.chunks, *variable.shape)
        _make(group, name, shape, chunks, variable.dtype, (*names, *variable.axes))
    store._publish(
        format=_FORMAT,
        study=study.description(),
        chunks=list(layout.chunks),
        precision=study.precision,
        method=type(study.dynamics).__name__,
        statuses={"PENDING": PENDING, **{status.name: int(status) for status in Status}},
        sessions=[],
        # For xarray: those that have no axis of their name.
        coordinates=" ".join([*zipped, *dict(study.axes.fixed)]),
    )


def _make(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: np.dtype,
    dimensions: tuple[str, ...],
) -> None:
    text = dtype.kind in "OTU"
    group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=str if text else dtype,
        fill_value="" if text else _empty(dtype),
        dimension_names=dimensions,
        # A checksum around what was compressed: a chunk that is cut off or altered is not read.
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
    )


def _empty(dtype: np.dtype) -> Any:
    return np.nan if np.issubdtype(dtype, np.floating) else PENDING
