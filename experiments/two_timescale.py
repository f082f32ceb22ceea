"""Two time scales, epsilon = 2e-5: SGD, the flow, the reduced flow and the limit on one clock."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.animation import FuncAnimation

import tts_jax as tts
from tts_jax import plot as draw

from .paper import (
    ETA,
    JUMPS,
    NOISE,
    PROBLEM,
    STEP_SIZE,
    TARGET,
    VALUES,
    fine_grid,
    start,
)
from .runner import Row, Run

EPSILON = 2e-5
HORIZON = 0.035
SHOWN = (2, 8, 29, 100)
HIT_TIMES = (0.0015728408, 0.0025392015, 0.0087402418, 0.0281434829, 0.0031769513)
LABELS = {
    "SGD": "SGD, $\\varepsilon = 2\\cdot 10^{-5}$",
    "flow": "gradient flow, $\\varepsilon = 2\\cdot 10^{-5}$",
    "reduced": "reduced flow, $\\varepsilon \\to 0$",
    "limit": "limit flow, $\\varepsilon, \\eta \\to 0$",
}


def data(run: Run) -> xr.Dataset:
    # Ten times the step size is a tenth of the steps, on the same clock, with more noise.
    step_size = STEP_SIZE * (10 if run.quick else 1)
    taus = jnp.linspace(0.0, HORIZON, 101)
    dynamics = {
        "SGD": tts.SGD(epsilon=EPSILON, step_size=step_size, noise=NOISE),
        "flow": tts.GradientFlow(epsilon=EPSILON),
        "reduced": tts.ReducedFlow(),
        "limit": tts.LimitFlow(),
    }
    found = {}
    for name, how in dynamics.items():
        steps = int(how.steps_until(taus)[-1]) if isinstance(how, tts.SGD) else None
        with run.progress(name, steps=steps) as progress:
            found[name] = tts.simulate(
                PROBLEM, how, start(), taus, key=jax.random.key(0), progress=progress
            )
    data = xr.concat(
        [trajectory.to_xarray()[["risk", "a", "u"]] for trajectory in found.values()],
        dim="dynamics",
    ).assign_coords(dynamics=list(found))
    data["steps"] = int(found["SGD"].stats["steps"])
    data["hit_time"] = ("jump", np.asarray(tts.hit_times(start().u, TARGET)))
    data["start_risk"] = float(PROBLEM.risk(start()))
    data["floor"] = float(tts.metrics.floor(PROBLEM))
    covered = tts.metrics.covered(found["SGD"].final.u, TARGET, eta=ETA)
    data["covered"] = ("jump", np.asarray(covered, dtype=int))
    data.attrs["step_size"] = step_size
    return data


def _network(data: xr.Dataset, dynamics: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    picked = data.sel(dynamics=dynamics).isel(tau=index)
    x = fine_grid(picked.u.values, ETA, TARGET)
    params = tts.Params(jnp.asarray(picked.a.values), jnp.asarray(picked.u.values))
    return x, np.asarray(PROBLEM.predict(params, jnp.asarray(x)))


def plot(data: xr.Dataset) -> dict[str, Any]:
    fits, panels = draw.figure(2, 2, size=(9, 5.6), sharex=True, sharey=True)
    for axes, index in zip(panels.flat, SHOWN, strict=True):
        u = data.u.sel(dynamics="SGD")[index]
        draw.fit(axes, *_network(data, "SGD", index), jumps=JUMPS, values=VALUES, u=u, label="SGD")
        axes.set(title=rf"$\tau = {float(data.tau[index]):.4f}$", ylim=(-0.2, 6.9))
        axes.label_outer()
    panels[0, 0].set_ylabel("output")
    panels[1, 0].set_ylabel("output")
    panels[0, 0].legend(loc="upper center", ncols=3, columnspacing=1.0, handlelength=1.6)

    risk, axes = draw.figure(size=(7, 4.2))
    draw.risks(axes, {LABELS[k]: (data.tau, data.risk.sel(dynamics=k), k) for k in LABELS})
    axes.axhline(float(data.floor), color="0.5", linewidth=1, linestyle=":")
    axes.text(
        HORIZON, float(data.floor) * 0.66, "one neuron on each jump", ha="right", color="0.35"
    )
    axes.set(ylim=(3e-3, 20))
    axes.legend(loc="upper right")
    return {
        "two-timescale-fits.png": fits,
        "two-timescale-risk.png": risk,
        "two-timescale.gif": _animation(data),
    }


def _animation(data: xr.Dataset) -> FuncAnimation:
    figure, (left, right) = draw.figure(1, 2, size=(9, 3.6))
    figure.set_dpi(75)
    frames = range(0, data.sizes["tau"], 10 if data.attrs["quick"] else 2)
    draw.risks(right, {LABELS[k]: (data.tau, data.risk.sel(dynamics=k), k) for k in LABELS})
    right.set(ylim=(3e-3, 20))
    right.legend(loc="upper right", fontsize=8)
    line = right.axvline(0.0, color="0.3", linewidth=1)

    def show(index: int) -> None:
        left.clear()
        u = data.u.sel(dynamics="SGD")[index]
        draw.fit(left, *_network(data, "SGD", index), jumps=JUMPS, values=VALUES, u=u, label="SGD")
        left.set(title=rf"$\tau = {float(data.tau[index]):.4f}$", ylim=(-0.2, 6.4))
        left.legend(loc="upper center", ncols=3, fontsize=8)
        line.set_xdata([float(data.tau[index])] * 2)

    return FuncAnimation(figure, show, frames=list(frames), cache_frame_data=False)


def rows(data: xr.Dataset) -> list[Row]:
    final = data.risk.isel(tau=-1)
    found = [
        Row("risk at the start", float(data.start_risk), 10.6 - 1e-12, 10.6 + 1e-12),
        Row("risk floor", float(data.floor), 0.008 - 1e-9, 0.008 + 1e-9),
        Row(
            "limit flow, risk at tau = 0",
            float(data.risk.sel(dynamics="limit")[0]),
            0.89901992785,
            0.89901992795,
        ),
    ]
    for jump, time, expected in zip(JUMPS, data.hit_time.values, HIT_TIMES, strict=True):
        found.append(
            Row(f"limit flow, hit time of jump {jump}", time, expected - 1e-10, expected + 1e-10)
        )
    steps = round(HORIZON / (EPSILON * STEP_SIZE))
    return [
        *found,
        Row("gradient flow, final risk", float(final.sel(dynamics="flow")), 0.0079613, 0.0079623),
        Row("SGD, steps run", float(data.steps), steps, steps, quick=False),
        Row("SGD, final risk", float(final.sel(dynamics="SGD")), 0.0075, 0.012, quick=False),
        Row("SGD, covered jumps", float(data.covered.sum()), 5, 5, quick=False),
    ]
