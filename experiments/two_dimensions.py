"""An additive target in two inputs: full-batch descent at epsilon 1 and .01."""

from typing import Any

import jax
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from . import additive
from .runner import Row, Run

INPUTS = 2
SAMPLES = 1000
NETWORK = tts.AdditiveNetwork(tts.CubicStep(eta=additive.ETA))
TARGET = tts.AdditiveSteps(additive.JUMPS)


def problem(key: jax.Array) -> tts.EmpiricalProblem:
    return tts.sample_problem(key, NETWORK, TARGET, SAMPLES, inputs=INPUTS, loss="norm")


def data(run: Run) -> xr.Dataset:
    population = tts.AdditiveProblem(NETWORK, TARGET, INPUTS)
    return additive.train(run, problem, population, (INPUTS, additive.WIDTH))


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, panels = draw.figure(1, 3, size=(11, 4), sharey=True)
    edges = np.array([0.0, *additive.JUMPS, 1.0])
    level = np.add.outer(np.arange(4), np.arange(4))
    shown = (("start", 1.0), ("end", 1.0), ("end", 0.01))
    titles = ("start", r"$\varepsilon = 1$, 300 steps", r"$\varepsilon = 0.01$, 5000 steps")
    style = {"color": draw.COLOURS["flow"], "linewidth": 1.3, "alpha": 0.9}
    for axes, (time, epsilon), title in zip(panels, shown, titles, strict=True):
        axes.pcolormesh(edges, edges, level, cmap="Greys", vmin=0, vmax=11)
        u = data.u.sel(time=time, epsilon=epsilon).isel(repeat=0).values
        inside = [positions[(positions > 0) & (positions < 1)] for positions in u]
        axes.vlines(inside[0], 0, 1, **style)
        axes.hlines(inside[1], 0, 1, **style)
        outside = u.size - sum(map(len, inside))
        text = f"{title}\n{outside} of {u.size} neurons outside" if outside else title
        axes.set(title=text, xlabel="$x_1$", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    panels[0].set_ylabel("$x_2$")
    figure.colorbar(
        panels[0].collections[0], ax=panels, label="target $f^*$", shrink=0.8, ticks=range(7)
    ).ax.set_ylim(-0.5, 6.5)
    panels[0].plot([], [], **style, label="neurons")
    panels[0].legend(loc="upper left", framealpha=0.9, frameon=True)
    box, _ = additive.losses(data, title="two inputs, final loss")
    return {"two-dimensions.png": figure, "two-dimensions-boxplot.png": box}


def rows(data: xr.Dataset) -> list[Row]:
    return additive.rows(data)
