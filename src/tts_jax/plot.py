"""Pictures of saved data, in matplotlib. The functions take arrays, and simulate nothing.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; lines that share a
picture differ in their dashes too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure

from ._errors import argument_error, check_type
from ._numbers import as_floats, as_real, as_whole, shown

__all__ = [
    "COLOURS",
    "LABELS",
    "boxes",
    "fan",
    "figure",
    "fit",
    "neurons",
    "phase",
    "risks",
    "staircase",
    "tick_labels",
]


def __dir__() -> list[str]:
    return __all__


COLOURS = {
    "target": "#000000",
    "SGD": "#E69F00",
    "flow": "#0072B2",
    "reduced": "#009E73",
    "limit": "#CC79A7",
    "neuron": "#D55E00",
    "area": "#56B4E9",
}

STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "savefig.dpi": 150,
}


def figure(rows: int = 1, columns: int = 1, *, size: tuple[float, float], **kwargs: Any) -> tuple:
    """Return a figure of `size` inches and its rows x columns axes, in the style of the package.

    The figure is made without pyplot, so that no window opens and nothing global changes.
    """
    rows, columns = as_whole("rows", rows, most=100), as_whole("columns", columns, most=100)
    inches = as_floats("size", size)
    if inches.shape != (2,) or not np.all((inches > 0) & (inches < np.inf)):
        raise argument_error("size", "two positive numbers", shown(size))
    with mpl.rc_context(STYLE):
        made = Figure(figsize=tuple(inches.tolist()), layout="constrained")
        axes = made.subplots(rows, columns, **kwargs)
    return made, axes


def staircase(axes: Axes, jumps: Any, values: Any, **kwargs: Any) -> None:
    """Draw a piecewise constant function on [0, 1], with gaps instead of vertical strokes."""
    check_type("axes", axes, Axes)
    jumps, values = np.asarray(as_floats("jumps", jumps)), np.asarray(as_floats("values", values))
    if jumps.ndim != 1 or values.shape != (jumps.size + 1,):
        expected = f"one more than the jumps, which are of shape {jumps.shape}"
        raise argument_error("values", expected, f"of shape {values.shape}")
    edges = np.concatenate([[0.0], jumps, [1.0]])
    x = np.ravel(np.column_stack([edges[:-1], edges[1:], edges[1:]]))
    y = np.ravel(np.column_stack([values, values, np.full(np.size(values), np.nan)]))
    axes.plot(x, y, **{"color": COLOURS["target"], "linewidth": 2.2, **kwargs})


def fit(axes: Axes, x: Any, f: Any, *, jumps: Any, values: Any, u: Any, label: str) -> None:
    """Draw a network over a piecewise constant target, with its neurons marked below."""
    staircase(axes, jumps, values, label="target $f^*$")
    check_type("label", label, str)
    x, f = np.asarray(as_floats("x", x)), np.asarray(as_floats("f", f))
    if x.ndim != 1 or x.shape != f.shape:
        raise argument_error("f", f"a number for each x, of shape {x.shape}", f"of {f.shape}")
    axes.plot(x, f, color=COLOURS["flow"], linestyle=(0, (5, 1.5)), label=label)
    neurons(axes, u)
    axes.set(xlim=(0, 1), xlabel="input $x$")


def neurons(axes: Axes, u: Any, *, height: float = 0.045, **kwargs: Any) -> None:
    """Draw the inner positions as triangles along the lower edge of the axes."""
    check_type("axes", axes, Axes)
    u = np.asarray(as_floats("u", u))
    style = {"color": COLOURS["neuron"], "marker": "^", "linestyle": "none", "markersize": 5.5}
    axes.plot(
        np.ravel(u),
        np.full(u.size, as_real("height", height)),
        transform=axes.get_xaxis_transform(),
        **{**style, "label": "neurons $u_j$", **kwargs},
    )


def risks(axes: Axes, curves: Mapping[str, tuple[Any, Any, str]]) -> None:
    """Draw risks against slow time, on a logarithmic axis.

    `curves`: from the label of a curve to (tau, risk, a key of `COLOURS`).
    """
    dashes = {"SGD": "-", "flow": (0, (6, 2)), "reduced": (0, (3, 1.5)), "limit": (0, (1, 1.2))}
    check_type("axes", axes, Axes)
    check_type("curves", curves, Mapping)
    for label, curve in curves.items():
        if not isinstance(curve, tuple | list) or len(curve) != 3 or curve[2] not in [*dashes]:
            expected = f"from labels to (tau, risk, one of {', '.join(dashes)})"
            raise argument_error("curves", expected, f"{label!r}: {shown(curve)}")
        tau, risk = (np.asarray(as_floats("curves", part)) for part in curve[:2])
        kind = curve[2]
        if tau.ndim != 1 or tau.shape != risk.shape:
            got = f"{label!r}: shapes {tau.shape} and {risk.shape}"
            raise argument_error("curves", "of a risk for each tau", got)
        above = np.where(risk > 0, risk, np.nan)
        axes.plot(tau, above, color=COLOURS[kind], linestyle=dashes[kind], label=label)
    axes.set(yscale="log", xlabel=r"slow time $\tau = \varepsilon t$", ylabel="risk $L$")


def boxes(
    axes: Axes,
    groups: Mapping[str, Sequence[Sequence[float]]],
    *,
    labels: Sequence[str],
    kinds: Sequence[str],
) -> None:
    """Draw boxplots on a logarithmic axis, every run a dot: groups side by side at each label."""
    check_type("axes", axes, Axes)
    check_type("groups", groups, Mapping)
    if len(kinds) != len(groups) or not set(kinds) <= set(COLOURS):
        raise argument_error("kinds", f"a colour of {', '.join(COLOURS)} a group", shown(kinds))
    for name, samples in groups.items():
        if len(samples) != len(labels):
            raise argument_error("groups", f"of {len(labels)} samples each", f"{name!r}: other")
    width = 0.7 / max(1, len(groups))
    for i, ((name, samples), kind) in enumerate(zip(groups.items(), kinds, strict=True)):
        places = np.arange(len(labels)) + (i - (len(groups) - 1) / 2) * (width + 0.05)
        colour = COLOURS[kind]
        axes.boxplot(
            [np.asarray(sample) for sample in samples],
            positions=places,
            widths=width * 0.85,
            showfliers=False,
            medianprops={"color": colour, "linewidth": 2.2},
            boxprops={"color": colour},
            whiskerprops={"color": colour},
            capprops={"color": colour},
        )
        for place, sample in zip(places, samples, strict=True):
            spread = np.linspace(-0.25, 0.25, len(sample)) * width
            axes.plot(place + spread, sample, "o", color=colour, markersize=3.5, alpha=0.7)
        axes.plot([], [], "o-", color=colour, label=name)
    axes.set_xticks(np.arange(len(labels)), labels)
    axes.set(yscale="log")


LABELS = {
    "epsilon": r"ratio of step sizes $\varepsilon$",
    "eta": r"transition width $\eta$",
    "width": "width $m$",
    "step_size": "step size $h$",
    "noise": "noise $s$",
    "seed": "start (seed)",
    "target": "target",
}
"""The labels of the axes of a sweep in a picture."""

_ANNOTATED = 150
"""The most cells of a phase diagram that have room for a number."""


def phase(axes: Axes, success: xr.Dataset) -> Any:
    """Draw a phase diagram: the probability in `analyses.success` over two axes, as colours.

    If there is room, every cell says how many of its runs succeeded. Returns the mesh, for a
    colour bar.
    """
    check_type("axes", axes, Axes)
    check_type("success", success, xr.Dataset)
    needed = {"probability", "successes", "runs"}
    if not needed <= set(success) or success.probability.ndim != 2:
        raise argument_error("success", "of `analyses.success` over two axes", "another Dataset")
    across, up = success.probability.dims[0], success.probability.dims[1]
    drawn = axes.pcolormesh(
        np.arange(success.sizes[across]),
        np.arange(success.sizes[up]),
        success.probability.values.T,
        vmin=0.0,
        vmax=1.0,
        cmap="cividis",
        shading="nearest",
    )
    if success.probability.size <= _ANNOTATED:
        for (i, j), p in np.ndenumerate(success.probability.values):
            text = f"{int(success.successes[i, j])}/{int(success.runs[i, j])}"
            colour = "white" if p < 0.55 else "black"
            if np.isfinite(p):
                axes.text(i, j, text, ha="center", va="center", fontsize=7, color=colour)
    for axis, name in ((axes.xaxis, across), (axes.yaxis, up)):
        _ticks(axis, success, str(name))
    return drawn


def _ticks(axis: Any, data: xr.Dataset, name: str) -> None:
    """Set ticks at some of the places 0, 1, ... with the values of a coordinate."""
    count = data.sizes[name]
    spacings = range(-(-count // 7), count)
    # A spacing with ticks at both ends, if there is one.
    spacing = next((s for s in spacings[: 1 + count // 4] if (count - 1) % s == 0), -(-count // 7))
    shown = np.arange(0, count, spacing)
    axis.set_ticks(shown, [tick_labels(data, name)[i] for i in shown])
    axis.set_label_text(LABELS.get(name, name))


def tick_labels(data: xr.Dataset | xr.DataArray, name: str) -> list[str]:
    """Return the values on an axis of a sweep, as words or as numbers in few digits.

    A label on an axis of several coordinates, which a grid zips, has the values of all.
    """
    check_type("data", data, (xr.Dataset, xr.DataArray))
    if not isinstance(name, str) or name not in data.sizes:
        raise argument_error("name", f"one of the axes {list(data.sizes)}", shown(name))
    coordinates = [data[n].values for n in data.coords if data[n].dims == (name,)]
    columns = coordinates or [np.arange(data.sizes[name])]
    return [", ".join(map(_short, values)) for values in zip(*columns, strict=True)]


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.2g}" if value % 1 else f"{value:g}"


_FADE = LinearSegmentedColormap.from_list(
    "fade", mpl.colormaps["viridis_r"](np.linspace(0.1, 1.0, 256))
)
"""Ordered colours that print well, without the lightest ones, which are hard to see on white."""

_FEW = 6
"""The most curves that are in the legend; more of them have a colour bar."""


def fan(axes: Axes, bands: xr.DataArray) -> ScalarMappable | None:
    """Draw `analyses.bands` over one axis, the risk against slow time: middle and outer quantiles.

    Every value of the axis has a colour, in order. Returns the colours, for a colour bar, or None
    for a few values and for words, which are in the legend.
    """
    check_type("axes", axes, Axes)
    check_type("bands", bands, xr.DataArray)
    names = [str(axis) for axis in bands.dims if axis not in ("quantile", "tau")]
    if bands.ndim != 3 or len(names) != 1 or bands.sizes["quantile"] != 3:
        expected = "three quantiles of `analyses.bands` over one axis"
        raise argument_error("bands", expected, f"of sizes {dict(bands.sizes)}")
    (name,) = names
    labels = tick_labels(bands, name)
    numbers = name in bands.coords and bands[name].dtype.kind in "fi"
    values = np.asarray(bands[name].values if numbers else np.arange(len(labels)), float)
    log = values.min() > 0 and values.max() > 10 * values.min()
    scale = (LogNorm if log else Normalize)(values.min(), values.max())
    bar = ScalarMappable(scale, _FADE) if numbers and values.size > _FEW else None
    colours = ScalarMappable(Normalize(0, max(1, values.size - 1)), _FADE) if bar is None else bar
    for i, label in enumerate(labels):
        low, middle, high = bands.isel({name: i}).transpose("quantile", "tau").values
        colour = colours.to_rgba(np.asarray(i if bar is None else values[i]))
        axes.fill_between(bands.tau, low, high, color=colour, alpha=0.15, linewidth=0)
        entry = f"{LABELS.get(name, name)} = {label}" if bar is None else None
        axes.plot(bands.tau, middle, color=colour, linewidth=1.6, label=entry)
    axes.set(yscale="log", xlabel=r"slow time $\tau = \varepsilon t$", ylabel="risk $L$")
    axes.margins(x=0.01)
    return bar
