"""What a flow of a ReLU network conserves at every epsilon, and SGD does not.

Scaling w_j by a number and a_j by its inverse changes nothing, so that a_j dL/da_j = w_j . dL/dw_j.
Along epsilon da/dtau = -dL/da, dw/dtau = -dL/dw each epsilon a_j^2 - |w_j|^2 is therefore constant;
in the limit epsilon -> 0 each |w_j| is. Neurons of zero bias, inputs N(0, I_d), exact risk.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from .runner import Row, Run

EPSILONS = (1.0, 0.1, 0.01)
INPUTS, WIDTH, TEACHERS = 5, 8, 3
STEP_SIZE = 1e-3
RTOL = 1e-9
NETWORK = tts.TwoLayerNetwork(tts.ReLU(), bias=False, outer_bias=False)


def _drift(run: tts.Trajectory, epsilon: float) -> np.ndarray:
    """The largest change of an invariant, at each recorded time, over the largest invariant."""
    squares = jnp.sum(run.params.u["w"] ** 2, axis=-1)
    invariants = np.asarray(epsilon * run.params.a**2 - squares)
    return np.abs(invariants - invariants[0]).max(axis=1) / np.abs(invariants[0]).max()


def data(run: Run) -> xr.Dataset:
    taus = jnp.linspace(0.0, 5.0, 101)
    keys = jax.random.split(jax.random.key(0), 3)
    shape = {"inputs": INPUTS, "distribution": "sphere"}
    taught = tts.init_two_layer(keys[0], NETWORK, width=TEACHERS, outer_scale=1.0, **shape)
    problem = tts.GaussianProblem(NETWORK, tts.Teacher(NETWORK, taught))
    start = tts.init_two_layer(keys[1], NETWORK, width=WIDTH, outer_scale=0.3, **shape)

    def at(epsilon: float) -> np.ndarray:
        flow = tts.GradientFlow(epsilon, rtol=RTOL, atol=1e-2 * RTOL)
        sgd = tts.SGD(epsilon, STEP_SIZE)
        runs = [tts.simulate(problem, how, start, taus, key=keys[2]) for how in (flow, sgd)]
        return np.array([[each.risk, _drift(each, epsilon)] for each in runs])

    found = np.array(run.map(at, EPSILONS, "epsilons"))
    reduced = tts.simulate(problem, tts.ReducedFlow(rtol=RTOL, atol=1e-2 * RTOL), start, taus)
    dims = ("epsilon", "tau")
    return xr.Dataset(
        {
            "flow_risk": (dims, found[:, 0, 0]),
            "flow_drift": (dims, found[:, 0, 1]),
            "sgd_risk": (dims, found[:, 1, 0]),
            "sgd_drift": (dims, found[:, 1, 1]),
            "reduced_risk": ("tau", np.asarray(reduced.risk)),
            "reduced_drift": ("tau", _drift(reduced, 0.0)),
        },
        coords={"epsilon": list(EPSILONS), "tau": np.asarray(taus)},
        attrs={"step_size": STEP_SIZE, "rtol": RTOL},
    )


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, (left, right) = draw.figure(columns=2, size=(9.5, 3.8))
    for epsilon, style in zip(EPSILONS, ("-", "--", ":"), strict=True):
        one = data.sel(epsilon=epsilon)
        for name, kind, label in (("flow", "flow", "flow"), ("sgd", "SGD", "SGD")):
            look = {"color": draw.COLOURS[kind], "linestyle": style, "linewidth": 1.6}
            text = rf"{label}, $\varepsilon$ = {epsilon:g}"
            left.plot(one.tau, one[f"{name}_risk"], **look, label=text)
            right.plot(one.tau[1:], one[f"{name}_drift"][1:], **look)
    look = {"color": draw.COLOURS["reduced"], "linewidth": 1.6}
    left.plot(data.tau, data.reduced_risk, **look, label=r"reduced flow, $\varepsilon \to 0$")
    right.plot(data.tau[1:], np.maximum(data.reduced_drift[1:], 1e-17), **look)
    left.set(yscale="log", xlabel=r"slow time $\tau$", ylabel="risk")
    right.set(
        yscale="log",
        xlabel=r"slow time $\tau$",
        ylabel=r"largest relative change of $\varepsilon a_j^2 - |w_j|^2$",
    )
    left.legend(fontsize=8)
    return {"relu-invariants.png": figure}


def rows(data: xr.Dataset) -> list[Row]:
    found = [
        Row(
            f"flow at epsilon = {epsilon:g}, largest change of an invariant",
            float(data.flow_drift.sel(epsilon=epsilon).max()),
            0.0,
            1e-6,
        )
        for epsilon in EPSILONS
    ]
    change = float(data.reduced_drift.max())
    return [*found, Row("reduced flow, largest change of a squared length", change, 0.0, 1e-6)]
