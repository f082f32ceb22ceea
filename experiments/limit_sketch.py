"""The limit: the outer layer is fitted, and the flanking neurons of each jump move to it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from .notations import TARGET
from .paper import fine_grid
from .runner import Row, Run

PROBLEM = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=1e-3)), TARGET)


def data(run: Run) -> xr.Dataset:
    u = jnp.array([0.13, 0.22, 0.43, 0.52, 0.58, 0.7, 0.91])
    params = tts.Params(PROBLEM.best_outer(u), u)
    velocity = -jax.grad(PROBLEM.risk)(params).u
    x = fine_grid(np.asarray(u), 1e-3, TARGET)
    return xr.Dataset(
        {
            "f": ("x", np.asarray(PROBLEM.predict(params, jnp.asarray(x)))),
            "u": ("neuron", np.asarray(u)),
            "velocity": ("neuron", np.asarray(velocity), {"clock": "slow time tau"}),
        },
        coords={"x": x},
    )


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, axes = draw.figure(size=(7, 4))
    values, jumps = np.asarray(TARGET.values), np.asarray(TARGET.jumps)
    wanted = values[np.searchsorted(jumps, data.x.values, side="right")]
    axes.fill_between(
        data.x, data.f, wanted, color=draw.COLOURS["area"], alpha=0.35, linewidth=0, label="error"
    )
    draw.fit(axes, data.x, data.f, jumps=jumps, values=values, u=data.u, label="network $f$")
    scale = 0.09 / np.abs(data.velocity.values).max()
    moving = np.abs(data.velocity.values) > 1e-3 * np.abs(data.velocity.values).max()
    for position, speed in zip(data.u.values[moving], data.velocity.values[moving], strict=True):
        axes.annotate(
            "",
            (position + scale * speed, -0.03),
            (position, -0.03),
            arrowprops={"arrowstyle": "-|>", "color": draw.COLOURS["neuron"], "linewidth": 1.8},
        )
    axes.plot([], [], color=draw.COLOURS["neuron"], marker=">", label=r"velocity $du_j/d\tau$")
    axes.set(ylim=(-0.15, 1.35), ylabel="output")
    axes.legend(loc="upper center", ncols=3)
    return {"limit-sketch.png": figure}


def rows(data: xr.Dataset) -> list[Row]:
    """The velocities against the closed form of the limit eta -> 0."""
    found = []
    velocity = data.velocity.values
    heights, jumps = np.diff(TARGET.values), np.asarray(TARGET.jumps)
    flanking = []
    for jump, height in zip(jumps, heights, strict=True):
        i = int(np.searchsorted(data.u.values, jump)) - 1
        d_left, d_right = jump - data.u.values[i], data.u.values[i + 1] - jump
        for j, other, sign in ((i, d_right, 1.0), (i + 1, d_left, -1.0)):
            limit = sign * (height * other / (d_left + d_right)) ** 2
            flanking.append(j)
            what = f"velocity of neuron {j + 1} over its limit for eta to 0"
            found.append(Row(what, velocity[j] / limit, 0.97, 1.03))
    rest = np.delete(velocity, flanking)
    found.append(Row("largest speed of the other neurons", np.abs(rest).max(), 0.0, 1e-6))
    return found
