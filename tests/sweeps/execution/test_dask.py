"""Sweeps on worker processes, one of which is killed at its work, and what a worker is sent."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest
from small_problems import small_problem
from small_studies import (
    MANY_UNITS,
    PROBLEM,
    Apart,
    Drift,
    compilations,
    finished,
    same,
    sessions,
    written,
)

import tts_jax as tts
from tts_jax import cli
from tts_jax.sweeps.execution import dask as tts_dask
from tts_jax.sweeps.execution.dask import client_of, compute
from tts_jax.sweeps.execution.structure import Settings
from tts_jax.sweeps.sweep import run_study

distributed = pytest.importorskip("distributed")

# Dask's own, when workers come and go.
pytestmark = pytest.mark.filterwarnings("ignore")


LIMIT_STUDY = f"""{PROBLEM}
[dynamics]
type = "LimitFlow"

[taus]
to = 1.0
count = 3

[grid]
seed = {{ count = 48 }}
width = 6
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with client_of("local:2") as client:
        yield client


@pytest.mark.thorough
def test_a_killed_worker_loses_nothing_and_does_nothing_twice(client, tmp_path):
    study = tts.Study(small_problem(), Apart(), MANY_UNITS, [0.0, 1.0])
    store, seen, killed = tmp_path / "cluster.zarr", [], []
    pids = client.run(os.getpid)
    assert len(set(pids.values())) == 2
    assert os.getpid() not in pids.values()

    def kill() -> None:
        while len(seen) < 2:  # until both are at it
            time.sleep(0.001)
        killed.append(len(seen))
        os.kill(next(iter(pids.values())), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    data = run_study(study, store, cluster=client, progress=seen.append)
    killer.join()
    assert set(client.run(os.getpid).values()) != set(pids.values())
    assert killed[0] < 30
    assert len(seen) == 40  # each of the forty units once
    assert sessions(data)[-1]["runs"] == 160
    alone = run_study(study, tmp_path / "alone.zarr")
    assert sessions(alone)[-1]["runs"] == 160
    assert same(finished(store), finished(tmp_path / "alone.zarr"))


@pytest.mark.thorough
def test_an_interrupt_keeps_what_is_finished_and_drops_what_is_under_way(client, tmp_path):
    study, store = tts.Study(small_problem(), Apart(), MANY_UNITS, [0.0, 1.0]), tmp_path / "s.zarr"

    def interrupt(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as told:
        run_study(study, store, cluster=client, progress=interrupt)
    assert "What was finished is kept in" in told.value.__notes__[0]
    while client.futures:  # the last ones are dropped in the background
        time.sleep(0.01)
    data = run_study(study, store, cluster=client)
    assert [session["runs"] for session in json.loads(data.attrs["sessions"])] == [4, 156]


@pytest.mark.thorough
def test_the_command_takes_a_cluster(client, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    study, store = str(written(tmp_path, LIMIT_STUDY)), str(tmp_path / "s.zarr")
    address = client.scheduler.address
    assert cli.main(["sweep", study, "--out", store, "--cluster", address]) == 0
    assert "48 of 48 runs made, complete" in capsys.readouterr().out
    monkeypatch.setattr(tts_dask, "_PATIENCE", 0.5)
    assert cli.main(["resume", store, "--cluster", "tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize("cluster", ["local:0", "local:many", 3])
def test_what_is_no_cluster_is_refused(tmp_path, cluster):
    study = tts.Study(small_problem(), Apart(), MANY_UNITS, [0.0, 1.0])
    with pytest.raises(ValueError, match="Argument `cluster` must be"):
        run_study(study, tmp_path / "s.zarr", cluster=cluster)
    assert not (tmp_path / "s.zarr").exists()


def test_a_worker_gets_a_unit_and_the_settings_and_keeps_its_programs(monkeypatch):
    """Every unit comes with copies of the user's functions, which are other ones to JAX."""
    monkeypatch.setattr(tts_dask, "_runners", {})

    def start(key, width):
        params = tts.init_uniform(key, width)
        return tts.Params(params.a, 0.5 * params.u)

    grid = {"epsilon": [0.1, 0.2], "seed": range(1000), "width": 3}
    study = tts.Study(small_problem(), Drift(), grid, [0.0, 1.0], start=start)

    def sent(points):
        parts = ("sweep", Settings.of(study), ("width", "epsilon"), points)
        return cloudpickle.loads(cloudpickle.dumps(parts))

    points = [{"epsilon": 0.1, "seed": seed, "width": 3} for seed in range(4)]
    assert len(cloudpickle.dumps(sent(points))) < 10_000
    first = compute(*sent(points))
    with compilations() as found:
        second = compute(*sent([{**point, "epsilon": 0.2} for point in points]))
    assert found == []
    assert np.allclose(second["u"][:, 1] - first["u"][:, 1], 0.1, rtol=1e-12)
    # Another sweep has other settings, and takes their place.
    compute("another", Settings.of(study), ("width",), points)
    assert list(tts_dask._runners) == ["another"]
