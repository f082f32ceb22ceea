"""The arrays of a store: what a layout makes, and whether a root that was found says the same."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SweepError
from ..execution.layout import Layout
from .coordinates import FLOORS, coordinates, floor_dimensions, floors

PENDING = -1
"""The status of a run that has not been made."""

_CODECS = ["zstd", "crc32c"]
"""A checksum around what was compressed: a chunk that is cut off or altered is not read."""


def fixed_values(layout: Layout) -> Iterator[tuple[str, np.ndarray, tuple[str, ...]]]:
    """Yield names, values and dimensions of what stands in a store before the first run: the
    coordinates, and the floors."""
    for name, values, axis in coordinates(layout.study):
        yield name, values, () if axis is None else (axis,)
    for name, values in floors(layout.study).items():
        yield name, values, floor_dimensions(layout.study)


def check_arrays(folder: Path, found: Mapping[str, Any], layout: Layout) -> None:
    """Raise `SweepError` unless the metadata that were found, by name, are those of the arrays
    that a layout makes."""
    expected = _expected(layout)
    if not set(FLOORS) & set(found):
        for name in FLOORS:
            expected.pop(name)
    complaint = f"{folder} is no store that this version of tts_jax makes of its study: "
    if set(found) != set(expected):
        names = ", ".join(f"`{name}`" for name in sorted(set(found) ^ set(expected)))
        raise SweepError(f"{complaint}one of the two has {names}, and the other does not.")
    for name, asked in expected.items():
        said = _said(found[name], len(layout.chunks))
        for what, value in asked.items():
            if said.get(what) != value:
                there = f"`{name}` has {what} {said.get(what)}, and not {value}"
                raise SweepError(f"{complaint}{there}.")


def _expected(layout: Layout) -> dict[str, dict[str, Any]]:
    """What a store says of each array that a layout makes, in the words of `_said`."""
    study, dimensions = layout.study, [axis.dimension for axis in layout.study.axes.axes]
    sizes = dict(zip(dimensions, study.axes.shape, strict=True))
    fixed = [
        (name, list(values.shape), [] if axis is None else [axis], values.dtype)
        for name, values, axis in coordinates(study)
    ]
    axes = list(floor_dimensions(study))
    shape = [sizes[axis] for axis in axes]
    fixed += [(name, shape, axes, np.dtype("float64")) for name in FLOORS]
    found: dict[str, dict[str, Any]] = {}
    for name, shape, axes, dtype in fixed:
        kind, codec = ("string", "vlen-utf8") if is_text(dtype) else (dtype.name, "bytes")
        codecs = [codec, *_CODECS]
        found[name] = {"shape": shape, "dimensions": axes, "type": kind, "codecs": codecs}
    for name, variable in layout.whole.items():
        found[name] = {
            "shape": [*study.axes.shape, *variable.shape],
            "dimensions": [*dimensions, *variable.axes],
            "type": variable.dtype.name,
            "codecs": ["bytes", *_CODECS],
            "chunks": list(layout.chunks),
        }
    return found


def _said(metadata: Any, axes: int) -> dict[str, Any]:
    """What the metadata of an array say of it, with the lengths of chunks along the first axes."""
    try:
        return {
            "shape": metadata["shape"],
            "dimensions": metadata.get("dimension_names") or [],
            "type": metadata["data_type"],
            "codecs": [codec["name"] for codec in metadata["codecs"]],
            "chunks": chunk_sizes(metadata)[:axes],
        }
    except (KeyError, TypeError, AttributeError):
        return {}


def chunk_sizes(metadata: Mapping[str, Any]) -> list[int]:
    """Return the lengths of the chunks of an array, from its metadata."""
    return list(metadata["chunk_grid"]["configuration"]["chunk_shape"])


def is_text(dtype: np.dtype) -> bool:
    """Return whether the values of an array, of which this is the dtype, are words."""
    return dtype.kind in "OTU"


def empty(dtype: np.dtype) -> Any:
    """Return what stands in a variable where no run has been made."""
    return np.nan if np.issubdtype(dtype, np.floating) else PENDING
