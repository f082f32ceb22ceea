"""The two cases of the proof: all neurons far from the jump, and one within 2 eta of it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from .paper import fine_grid
from .runner import Row, Run

ETA = 0.05
TARGET = tts.PiecewiseConstant([0.5], [0.2, 0.9])
PROBLEM = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=ETA)), TARGET)
POSITIONS = (
    (0.13, 0.25, 0.37, 0.68, 0.75, 0.85, 0.91),
    (0.13, 0.25, 0.37, 0.545, 0.75, 0.85, 0.91),
)


def data(run: Run) -> xr.Dataset:
    u = np.array(POSITIONS)
    x = fine_grid(u, ETA, TARGET)
    f, risk = [], []
    for positions in jnp.asarray(u):
        params = tts.Params(PROBLEM.best_outer(positions), positions)
        f.append(np.asarray(PROBLEM.predict(params, jnp.asarray(x))))
        risk.append(float(PROBLEM.risk(params)))
    return xr.Dataset(
        {"f": (("case", "x"), np.stack(f)), "u": (("case", "neuron"), u), "risk": ("case", risk)},
        coords={"x": x},
    )


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, panels = draw.figure(1, 2, size=(9, 3.6), sharey=True)
    titles = ("no neuron within $2\\eta$ of the jump", "one neuron within $2\\eta$ of the jump")
    jumps, values = np.asarray(TARGET.jumps), np.asarray(TARGET.values)
    for i, axes in enumerate(panels):
        axes.axvspan(0.5 - 2 * ETA, 0.5 + 2 * ETA, color="0.9", linewidth=0)
        axes.text(0.5, 1.04, r"$v \pm 2\eta$", ha="center", color="0.35")
        draw.fit(
            axes, data.x, data.f[i], jumps=jumps, values=values, u=data.u[i], label="$f$, best $a$"
        )
        axes.set(title=titles[i], ylim=(0.0, 1.12))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    panels[0].set_ylabel("output")
    panels[1].legend(loc="lower right", bbox_to_anchor=(1.0, 0.12))
    return {"proof-sketch.png": figure}


def rows(data: xr.Dataset) -> list[Row]:
    """Two neurons at distances p and q of a jump w leave at least about w^2 p q / (p + q)."""
    wide = 0.7**2 * 0.13 * 0.18 / 0.31
    return [
        Row("risk, far, over its limit for eta to 0", float(data.risk[0]) / wide, 0.8, 1.0),
        Row("risk, near over far", float(data.risk[1] / data.risk[0]), 0.0, 0.5),
    ]
