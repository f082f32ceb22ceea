"""Sweeps on real worker processes, one of which is killed at its work."""

import os
import signal
import threading
import time

import pytest
from small_studies import SGD_STUDY, finished, same, written

import tts_jax as tts
from tts_jax import cli
from tts_jax.sweeps.execution.dask import client_of
from tts_jax.sweeps.sweep import run_study

distributed = pytest.importorskip("distributed")

# Dask's own, when workers come and go.
pytestmark = pytest.mark.filterwarnings("ignore")

STUDY = SGD_STUDY.replace("step_size = 1e-3", "step_size = 1e-4")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return tts.read_study(written(tmp_path_factory.mktemp("study"), STUDY))


def test_a_killed_worker_loses_nothing_and_does_nothing_twice(study, tmp_path):
    store, seen = tmp_path / "cluster.zarr", []
    with client_of("local:2") as client:
        pids = client.run(os.getpid)
        assert len(set(pids.values())) == 2
        assert os.getpid() not in pids.values()

        def kill() -> None:
            while len(seen) < 2:  # until both are at it
                time.sleep(0.01)
            os.kill(next(iter(pids.values())), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        data = run_study(study, store, cluster=client, progress=seen.append)
        killer.join()
        assert set(client.run(os.getpid).values()) != set(pids.values())
    assert len(seen) == 12  # each of the twelve units once
    assert data.attrs["sessions"][-1]["runs"] == 48
    alone = run_study(study, tmp_path / "alone.zarr")
    assert alone.attrs["sessions"][-1]["runs"] == 48
    assert same(finished(store), finished(tmp_path / "alone.zarr"))


def test_the_command_takes_a_cluster(tmp_path, capsys):
    path, store = written(tmp_path), tmp_path / "s.zarr"
    assert cli.main(["sweep", str(path), "--out", str(store), "--cluster", "local:1"]) == 0
    assert "48 of 48 runs made, complete" in capsys.readouterr().out
    assert cli.main(["resume", str(store), "--cluster", "tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize("cluster", ["local:0", "local:many", 3])
def test_what_is_no_cluster_is_refused(study, tmp_path, cluster):
    with pytest.raises(ValueError, match="Argument `cluster` must be"):
        run_study(study, tmp_path / "s.zarr", cluster=cluster)
