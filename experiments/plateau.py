"""The symmetric plateau of committees: exact risk over Gaussian inputs, the flow and SGD on it.

Source: D. Saad and S. A. Solla, "On-line learning in soft committee machines", Physical Review E
52, 4225 (1995). K students of K orthonormal teachers, erf(z / sqrt 2), all outer weights 1. From a
small random start the students first become equal, and stay so for a long time at a risk of

    2 (K/pi) (pi/6 - K arcsin(1/(2K))),

twice the height of the source, whose risk has a factor 1/2. With a fast outer layer the same start
leaves the plateau earlier, and takes longer at the end.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from .runner import Row, Run

SIZES = (2, 3, 4)
INPUTS = 10
HORIZON = 200.0
STEP_SIZE = 2e-3
EPSILON = 1e-2
NETWORK = tts.TwoLayerNetwork(tts.Erf(eta=2**0.5), bias=False, outer_bias=False)


class Committee(tts.AbstractProblem):
    """A `GaussianProblem` whose outer weights are all 1. Params: a without entries, u as there."""

    inner: tts.GaussianProblem

    def _params(self, params: tts.Params) -> tts.Params:
        return tts.Params(jnp.ones(params.u["w"].shape[0], params.u["w"].dtype), params.u)

    def risk(self, params: tts.Params) -> jax.Array:
        return self.inner.risk(self._params(params))

    def draw(self, key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
        return self.inner.draw(key, count)

    def sample_loss(self, params: tts.Params, x: jax.Array, y: jax.Array) -> jax.Array:
        return self.inner.sample_loss(self._params(params), x, y)


def _height(size: int) -> float:
    return 2 * size / np.pi * (np.pi / 6 - size * np.arcsin(1 / (2 * size)))


def data(run: Run) -> xr.Dataset:
    taus = jnp.linspace(0.0, HORIZON, 401)
    sgd = tts.SGD(1.0, 5 * STEP_SIZE if run.quick else STEP_SIZE)

    def of_size(size: int) -> tuple[np.ndarray, ...]:
        teacher = tts.Params(jnp.ones(size), {"w": jnp.eye(size, INPUTS)})
        problem = tts.GaussianProblem(NETWORK, tts.Teacher(NETWORK, teacher))
        start = tts.init_two_layer(jax.random.key(size), NETWORK, INPUTS, size, scale=0.05)
        committee, fixed = Committee(problem), start._replace(a=jnp.zeros(0))
        flow = tts.GradientFlow(1.0)
        equal = fixed._replace(u={"w": 0.3 * jnp.ones((size, 1)) @ teacher.u["w"].sum(0)[None]})
        trained = start._replace(a=jnp.ones(size))
        runs = [
            tts.simulate(committee, flow, fixed, taus),
            tts.simulate(committee, sgd, fixed, taus, key=jax.random.key(1)),
            tts.simulate(committee, flow, equal, taus),
            tts.simulate(problem, tts.GradientFlow(EPSILON), trained, taus),
        ]
        return tuple(np.asarray(each.risk) for each in runs)

    found = np.array(run.map(of_size, SIZES, "committees"))
    names = ("flow", "sgd", "equal", "trained")
    return xr.Dataset(
        {name: (("size", "tau"), found[:, i]) for i, name in enumerate(names)},
        coords={"size": list(SIZES), "tau": np.asarray(taus)},
        attrs={"inputs": INPUTS, "step_size": sgd.step_size, "epsilon": EPSILON},
    )


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, panels = draw.figure(columns=len(SIZES), size=(11, 3.6))
    for axes, size in zip(panels, SIZES, strict=True):
        one = data.sel(size=size)
        axes.axhline(_height(size), color="0.4", linestyle="--", linewidth=1, label="theory")
        axes.plot(one.tau, one.flow, color=draw.COLOURS["flow"], label="gradient flow")
        axes.plot(one.tau, one.sgd, ".", color=draw.COLOURS["SGD"], markersize=3, label="SGD")
        axes.plot(
            one.tau,
            one.trained,
            ":",
            color=draw.COLOURS["reduced"],
            label=rf"outer layer trained, $\varepsilon$ = {EPSILON:g}",
        )
        axes.set(yscale="log", ylim=(1e-4, 3), xlabel=r"slow time $\tau$", title=f"K = {size}")
    panels[0].set_ylabel("risk")
    panels[-1].legend(fontsize=8)
    return {"plateau.png": figure}


def rows(data: xr.Dataset) -> list[Row]:
    found = []
    # Steps of SGD add a risk of the order of the step size.
    for size in SIZES:
        one, height = data.sel(size=size), _height(size)
        off = abs(float(one.equal[-1]) - height)
        found.append(Row(f"K = {size}, equal students, distance from the height", off, 0.0, 1e-8))
        level = float(one.sgd.where((one.tau >= 5) & (one.tau <= 15)).median())
        found.append(
            Row(f"K = {size}, SGD on the plateau over the height", level / height, 0.9, 1.1, False)
        )
    return found
