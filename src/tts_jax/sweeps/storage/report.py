"""What a store says of itself, and its export as one file."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import numpy as np
import xarray as xr

from ..._errors import Status
from ..errors import SweepError

_LARGEST = 2**31
"""Bytes that a variable may have in netCDF 3, as SciPy writes it."""


def open_sweep(folder: Path) -> xr.Dataset:
    """Open the Dataset in a store, numbers in increasing order; it is read when it is needed.

    **Raises:** `SweepError` if there is none, or its coordinates are damaged.
    """
    if not (folder / "zarr.json").exists():
        raise SweepError(f"{folder} holds no sweep.")
    with undamaged(folder):
        data = xr.open_zarr(str(folder), chunks=None)
        if "study" not in data.attrs:
            raise SweepError(f"{folder} holds no sweep.")
        order = [n for n in data.dims if n in data.indexes and data[n].dtype.kind in "fi"]
        return data.sortby([n for n in order if not data.indexes[n].is_monotonic_increasing])


@contextmanager
def undamaged(folder: Path) -> Iterator[None]:
    """Raise a `SweepError` that says what to do where something cannot be read."""
    try:
        yield
    except SweepError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise SweepError(
            f"{folder} is damaged ({what}); `tts-jax resume {folder}` makes it whole again."
        ) from error


def report(folder: Path) -> str:
    """Return a text on how far a sweep is, how its runs ended, and what that took."""
    data = open_sweep(folder)
    with undamaged(folder):
        statuses = data.status.values
    made = int(np.sum(statuses >= 0))
    lines = [
        f"{folder}: {data.attrs['method']}, {made} of {statuses.size} runs made"
        + ("" if made < statuses.size else ", complete")
    ]
    for code in sorted(set(statuses[statuses > 0].tolist())):
        count = int(np.sum(statuses == code))
        lines.append(f"  {count} ended with {Status(code).name}: {Status(code).message}")
    sessions = data.attrs["sessions"]
    runs, seconds = sum(s["runs"] for s in sessions), sum(s["seconds"] for s in sessions)
    if runs:
        last = sessions[-1]
        lines.append(
            f"  {seconds:.1f} s in {len(sessions)} session{'s' if len(sessions) > 1 else ''}, "
            f"{runs / max(seconds, 1e-9):.3g} runs per second, the last on {last['devices']} x "
            f"{last['device']} with JAX {last['versions']['jax']}"
        )
        if "efficiency" in last:
            share = f"{last['efficiency']:.2f}"
            lines.append(f"  efficiency {share}: mean over largest number of steps in a unit")
    if _busy(folder):
        lines.append("  a process is working on it now")
    elif made < statuses.size:
        lines.append(f"  go on with: tts-jax resume {folder}")
    return "\n".join(lines)


def export_netcdf(folder: Path, file: Path) -> None:
    """Write a sweep as one netCDF file, which appears only when it is complete."""
    data = open_sweep(folder)
    for name, values in data.variables.items():
        if values.nbytes >= _LARGEST:
            raise SweepError(
                f"`{name}` is {values.nbytes / 1e9:.1f} GB, and a netCDF file of this kind holds 2 "
                "GB of each variable: export parts of `xarray.open_zarr` yourself.",
                code=1,
            )
    with undamaged(folder):
        data = data.load()
    attributes = {
        name: value if isinstance(value, str | int | float) else json.dumps(value)
        for name, value in data.attrs.items()
    }
    half = file.with_name(f".{file.name}.half")
    try:
        for name, values in data.variables.items():
            if values.dtype == np.int64:
                # netCDF 3, for which SciPy is enough, does not have it.
                kind = np.int32 if np.all(abs(values.values) < 2**31) else np.float64
                data[name] = data[name].astype(kind)
        data.assign_attrs(attributes).to_netcdf(half, engine="scipy")
        half.replace(file)
    except OSError as error:
        raise SweepError(f"cannot write {file}: {error.strerror or error}.", code=1) from error
    finally:
        half.unlink(missing_ok=True)


def _busy(folder: Path) -> bool:
    """Whether a process holds the store for writing."""
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    except OSError:  # a folder that cannot be written has no writer
        return False
    lock.release()
    return False
