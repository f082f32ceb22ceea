"""ReLU units and a teacher with three of them: full-batch descent at epsilon 1 and .01."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from . import additive
from .runner import Row, Run

SAMPLES = 1000
NETWORK = tts.ShallowNetwork(tts.ReLU(), bias=False)
TEACHER = tts.Teacher(
    NETWORK, tts.Params(a=np.array([1.0, -2.0, 3.0]), u=np.array([0.3, 0.5, 0.7]))
)


def problem(key: jax.Array) -> tts.EmpiricalProblem:
    return tts.sample_problem(key, NETWORK, TEACHER, SAMPLES, loss="norm")


def data(run: Run) -> xr.Dataset:
    data = additive.train(run, problem, tts.Problem(NETWORK, TEACHER), (additive.WIDTH,))
    x = np.linspace(0.0, 1.0, 401)
    data["f_star"] = ("x", np.asarray(TEACHER(jnp.asarray(x))))
    return data.assign_coords(x=x)


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, panels = draw.figure(1, 3, size=(11, 3.6), sharey=True)
    shown = (("start", 1.0), ("end", 1.0), ("end", 0.01))
    titles = ("start", r"$\varepsilon = 1$, 300 steps", r"$\varepsilon = 0.01$, 5000 steps")
    for axes, (time, epsilon), title in zip(panels, shown, titles, strict=True):
        picked = data.sel(time=time, epsilon=epsilon).isel(repeat=0)
        params = tts.Params(jnp.asarray(picked.a.values), jnp.asarray(picked.u.values))
        f = NETWORK(params, jnp.asarray(data.x.values))
        axes.plot(data.x, data.f_star, color=draw.COLOURS["target"], linewidth=2.2, label="target")
        axes.plot(data.x, f, color=draw.COLOURS["flow"], linestyle=(0, (5, 1.5)), label="network")
        draw.neurons(axes, picked.u)
        axes.set(title=title, xlabel="input $x$", xlim=(0, 1), ylim=(-0.6, 2.2))
    panels[0].set_ylabel("output")
    panels[1].legend(loc="upper left")
    box, _ = additive.losses(data, title="ReLU units, final loss")
    return {"relu.png": figure, "relu-boxplot.png": box}


def rows(data: xr.Dataset) -> list[Row]:
    return additive.rows(data)
