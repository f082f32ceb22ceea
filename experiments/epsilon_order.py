"""The flow is within O(epsilon) of the reduced flow: distance on one clock against epsilon."""

from typing import Any

import diffrax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from .paper import PROBLEM, WIDTH
from .runner import Row, Run

EPSILONS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
FITTED = 1e-5
RTOL = 1e-9


def data(run: Run) -> xr.Dataset:
    u = (jnp.arange(WIDTH) + 0.37) / WIDTH
    start = tts.Params(a=jnp.zeros(WIDTH + 1), u=u)
    taus = jnp.linspace(0.005, 0.035, 61)
    # On so short a horizon the reduced flow is not stiff, and an explicit method most accurate.
    limit = tts.ReducedFlow(ridge=1e-12, rtol=RTOL, atol=1e-2 * RTOL, solver=diffrax.Dopri8())
    reduced = tts.simulate(PROBLEM, limit, start, taus)

    def apart(epsilon: float) -> tuple[float, float]:
        flow = tts.simulate(
            PROBLEM, tts.GradientFlow(epsilon, rtol=RTOL, atol=1e-2 * RTOL), start, taus
        )
        risk, positions = tts.metrics.distance(flow, reduced)
        return float(risk.max()), float(positions.max())

    found = np.array(run.map(apart, EPSILONS, "epsilons"))
    return xr.Dataset(
        {"risk_distance": ("epsilon", found[:, 0]), "position_distance": ("epsilon", found[:, 1])},
        coords={"epsilon": list(EPSILONS)},
        attrs={"rtol": RTOL},
    )


def _slope(data: xr.Dataset, name: str) -> tuple[float, float]:
    small = data.sel(epsilon=data.epsilon[data.epsilon <= FITTED * 1.001])
    slope, level = np.polyfit(np.log(small.epsilon), np.log(small[name]), 1)
    return float(slope), float(level)


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, axes = draw.figure(size=(7, 4.4))
    shown = (("risk_distance", "flow", "o", "risk"), ("position_distance", "reduced", "s", "$u$"))
    for name, kind, marker, label in shown:
        slope, level = _slope(data, name)
        axes.plot(data.epsilon, data[name], marker, color=draw.COLOURS[kind], label=label)
        fitted = np.array([1e-8, FITTED])
        text = f"fit up to $10^{{-5}}$, slope {slope:.2f}"
        line = np.exp(level) * fitted**slope
        axes.plot(fitted, line, "--", color=draw.COLOURS[kind], linewidth=1.2, label=text)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=r"$\varepsilon$",
        ylabel=r"distance to the reduced flow, sup over $\tau$",
    )
    axes.legend()
    return {"epsilon-order.png": figure}


def rows(data: xr.Dataset) -> list[Row]:
    return [
        Row("slope of the risk distance", _slope(data, "risk_distance")[0], 0.8, 1.2),
    ]
