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

HORIZON = 10.0
STREAMS = 16
LABELS = {"SGD": r"SGD, $\varepsilon = 1$", "flow": r"gradient flow, $\varepsilon = 1$"}


def data(run: Run) -> xr.Dataset:
    """SGD is noisy here: of 16 streams the one whose final risk is the (upper) median is shown."""
    taus = jnp.linspace(0.0, HORIZON, 101)
    sgd = tts.SGD(epsilon=1.0, step_size=STEP_SIZE, noise=NOISE)

    def stream(seed: int) -> tts.Trajectory:
        return tts.simulate(PROBLEM, sgd, start(), taus, key=jax.random.key(seed))

    streams = run.map(stream, range(STREAMS), "SGD")
    with run.progress("flow") as progress:
        how = tts.GradientFlow(epsilon=1.0)
        flow = tts.simulate(PROBLEM, how, start(), taus, progress=progress)
    final = np.array([float(trajectory.risk[-1]) for trajectory in streams])
    shown = streams[int(np.argsort(final)[STREAMS // 2])]
    data = xr.concat(
        [trajectory.to_xarray()[["risk", "a", "u"]] for trajectory in (shown, flow)],
        dim="dynamics",
    ).assign_coords(dynamics=["SGD", "flow"])
    ends = jnp.stack([trajectory.final.u for trajectory in streams])
    nearest = np.asarray(tts.metrics.nearest_neuron(ends, TARGET))
    data["stream_risk"] = ("stream", final)
    data["stream_nearest"] = (("stream", "jump"), nearest)
    data["nearest"] = ("jump", np.asarray(tts.metrics.nearest_neuron(shown.final.u, TARGET)))
    data["steps"] = int(shown.stats["steps"])
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
    middle = JUMPS.index(0.5)
    far = data.stream_nearest[:, middle] > 20 * ETA
    return [
        Row("gradient flow, final risk", float(final.sel(dynamics="flow")), 0.3305, 0.3345),
        Row("SGD, steps run", float(data.steps), 1e6, 1e6),
        Row("SGD, final risk", float(final.sel(dynamics="SGD")), 0.35, 1.0),
        Row(
            "SGD, nearest neuron to the jump at .5, in eta",
            float(data.nearest[middle]) / ETA,
            20.0,
            1 / ETA,
        ),
        Row(f"SGD, streams of {STREAMS} as far from that jump", float(far.sum()), 9, STREAMS),
    ]
