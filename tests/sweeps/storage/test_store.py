"""What can happen to a sweep, done to real ones: killed, interrupted, damaged, full, not alone."""

import contextlib
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from small_studies import SGD_STUDY, files, finished, same, written

import tts_jax as tts
from tts_jax import cli
from tts_jax.sweeps.sweep import run_study

MODULES = ["tts_jax.cli", "tts_jax.sweeps.sweep", "tts_jax.sweeps.report", "tts_jax.progress"]
"""What a process of the command imports. The server that the processes fork from has it already."""


def command(*words: str, output: Path | None = None) -> None:
    """`tts-jax` in a process of its own."""
    if output is not None:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
    # A test runner may have told its children to ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["tts-jax", *words]
    cli.command()


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    return context


def begin(processes, *words, **options):
    process = processes.Process(target=command, args=tuple(map(str, words)), kwargs=options)
    process.start()
    return process


def end(processes, *words, **options) -> int:
    process = begin(processes, *words, **options)
    process.join(120)
    return process.exitcode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, processes):
    """A study, and a finished store of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    # Short steps: units that take a tenth of a second, so that something can happen to them.
    study = written(folder, SGD_STUDY.replace("step_size = 1e-3", "step_size = 1e-4"))
    assert end(processes, "sweep", study, "--out", folder / "whole.zarr") == 0
    return study, folder / "whole.zarr"


def made(store: Path) -> int:
    """How many runs a reader sees, at any moment."""
    if not store.exists():
        return 0
    return int(np.sum(xr.open_zarr(str(store), chunks=None).status.values >= 0))


def test_twenty_kills_at_random_moments_lose_nothing(processes, undisturbed, tmp_path):
    study, whole = undisturbed
    store, moments = tmp_path / "killed.zarr", random.Random(7)
    begun, there = time.monotonic(), 0
    assert end(processes, "sweep", study, "--out", tmp_path / "usual.zarr") == 0
    usual = time.monotonic() - begun
    for _ in range(20):
        process = begin(processes, "sweep", study, "--out", store)
        process.join(moments.uniform(0.2, 1.0) * usual)
        process.kill()
        process.join()
        assert made(store) >= there
        there = made(store)
        if there == 48:  # all: the others are killed while they make some again
            for chunk in moments.sample(range(12), 3):
                shutil.rmtree(store / "status" / "c" / str(chunk))
            there = made(store)
    assert end(processes, "resume", store) == 0
    assert same(finished(store), finished(whole))
    assert not list(store.rglob("*.partial"))


@pytest.mark.parametrize("damage", ["cut off", "altered", "empty", "gone"])
@pytest.mark.parametrize("name", ["u", "status"])
def test_a_damaged_chunk_is_made_again_and_no_other(processes, undisturbed, tmp_path, damage, name):
    whole = undisturbed[1]
    store = tmp_path / "damaged.zarr"
    shutil.copytree(whole, store)
    before = files(store)
    (victim, *_) = sorted(path for path in (store / name / "c" / "5").rglob("*") if path.is_file())
    content = bytearray(victim.read_bytes())
    if damage == "cut off":
        victim.write_bytes(content[:-5])
    elif damage == "altered":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif damage == "empty":
        victim.write_bytes(b"")
    else:
        victim.unlink()
    assert end(processes, "resume", store) == 0
    sessions = xr.open_zarr(str(store), chunks=None).attrs["sessions"]
    assert [session["runs"] for session in sessions] == [48, 4]
    assert same(finished(store), finished(whole))
    after = files(store)
    touched = {file for file in after if after[file] != before.get(file)}
    runs = ("risk", "u", "a", "status", "steps")
    assert {file.split("/c/")[1].split("/")[0] for file in touched if file.startswith(runs)} == {
        "5"
    }


def test_two_at_once_do_not_meet(processes, undisturbed, tmp_path):
    study, whole = undisturbed
    store = tmp_path / "shared.zarr"
    first = begin(processes, "sweep", study, "--out", store)
    while not (store / ".lock").exists():
        time.sleep(0.01)
        assert first.is_alive()
    said = tmp_path / "said"
    assert end(processes, "resume", store, output=said) == 2
    assert "another process is working on" in said.read_text()
    first.join(120)
    assert first.exitcode == 0
    assert same(finished(store), finished(whole))


def test_an_interrupt_ends_it_well(processes, undisturbed, tmp_path):
    study, whole = undisturbed
    store, said = tmp_path / "interrupted.zarr", tmp_path / "said"
    process = begin(processes, "sweep", study, "--out", store, output=said)
    while made(store) == 0:
        time.sleep(0.01)
        assert process.is_alive()
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert "what was finished is kept" in said.read_text()
    assert 0 < made(store) < 48
    assert end(processes, "resume", store) == 0
    assert same(finished(store), finished(whole))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, too small for a sweep. Needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=240k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_what_was_finished_is_kept(
    processes, undisturbed, small_disk, tmp_path
):
    study, whole = undisturbed
    store, said = small_disk / "full.zarr", tmp_path / "said"
    assert end(processes, "sweep", study, "--out", store, output=said) == 1
    assert "no room in" in said.read_text()
    left = made(store)
    assert 0 < left < 48
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert end(processes, "resume", store) == 0
    assert same(finished(store), finished(whole))


def test_a_folder_that_cannot_be_written_is_told(processes, undisturbed, small_disk, tmp_path):
    study, whole = undisturbed
    said = tmp_path / "said"
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    store = small_disk / "whole.zarr"
    shutil.copytree(whole, store)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for words in (("resume", store), ("sweep", study, "--out", small_disk / "new.zarr")):
        assert end(processes, *words, output=said) == 2
        assert "cannot write to" in said.read_text()
    # To read it, nothing need be written.
    assert end(processes, "status", store, output=said) == 0
    assert "48 of 48 runs made, complete" in said.read_text()


def test_a_process_killed_while_it_made_room_leaves_a_readable_store(undisturbed, tmp_path):
    """Arrays grow one after the other; readers go by the one file that is written last."""
    study, whole = undisturbed
    store = tmp_path / "growing.zarr"
    shutil.copytree(whole, store)
    asked = tts.read_study(study)
    more = tts.Study(
        asked.problem,
        asked.dynamics,
        {"epsilon": asked.axes.values("epsilon"), "seed": range(6), "width": 6},
        asked.taus,
    )
    module = importlib.import_module("tts_jax.sweeps.store")
    original, grown = module.Store._grow, []

    def stops(self, name, shape):
        if len(grown) == 3:
            raise KeyboardInterrupt
        grown.append(name)
        original(self, name, shape)

    module.Store._grow = stops
    try:
        with contextlib.suppress(KeyboardInterrupt):
            run_study(more, store)
    finally:
        module.Store._grow = original
    assert len(grown) == 3
    assert same(finished(store), finished(whole))
    run_study(asked, store)
    assert same(finished(store), finished(whole))
    data = run_study(more, store)
    assert np.all(data.status == 0)
    old = data.sel(seed=range(4)).load().drop_attrs()
    assert same(old, finished(whole).drop_attrs())
