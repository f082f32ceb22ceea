"""The pictures of `tts-jax plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .. import analyses
from .. import plot as draw
from ..sweeps.report import open_sweep
from .errors import UsageError


def picture(
    folder: Path,
    kind: str,
    over: Sequence[str],
    below: float | None,
    limit: Path | None,
    file: Path,
) -> None:
    """Draw the sweep in a folder to a file."""
    data = open_sweep(folder)
    if not np.any(data.status.values >= 0):
        raise UsageError(f"no run of {folder} has been made yet.")
    axes = _axes(data, over, 2 if kind == "phase" else 1)
    figure = {"phase": _phase, "risk": _risk, "box": _box}[kind](data, axes, below, limit)
    half = file.with_name(f".{file.stem}.half{file.suffix}")
    figure.savefig(half)
    half.replace(file)


def _axes(data: xr.Dataset, over: Sequence[str], count: int) -> tuple[str, ...]:
    """The axes that are asked for, or the first ones that hold no repetitions."""
    found = tuple(over) or tuple(str(n) for n in data.status.dims if n != "seed")[:count]
    unknown = [name for name in found if name not in data.status.dims]
    if len(found) != count or unknown:
        names = ", ".join(map(str, data.status.dims))
        raise UsageError(f"this picture needs --over with {count} of the axes {names}.")
    return found


def _phase(data: xr.Dataset, over: tuple[str, ...], below: float | None, limit: Path | None) -> Any:
    success = analyses.success(data, over, below=below)
    figure, axes = draw.figure(size=(7, 4.6))
    colours = draw.phase(axes, success)
    figure.colorbar(colours, ax=axes, label="share of runs that recover the target")
    return figure


def _risk(data: xr.Dataset, over: tuple[str, ...], below: float | None, limit: Path | None) -> Any:
    figure, axes = draw.figure(size=(7, 4.6))
    colours = draw.fan(axes, analyses.bands(data, over))
    name = over[0]
    figure.colorbar(colours, ax=axes, label=draw.LABELS.get(name, name))
    axes.plot([], [], color="0.4", label="median, and the middle 80 %")
    if limit is not None:
        middle = analyses.bands(open_sweep(limit), quantiles=(0.5,))[0]
        above = middle.where(middle > 0)
        style = {"color": draw.COLOURS["limit"], "linestyle": (0, (2, 1.2)), "linewidth": 2.4}
        axes.plot(middle.tau, above, label=r"limit $\varepsilon, \eta \to 0$, median", **style)
    if "floor" in data and data.floor.ndim == 0:
        axes.axhline(float(data.floor), color="0.6", linewidth=1, linestyle=":")
        axes.plot([], [], color="0.6", linewidth=1, linestyle=":", label="a neuron on each jump")
    axes.legend()
    return figure


def _box(data: xr.Dataset, over: tuple[str, ...], below: float | None, limit: Path | None) -> Any:
    name = over[0]
    final = data.risk.isel(tau=-1).where(data.status >= 0)
    samples = [np.ravel(final.isel({name: i})) for i in range(data.sizes[name])]
    samples = [sample[np.isfinite(sample)].tolist() for sample in samples]
    figure, axes = draw.figure(size=(7, 4.2))
    values = data[name].values if name in data.coords else np.arange(data.sizes[name])
    method = str(data.attrs["method"])
    kind = "SGD" if method == "SGD" else "flow"
    draw.boxes(axes, {method: samples}, labels=draw.tick_labels(values), kinds=[kind])
    edge = analyses.threshold(data, below) if below is not None or "floor" in data else None
    if edge is not None and edge.ndim == 0:
        axes.axhline(float(edge), color="0.5", linewidth=1, linestyle=":", label="recovered below")
    tau = float(data.tau[-1])
    axes.set(xlabel=draw.LABELS.get(name, name), ylabel=rf"risk at $\tau = {tau:g}$")
    axes.legend()
    return figure
