"""Equal step sizes, epsilon = 1: SGD and the flow are stuck, and a jump stays uncovered."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from .paper import ETA, JUMPS, NOISE, PROBLEM, STEP_SIZE, TARGET, VALUES, fine_grid, start
from .runner import Row, Run

LABELS = {"SGD": r"SGD, $\varepsilon = 1$", "flow": r"gradient flow, $\varepsilon = 1$"}


def data(run: Run) -> xr.Dataset:
    taus = jnp.linspace(0.0, 10.0, 101)
    dynamics = {
        "SGD": tts.SGD(epsilon=1.0, step_size=STEP_SIZE, noise=NOISE),
        "flow": tts.GradientFlow(epsilon=1.0),
    }
    found = {}
    for name, how in dynamics.items():
        with run.progress(name) as progress:
            found[name] = tts.simulate(
                PROBLEM, how, start(), taus, key=jax.random.key(0), progress=progress
            )
    data = xr.concat(
        [trajectory.to_xarray()[["risk", "a", "u"]] for trajectory in found.values()],
        dim=xr.Variable("dynamics", list(found)),
    )
    nearest = [tts.metrics.nearest_neuron(t.final.u, TARGET) for t in found.values()]
    data["nearest"] = (("dynamics", "jump"), np.asarray(nearest))
    data["steps"] = int(found["SGD"].stats["steps"])
    return data


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, (fits, flow, risk) = draw.figure(1, 3, size=(12, 3.6), width_ratios=(1.2, 1.2, 1))
    for axes, name in ((fits, "SGD"), (flow, "flow")):
        final = data.sel(dynamics=name).isel(tau=-1)
        x = fine_grid(final.u.values, ETA, TARGET)
        params = tts.Params(jnp.asarray(final.a.values), jnp.asarray(final.u.values))
        f = PROBLEM.predict(params, jnp.asarray(x))
        draw.fit(axes, x, f, jumps=JUMPS, values=VALUES, u=final.u, label="network $f$")
        axes.set(title=rf"{LABELS[name]}, $\tau = 10$", ylim=(-0.4, 6.4), xlim=(0, 1))
        outside = int(np.sum((final.u.values < 0) | (final.u.values > 1)))
        if outside:
            axes.text(0.99, 0.1, f"{outside} outside", transform=axes.transAxes, ha="right")
    fits.set_ylabel("output")
    fits.legend(loc="upper center", ncols=3, columnspacing=0.8, handlelength=1.4, fontsize=9)
    draw.risks(risk, {LABELS[k]: (data.tau, data.risk.sel(dynamics=k), k) for k in LABELS})
    risk.legend()
    return {"equal-steps.png": figure}


def rows(data: xr.Dataset) -> list[Row]:
    final = data.risk.isel(tau=-1)
    nearest = float(data.nearest.sel(dynamics="SGD")[JUMPS.index(0.5)])
    return [
        Row("gradient flow, final risk", float(final.sel(dynamics="flow")), 0.3305, 0.3345),
        Row("SGD, steps run", float(data.steps), 1e6, 1e6),
        Row("SGD, final risk", float(final.sel(dynamics="SGD")), 0.35, 1.0),
        Row("SGD, nearest neuron to the jump at .5, in eta", nearest / ETA, 20.0, 1 / ETA),
    ]
