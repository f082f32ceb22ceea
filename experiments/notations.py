"""The notations: a target, a network, and what Delta v, Delta f and eta stand for."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from .paper import fine_grid
from .runner import Row, Run

TARGET = tts.PiecewiseConstant([0.35, 0.78], [0.1, 0.95, 0.65])
ETA = 0.1
NETWORK = tts.ShallowNetwork(tts.CubicStep(eta=ETA))


def data(run: Run) -> xr.Dataset:
    params = tts.Params(a=jnp.array([0.07, 0.5, 0.24, -0.34]), u=jnp.array([0.2, 0.4, 0.65]))
    x = fine_grid(np.asarray(params.u), ETA, TARGET)
    return xr.Dataset(
        {
            "f": ("x", np.asarray(NETWORK(params, jnp.asarray(x)))),
            "u": ("neuron", np.asarray(params.u)),
            "a": ("outer", np.asarray(params.a)),
        },
        coords={"x": x},
    )


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, axes = draw.figure(size=(7, 4))
    values, jumps = np.asarray(TARGET.values), np.asarray(TARGET.jumps)
    draw.fit(axes, data.x, data.f, jumps=jumps, values=values, u=data.u, label="network $f$")
    span = {"arrowstyle": "<->", "color": "0.25", "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}

    def mark(begin: tuple, end: tuple, text: str, place: tuple, align: str = "center") -> None:
        axes.annotate("", begin, end, arrowprops=span)
        axes.text(*place, text, ha=align, va="center", color="0.1")

    low = -0.1
    mark((jumps[0], low), (jumps[1], low), r"$\Delta v$", (jumps.mean(), low + 0.06))
    mark((0.38, values[0]), (0.38, values[1]), r"$\Delta f$", (0.395, 0.3), "left")
    left, right = data.u.values[0] - ETA / 2, data.u.values[0] + ETA / 2
    mark((left, 0.72), (right, 0.72), r"$\eta$", ((left + right) / 2, 0.78))
    axes.vlines([left, right], 0, 0.72, color="0.7", linewidth=0.8, linestyle=":")
    for k, jump in enumerate(jumps):
        axes.vlines(jump, low, values[k], color="0.7", linewidth=0.8, linestyle=":")
        axes.text(jump + 0.008, low + 0.025, f"$v_{k + 1}$", color="0.1")
    for j, position in enumerate(data.u.values):
        axes.text(position, -0.21, f"$u_{j + 1}$", ha="center", color=draw.COLOURS["neuron"])
    axes.set(ylim=(-0.3, 1.12), ylabel="output")
    axes.legend(loc="upper left", ncols=3)
    return {"notations.png": figure}


def rows(data: xr.Dataset) -> list[Row]:
    a = data.a.values
    return [
        Row("f at x = 0 is the bias", float(data.f[0]), a[0], a[0]),
        Row("f at x = 1 is the sum of a", float(data.f[-1]), a.sum() - 1e-12, a.sum() + 1e-12),
    ]
