"""What the figures on samples share: full-batch descent from 20 starts at two epsilons."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from .runner import Row, Run

JUMPS = (0.3, 0.5, 0.7)
ETA = 0.01
WIDTH = 10
STEP_SIZE = 1.0
STEPS = {1.0: 300, 0.01: 5000}


def train(
    run: Run,
    problem: Callable[[jax.Array], tts.EmpiricalProblem],
    population: tts.AbstractProblem,
    shape: tuple[int, ...],
) -> xr.Dataset:
    """Losses and parameters of each repeat, which has a sample and a start of its own.

    The start is u ~ U[0, 1] and a ~ 3 U[0, 1], both of `shape`. `population` has the exact risk
    over all inputs, which stands beside the loss on the sample, on its scale: (risk/n)^(1/2).
    """
    exact = jax.jit(lambda population, params: jax.vmap(population.risk)(params))
    repeats = 3 if run.quick else 20

    def final(case: tuple[float, int]) -> tuple[np.ndarray, np.ndarray, tts.Params]:
        epsilon, repeat = case
        sample, outer, inner = jax.random.split(jax.random.key(repeat), 3)
        start = tts.Params(
            a=3.0 * jax.random.uniform(outer, shape), u=jax.random.uniform(inner, shape)
        )
        steps = STEPS[epsilon] // (10 if run.quick and epsilon < 1 else 1)
        taus = jnp.array([0.0, 1.0]) * (epsilon * STEP_SIZE * steps)
        how = tts.SGD(epsilon=epsilon, step_size=STEP_SIZE, batch_size="full")
        fitted = problem(sample)
        found = tts.simulate(fitted, how, start, taus)
        everywhere = np.sqrt(np.asarray(exact(population, found.params)) / fitted.x.shape[0])
        return np.asarray(found.risk), everywhere, jax.tree.map(np.asarray, found.params)

    axes = ("input", "neuron")[2 - len(shape) :]
    parts = []
    for epsilon in STEPS:
        cases = [(epsilon, repeat) for repeat in range(repeats)]
        results = run.map(final, cases, f"epsilon {epsilon:g}")
        variables: dict[str, Any] = {
            "loss": (("repeat", "time"), np.stack([risk for risk, _, _ in results])),
            "population": (("repeat", "time"), np.stack([risk for _, risk, _ in results])),
        }
        for name in ("a", "u"):
            values = np.stack([getattr(params, name) for _, _, params in results])
            variables[name] = (("repeat", "time", *axes), values)
        parts.append(xr.Dataset(variables, coords={"time": ["start", "end"]}))
    return xr.concat(parts, dim="epsilon").assign_coords(epsilon=list(STEPS))


def losses(data: xr.Dataset, *, title: str) -> tuple:
    """Boxplot of the final losses beside those at the start, on the sample and on all inputs."""
    figure, axes = draw.figure(size=(5, 4))
    groups = {}
    for name, values in (("sample", data.loss), ("all inputs, exact", data.population)):
        groups[name] = [values.sel(time="start").isel(epsilon=0).values]
        groups[name] += [values.sel(time="end", epsilon=epsilon).values for epsilon in STEPS]
    labels = ["start", *(rf"$\varepsilon = {epsilon:g}$" for epsilon in STEPS)]
    draw.boxes(axes, groups, labels=labels, kinds=("flow", "neuron"))
    axes.set(ylabel=r"loss $\|r\|_2 / n$", title=title)
    axes.legend(fontsize=9)
    return figure, axes


def rows(data: xr.Dataset) -> list[Row]:
    medians = data.loss.sel(time="end").median("repeat")
    ratio = float(medians.sel(epsilon=0.01) / medians.sel(epsilon=1.0))
    return [Row("median loss at epsilon .01 over that at 1", ratio, 0.0, 0.5, quick=False)]
