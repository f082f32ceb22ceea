"""How a store comes to be: whole or not at all, in any folder that is free."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from small_problems import small_problem
from small_studies import FEW, Drift, drifts

import tts_jax as tts
from tts_jax._files import held, scratch_prefix
from tts_jax.dynamics.base import RunOutputs
from tts_jax.sweeps.execution.layout import make_layout
from tts_jax.sweeps.execution.variables import variables_of
from tts_jax.sweeps.storage import creation

LONGEST = 255


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_name_may_be_as_long_as_names_are(tmp_path):
    drifts(tmp_path / ("n" * LONGEST))
    assert names(tmp_path) == ["n" * LONGEST]
    with pytest.raises(tts.SweepError, match=r"cannot write to .*name too long"):
        drifts(tmp_path / ("n" * (LONGEST + 1)))


def test_a_link_to_an_empty_folder_is_a_store(tmp_path):
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place")
    (tmp_path / "ahead").symlink_to("elsewhere/deep")  # where nothing is yet
    for link, place in (("link", "place"), ("ahead", "elsewhere/deep")):
        drifts(tmp_path / link)
        assert (tmp_path / link).is_symlink()
        assert np.all(tts.open_sweep(tmp_path / place).status == 0)
        assert tts.open_sweep(tmp_path / link).equals(drifts(tmp_path / link))
    assert names(tmp_path) == ["ahead", "elsewhere", "link", "place"]


def test_a_store_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    drifts("~/s.zarr")
    assert names(tmp_path) == ["s.zarr"]
    for given in ("s3://bucket/s.zarr", "", 3):
        with pytest.raises(ValueError, match="Argument `store` must be a path"):
            drifts(given)


def create_slowly(store, begun):
    fill = creation._fill

    def stop(*given):
        fill(*given)
        begun.set()
        time.sleep(60)

    creation._fill = stop
    tts.configure(devices=1)
    drifts(store)


@pytest.mark.thorough
def test_what_a_kill_left_is_removed_and_what_another_makes_is_not(tmp_path):
    processes = multiprocessing.get_context("forkserver")
    begun = processes.Event()
    process = processes.Process(target=create_slowly, args=(tmp_path / "s.zarr", begun))
    process.start()
    assert begun.wait(120)
    there = names(tmp_path)
    assert len([name for name in there if name.startswith(scratch_prefix(tmp_path / "s.zarr"))]) > 1
    drifts(tmp_path / "s.zarr")
    assert names(tmp_path) == sorted([*there, "s.zarr"])
    (tmp_path / "s.zarr").rename(tmp_path / "moved")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    drifts(tmp_path / "s.zarr")
    assert names(tmp_path) == ["moved", "s.zarr"]


def test_who_comes_second_is_told(tmp_path, monkeypatch):
    fill, store = creation._fill, tmp_path / "s.zarr"

    def late(*given):
        fill(*given)
        if not store.exists():
            monkeypatch.setattr(creation, "_fill", fill)
            drifts(store)

    monkeypatch.setattr(creation, "_fill", late)
    with pytest.raises(tts.SweepError, match="another process has just made"):
        drifts(store)
    assert names(tmp_path) == ["s.zarr"]
    assert np.all(tts.open_sweep(store).status == 0)


def test_a_creation_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fails(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(creation, "_make", fails)
    with pytest.raises(tts.SweepError, match="no room in"):
        drifts(tmp_path / "s.zarr")
    assert names(tmp_path) == []
    with pytest.raises(tts.SweepError, match="Name a `store` where there is room"):
        drifts(None)


class Odd(Drift):
    """A dynamics that counts something under a name that is no name of a folder."""

    def run(self, given) -> RunOutputs:
        found = super().run(given)
        return found._replace(stats={"steps/second": found.stats["steps"]})


def test_a_name_that_is_no_folder_is_refused_before_anything_is_run(tmp_path):
    with pytest.raises(tts.SweepError, match="'steps/second', which can be no folder"):
        tts.sweep(small_problem(), Odd(), FEW, [0.1], store=tmp_path / "s.zarr")
    assert names(tmp_path) == []


def test_a_floor_along_axes_takes_no_more_room_than_it_has(tmp_path):
    """Its chunks were of 4096 values along each axis."""
    target = small_problem().target
    grid = {"target": {"a": target, "b": target}, "eta": [0.1, 0.2], "width": [3, 4]}
    study = tts.Study(small_problem(), Drift(), grid, [0.1])
    creation.create_store(tmp_path / "s.zarr", make_layout(study, variables_of(study)))
    data = tts.open_sweep(tmp_path / "s.zarr")
    assert data.floor.shape == (2, 2)
    assert data.floor.encoding["chunks"] == (64, 64)


def test_a_scratch_folder_is_held_while_it_is_made(tmp_path):
    with creation._scratch(tmp_path / "s.zarr") as half:
        creation._remove_leftovers(tmp_path / "s.zarr")
        assert half.is_dir()
        (half / "file").touch()
    assert names(tmp_path) == []
    half.mkdir()
    with held(creation._lock_of(half)):
        pass
    creation._lock_of(half).touch()  # as after a kill
    creation._remove_leftovers(tmp_path / "s.zarr")
    assert names(tmp_path) == []
