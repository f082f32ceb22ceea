"""Small studies, as the files that users write, and what a finished store holds."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from small_problems import small_problem

import tts_jax as tts
from tts_jax.dynamics.base import RunOutputs

PROBLEM = """
[problem.target]
type = "PiecewiseConstant"
jumps = [0.3, 0.65]
values = [1.0, 3.0, 0.5]

[problem.network.activation]
type = "CubicStep"
eta = 0.08
"""

SGD_STUDY = f"""{PROBLEM}
[dynamics]
type = "SGD"
step_size = 1e-3
noise = 0.5

[taus]
to = 1.0
count = 3

[grid]
epsilon = {{ from = 1e-2, to = 2e-2, count = 12, scale = "log" }}
seed = {{ count = 4 }}
width = 6
"""
"""Twelve units, as runs of different epsilon are not in step."""

FLOW_STUDY = f"""{PROBLEM}
[dynamics]
type = "GradientFlow"
rtol = 1e-6
atol = 1e-8

[taus]
to = 0.3
count = 4

[grid]
epsilon = [0.1, 0.3, 1.0]
eta = [0.08, 0.05]
seed = {{ count = 7 }}
width = 6
"""
"""Three units of 14 runs each, one for each epsilon."""

LONGER_STUDY = SGD_STUDY.replace("step_size = 1e-3", "step_size = 1e-4")
"""Units that take a tenth of a second, so that something can happen to them."""

NETWORK = """
[problem.network]
type = "TwoLayerNetwork"
activation = { type = "Erf" }
"""

RUN = """
[dynamics]
type = "SGD"
step_size = 0.1

[taus]
to = 1.0
count = 2

[grid]
epsilon = [0.5, 1.0]
seed = { count = 3 }
width = 4
"""

GAUSSIAN_STUDY = f"""[problem]
type = "GaussianProblem"
{NETWORK}
[problem.target]
type = "Teacher"
network = {{ type = "TwoLayerNetwork", activation = {{ type = "Erf" }} }}
params = {{ type = "init_two_layer", seed = 7, inputs = 3, width = 2, outer_scale = 1.0 }}

[start]
type = "init_two_layer"
scale = 0.5
{RUN}"""
"""A teacher that is drawn, and starts of two layers."""

DATA_STUDY = f"""{NETWORK}
[data]
file = "data.csv"
x = ["age", "height"]
y = "price"

[start]
type = "init_two_layer"
bias_scale = 0.5
{RUN}"""
"""A sample in the file that `write_data` writes beside it."""

DATA = "age,height,price,name\n0.5,1.0,3,a\n-1,2e-1,4.5,b\n0.25,0,1,c\n"


class Drift(tts.AbstractDynamics):
    """A user's dynamics that compiles in no time: all parameters move at the speed epsilon + drag.

    In place of the risk stands what the first neuron does at 1/2 and, if there is one, the target
    at tau: what a run leaves shows all numbers that it was given, and to the last bit, however many
    runs there are beside it.
    """

    epsilon: float = 1.0
    drag: float = 0.0
    sweepable: ClassVar = ("epsilon",)

    def check(self, given):
        pass

    def run(self, given):
        problem, taus = given.problem, given.taus
        speed = jnp.asarray(self.epsilon) + self.drag
        a, u = (h[None] + (speed * taus).reshape(-1, *(1,) * h.ndim) for h in given.params)
        activation = problem.network.activation
        risk = activation((0.5 - u.reshape(taus.size, -1)[:, 0]) / activation.eta)
        if isinstance(problem, tts.Problem):
            risk = risk + problem.target(taus)
        ok = jnp.asarray(tts.Status.OK, jnp.int32)
        return RunOutputs(tts.Params(a, u), risk, ok, {"steps": jnp.asarray(taus.size)})


class Apart(Drift):
    """A `Drift` whose runs of different epsilon are not in step: each has a unit to itself."""

    even_steps: ClassVar = True

    def expected_steps(self, horizon):
        return 1.0 / self.epsilon


FEW = {"epsilon": [0.2, 0.1], "seed": [5, 3, 4], "width": 6}
"""Six runs of a `Drift`, in one unit."""


def drifts(store: Path, grid: Mapping = FEW, **options: object) -> xr.Dataset:
    """A sweep of a `Drift` in a store, which takes little time."""
    return tts.sweep(small_problem(), Drift(), grid, [0.0, 1.0], store=store, **options)


MANY_UNITS = {"epsilon": np.linspace(0.1, 4.0, 40), "seed": range(4), "width": 3}
"""Forty units of an `Apart` study, of four runs each."""


def start_of(seed: int, width: int) -> tts.Params:
    """Where a sweep starts the runs of a seed and a width."""
    return tts.init_uniform(jax.random.fold_in(jax.random.key(seed), 0), width)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """A list that grows by what JAX traces and compiles meanwhile, on any thread."""
    found: list[str] = []

    def note(name: str, seconds: float, **details: object) -> None:
        del seconds
        if name.startswith("/jax/core/compile"):
            found.append(f"{name} of {details.get('fun_name')}")

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def written(folder: Path, text: str = SGD_STUDY) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def write_data(folder: Path, text: str = DATA) -> Path:
    path = folder / "data.csv"
    path.write_text(text)
    return path


def finished(folder: Path) -> xr.Dataset:
    """What a store holds, without what tells how it came to be."""
    data = xr.open_zarr(str(folder), chunks=None).load()
    data.attrs = {name: data.attrs[name] for name in ("study", "layout")}
    return data


def same(first: xr.Dataset, second: xr.Dataset) -> bool:
    """Whether they are equal to the last bit, NaN to NaN."""
    return first.identical(second)


def same_but_for_rounding(first: xr.Dataset, second: xr.Dataset) -> None:
    """Raise unless they are equal, steps and statuses exactly, and numbers but for rounding.

    For flows that were made in batches of other sizes: with the settings of `tts.configure()` XLA
    makes one kernel of a batch, and fuses multiplications with additions in it as its size suits.
    """
    xr.testing.assert_equal(first[["status", "steps"]], second[["status", "steps"]])
    xr.testing.assert_allclose(first, second, rtol=1e-11, atol=1e-12)


def sessions(data: xr.Dataset) -> list[dict]:
    """The sessions in which a sweep was made, from its attributes."""
    return json.loads(data.attrs["sessions"])


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every chunk of a store, with the time it was written at."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("c/**/*")
        if path.is_file()
    }
