"""Small studies, as the files that users write, and what a finished store holds."""

from pathlib import Path

import numpy as np
import xarray as xr

import tts_jax as tts

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


def written(folder: Path, text: str = SGD_STUDY) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def finished(folder: Path) -> xr.Dataset:
    """What a store holds, without what tells how it came to be."""
    data = xr.open_zarr(str(folder), chunks=None).load()
    data.attrs = {name: data.attrs[name] for name in ("study", "chunks")}
    return data


def same(first: xr.Dataset, second: xr.Dataset) -> bool:
    """Whether they are equal to the last bit, NaN to NaN."""
    return first.identical(second)


def small_problem() -> tts.Problem:
    target = tts.PiecewiseConstant([0.3, 0.65], [1.0, 3.0, 0.5])
    return tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=0.08)), target)


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every chunk of a store, with the time it was written at."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("c/**/*")
        if path.is_file()
    }


def steps_of(data: xr.Dataset) -> int:
    return int(np.sum(data.steps))
