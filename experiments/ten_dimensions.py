"""An additive target in ten inputs: full-batch descent at epsilon 1 and .01."""

from typing import Any

import jax
import xarray as xr

import tts_jax as tts

from . import additive
from .runner import Row, Run
from .two_dimensions import NETWORK, TARGET

INPUTS = 10
SAMPLES = 10_000


def problem(key: jax.Array) -> tts.EmpiricalProblem:
    return tts.sample_problem(key, NETWORK, TARGET, SAMPLES, inputs=INPUTS, loss="norm")


def data(run: Run) -> xr.Dataset:
    population = tts.AdditiveProblem(NETWORK, TARGET, INPUTS)
    return additive.train(run, problem, population, (INPUTS, additive.WIDTH))


def plot(data: xr.Dataset) -> dict[str, Any]:
    return {"ten-dimensions.png": additive.losses(data, title="ten inputs, final loss")[0]}


def rows(data: xr.Dataset) -> list[Row]:
    return additive.rows(data)
