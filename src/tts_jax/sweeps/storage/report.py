"""What a store says of itself, and its export as one file."""

import json
from pathlib import Path

import numpy as np

from ..._errors import Status
from ..._files import whole
from ..errors import SweepError
from .opening import open_sweep, undamaged
from .root import resuming
from .store import is_held

_LARGEST = 2**31
"""Bytes that a variable may have in netCDF 3, as SciPy writes it."""


def report(folder: Path) -> str:
    """Return a text on how far a sweep is, how its runs ended, and what that took."""
    data = open_sweep(folder)
    statuses = data.status.values
    made = int(np.sum(statuses >= 0))
    lines = [
        f"{folder}: {data.attrs['method']}, {made} of {statuses.size} runs made"
        + ("" if made < statuses.size else ", complete")
    ]
    for code in sorted(set(statuses[statuses > 0].tolist())):
        count = int(np.sum(statuses == code))
        lines.append(f"  {count} ended with {Status(code).name}: {Status(code).message}")
    sessions = json.loads(data.attrs["sessions"])
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
    if is_held(folder):
        lines.append("  a process is working on it now")
    elif made < statuses.size:
        lines.append(f"  go on with {resuming(folder, json.loads(data.attrs['study']))}")
    return "\n".join(lines)


def export_netcdf(folder: Path, file: Path) -> None:
    """Write a sweep as one netCDF file, which appears only when it is complete."""
    if file.suffix != ".nc":
        raise SweepError(
            f"{file} must end in .nc: a sweep is written as netCDF only. For a table, such as CSV, "
            f"choose its variables in Python: `tts.open_sweep({str(folder)!r})"
            f'[["status", "steps"]].to_dataframe().to_csv({str(file)!r})`.'
        )
    data = open_sweep(folder)
    for name, values in data.variables.items():
        if values.nbytes >= _LARGEST:
            raise SweepError(
                f"`{name}` is {values.nbytes / 1e9:.1f} GB, and a netCDF file of this kind holds 2 "
                "GB of each variable: export parts of `tts.open_sweep` yourself.",
                code=1,
            )
    with undamaged(folder):
        data = data.load()
    for name, values in data.variables.items():
        if values.dtype == np.int64:
            # netCDF 3, for which SciPy is enough, does not have it.
            largest = np.max(np.abs(values.values), initial=0)
            if largest > 2**53:
                raise SweepError(
                    f"`{name}` has {largest}, which a netCDF file of this kind rounds."
                )
            data[name] = data[name].astype(np.int32 if largest < 2**31 else np.float64)
    try:
        with whole(file) as half:
            data.to_netcdf(half, engine="scipy")
    except OSError as error:
        raise SweepError(f"cannot write {file}: {error.strerror or error}.", code=1) from error
