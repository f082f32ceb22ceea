"""Exceptions and warnings go through copies and through the pools of other processes."""

import concurrent.futures.process
import copy
import importlib
import multiprocessing.pool
import pickle
import pkgutil
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax._files import HeldError
from tts_jax.cli.errors import UsageError
from tts_jax.sweeps.errors import StudyError, SweepError
from tts_jax.sweeps.study.formats import FormatError
from tts_jax.sweeps.study.tables import TableError
from tts_jax.trajectory import Trajectory

TRAJECTORY = Trajectory(
    *(jnp.arange(2.0), tts.Params(jnp.ones((2, 3)), jnp.ones((2, 2))), jnp.array([1.0, jnp.nan])),
    *(jnp.asarray(tts.Status.MAX_STEPS), {"steps": jnp.asarray(7)}, "GradientFlow", "Rodas5P"),
)
SAMPLES = [
    tts.SimulationError("It ended.", TRAJECTORY),
    TableError(("grid", "eta"), "It is wrong."),
    StudyError("A line is wrong."),
    FormatError("holds words", "x"),
    SweepError("No room.", code=1),
    UsageError("No such figure.", code=3),
    *(tts.CoarseStepsWarning("Large."), tts.CostlyRunWarning("Long.")),
    *(tts.SlowSettingsWarning("Slow."), tts.QuadratureWarning("Inexact.")),
    *(
        tts.NotAffineWarning("Bent."),
        tts.OffScaleWarning("Elsewhere."),
        tts.CheckpointWarning("Full."),
        HeldError("In use."),
    ),
]


def by_process_pool(error):
    return pickle.loads(
        pickle.dumps(concurrent.futures.process._ExceptionWithTraceback(error, error.__traceback__))
    )


def by_pool(error):
    return pickle.loads(pickle.dumps(multiprocessing.pool.ExceptionWithTraceback(error, None)))


WAYS = {
    **{f"pickle {p}": lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in range(6)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "a ProcessPoolExecutor": by_process_pool,
    "a multiprocessing.Pool": by_pool,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_an_exception_arrives_as_it_was(sample, way):
    sample.add_note("A note.")
    again = WAYS[way](sample)
    assert type(again) is type(sample)
    assert str(again) == str(sample)
    assert again.args == sample.args
    assert again.__notes__[0] == "A note."
    for name in ("code", "path", "message", "name"):
        assert getattr(again, name, None) == getattr(sample, name, None)
    if isinstance(sample, tts.SimulationError):
        first, second = sample.trajectory.to_xarray(), again.trajectory.to_xarray()
        assert second.identical(first)
        np.testing.assert_array_equal(again.trajectory.taus, TRAJECTORY.taus)


def test_the_samples_are_all_exceptions_of_the_package():
    found = set()
    for info in pkgutil.walk_packages(tts.__path__, "tts_jax."):
        if "_experiments" in info.name or info.name == "tts_jax.__main__":
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            members = vars(importlib.import_module(info.name)).values()
        found |= {m for m in members if isinstance(m, type) and issubclass(m, BaseException)}
    ours = {kind for kind in found if kind.__module__.startswith("tts_jax")}
    ours -= {kind for kind in ours if kind.__name__ == "UnknowableError"}  # never leaves `digest`
    assert ours == {type(sample) for sample in SAMPLES}
