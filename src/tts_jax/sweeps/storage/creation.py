"""How a store comes to be: whole, or not at all."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from ..._errors import Status
from ..._files import HeldError, held, scratch_prefix
from ..errors import SweepError
from ..execution.layout import Layout
from .arrays import PENDING, empty, fixed_values, is_text
from .coordinates import FLOORS
from .root import Root, check_names, read_root
from .store import Store

_LONGEST = 4096
"""Values in a chunk of a coordinate."""


def create_store(folder: Path, layout: Layout) -> Store:
    """Create a store, which others see only when it is complete.

    The folder may be there, empty, or be a link to where it is to be.
    """
    place = Path(os.path.realpath(folder))
    place.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(place)
    with _scratch(place) as half:
        zarr.create_group(half)
        _fill(Store(half, Root({}, {})), layout, folder)
        try:
            half.rename(place)
        except OSError as error:
            if place.exists() and any(place.iterdir()):
                raise SweepError(f"another process has just made {folder}.") from error
            raise
    return Store(folder, read_root(folder))


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """Yield a new folder beside a place, which vanishes at the end unless it has been moved.

    It is held by a lock, so that others know whether the process that makes it is alive.
    """
    half = place.with_name(f"{scratch_prefix(place)}{uuid.uuid4().hex[:8]}")
    with held(_lock_of(half)):
        try:
            half.mkdir()
            yield half
        finally:
            shutil.rmtree(half, ignore_errors=True)


def _lock_of(half: Path) -> Path:
    return half.with_name(f"{half.name}.lock")


def _remove_leftovers(place: Path) -> None:
    """Remove what processes left that were killed while they made a store of this name."""
    for lock in place.parent.glob(f"{scratch_prefix(place)}*.lock"):
        with suppress(HeldError, OSError), held(lock):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)


def _fill(store: Store, layout: Layout, folder: Path) -> None:
    study = layout.study
    fixed = {name: (values, axes) for name, values, axes in fixed_values(layout)}
    if not np.any(np.isfinite(fixed[FLOORS[0]][0])):
        for name in FLOORS:
            fixed.pop(name)
    check_names([*fixed, *layout.whole], folder)
    for name, (values, axes) in fixed.items():
        sizes = (round(_LONGEST ** (1 / max(1, values.ndim))),) * values.ndim
        _make(store, name, values.shape, sizes, values.dtype, axes)[...] = values
    names = tuple(axis.dimension for axis in study.axes.axes)
    for name, variable in layout.whole.items():
        shape, chunks = (*study.axes.shape, *variable.shape), (*layout.chunks, *variable.shape)
        _make(store, name, shape, chunks, variable.dtype, (*names, *variable.axes))
    zipped = [name for axis in study.axes.axes if len(axis.names) > 1 for name in axis.names]
    store.publish_layout(
        layout,
        {name: values for name, (values, _) in fixed.items()},
        precision=study.precision,
        method=type(study.dynamics).__name__,
        statuses={"PENDING": PENDING, **{status.name: int(status) for status in Status}},
        sessions=[],
        # For xarray: those that have no axis of their name.
        coordinates=" ".join([*zipped, *dict(study.axes.fixed)]),
    )


def _make(
    store: Store,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: np.dtype,
    dimensions: tuple[str, ...],
) -> zarr.Array:
    return zarr.create_array(
        store.folder / name,
        shape=shape,
        chunks=chunks,
        dtype=str if is_text(dtype) else dtype,
        fill_value="" if is_text(dtype) else empty(dtype),
        dimension_names=dimensions,
        # See `check_arrays`: these are the only ones that are read.
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
    )
