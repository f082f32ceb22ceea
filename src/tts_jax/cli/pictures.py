"""The pictures of `tts-jax plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .. import analyses
from .. import plot as draw
from .._files import whole
from ..sweeps.storage.opening import open_sweep, undamaged
from .errors import UsageError

_SUFFIXES = (".png", ".pdf", ".svg")


def picture(
    folder: Path,
    kind: str,
    over: Sequence[str],
    below: float | None,
    limit: Path | None,
    file: Path,
) -> Path:
    """Draw the sweep in a folder to a file, a PNG unless its name says otherwise; return it."""
    file = file if file.suffix else file.with_suffix(".png")
    if file.suffix not in _SUFFIXES:
        raise UsageError(f"{file} must end in one of {', '.join(_SUFFIXES)}.")
    data = open_sweep(folder)
    axes = _axes(data, over, 2 if kind == "phase" else 1)
    with undamaged(folder):
        data = data[[n for n in ("risk", "status", "floor", "recovered_below") if n in data]].load()
    if not np.any(data.status.values >= 0):
        raise UsageError(f"no run of {folder} has been made yet.")
    figure = {"phase": _phase, "risk": _risk, "box": _box}[kind](data, axes, below, limit)
    try:
        with whole(file, file.suffix) as half:
            figure.savefig(half)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}.") from error
    return file


def _axes(data: xr.Dataset, over: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the axes that are asked for, by default the first ones other than `seed`."""
    names = [str(name) for name in data.status.dims]
    for name in over:
        if name not in names:
            raise UsageError(f"there is no axis `{name}`; there are {', '.join(names)}.")
    chosen = tuple(over) or tuple(name for name in names if name != "seed")[:count]
    if len(chosen) != count:
        other = "risk or box" if count == 2 else "phase"
        raise UsageError(
            f"this picture needs --over with {count} of the axes {', '.join(names)}; "
            f"--kind {other} needs another number of them."
        )
    return chosen


def _title(data: xr.Dataset, over: tuple[str, ...]) -> str:
    """Return the title: the repetitions behind every point, and runs that failed or are missing."""
    counts = {n: data.sizes[n] for n in data.status.dims if n not in over}
    repeated = [f"{count} {n}{'s' if count > 1 else ''}" for n, count in counts.items()]
    method = str(data.attrs["method"])
    parts = [f"{method}, over {' and '.join(repeated)}" if repeated else method]
    for count, what in (
        (int((data.status > 0).sum()), "failed"),
        (int((data.status < 0).sum()), "not made yet"),
    ):
        if count:
            parts.append(f"{count} of {data.status.size} runs {what}")
    return "; ".join(parts)


def _phase(data: xr.Dataset, over: tuple[str, ...], below: float | None, limit: Path | None) -> Any:
    success = analyses.success(data, over, below=below)
    figure, axes = draw.figure(size=(7, 4.6))
    colours = draw.phase(axes, success)
    figure.colorbar(colours, ax=axes, label="share of runs that recover the target")
    axes.set_title(_title(data, over), fontsize=9)
    return figure


def _risk(data: xr.Dataset, over: tuple[str, ...], below: float | None, limit: Path | None) -> Any:
    figure, axes = draw.figure(size=(7, 4.6))
    colours = draw.fan(axes, analyses.bands(data, over))
    name = over[0]
    if colours is not None:
        figure.colorbar(colours, ax=axes, label=draw.LABELS.get(name, name))
    axes.plot([], [], color="0.4", label="median, and the middle 80 %")
    if limit is not None:
        with undamaged(limit):
            middle = analyses.bands(open_sweep(limit), quantiles=(0.5,))[0].load()
        above = middle.where(middle > 0)
        style = {"color": draw.COLOURS["limit"], "linestyle": (0, (2, 1.2)), "linewidth": 2.4}
        axes.plot(middle.tau, above, label=r"limit $\varepsilon, \eta \to 0$, median", **style)
    if "floor" in data and data.floor.ndim == 0:
        style = {"color": "0.6", "linewidth": 1, "linestyle": ":"}
        axes.axhline(float(data.floor), label="a neuron on each jump", **style)
    axes.set_title(_title(data, over), fontsize=9)
    axes.legend()
    return figure


def _box(data: xr.Dataset, over: tuple[str, ...], below: float | None, limit: Path | None) -> Any:
    name = over[0]
    final = data.risk.isel(tau=-1).where(data.status == 0)
    samples = [np.ravel(final.isel({name: i})) for i in range(data.sizes[name])]
    samples = [sample[sample > 0].tolist() for sample in samples]
    figure, axes = draw.figure(size=(7, 4.2))
    method = str(data.attrs["method"])
    kind = "SGD" if method == "SGD" else "flow"
    labels = draw.tick_labels(data, name)
    draw.boxes(axes, {method: samples}, labels=labels, kinds=[kind])
    if sum(map(len, labels)) > 60:
        axes.tick_params(axis="x", rotation=30)
    edge = (
        analyses.threshold(data, below) if below is not None or "recovered_below" in data else None
    )
    if edge is not None and edge.ndim == 0:
        axes.axhline(float(edge), color="0.5", linewidth=1, linestyle=":", label="recovered below")
    tau = float(data.tau[-1])
    axes.set(xlabel=draw.LABELS.get(name, name), ylabel=rf"risk at $\tau = {tau:g}$")
    axes.set_title(_title(data, over), fontsize=9)
    axes.legend()
    return figure
