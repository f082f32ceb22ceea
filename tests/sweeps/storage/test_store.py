"""What can happen to a sweep, done to real ones: killed, interrupted, damaged, full, not alone."""

import contextlib
import copy
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from small_problems import small_problem
from small_studies import (
    DATA,
    DATA_STUDY,
    GAUSSIAN_STUDY,
    LONGER_STUDY,
    MANY_UNITS,
    Apart,
    drifts,
    files,
    finished,
    same,
    sessions,
    write_data,
    written,
)

import tts_jax as tts
from tts_jax import cli
from tts_jax.sweeps.execution.layout import make_layout
from tts_jax.sweeps.execution.variables import variables_of
from tts_jax.sweeps.storage.creation import create_store
from tts_jax.sweeps.storage.report import export_netcdf
from tts_jax.sweeps.storage.root import Root, read_root, resuming, write_root
from tts_jax.sweeps.storage.store import Store, locked, open_store
from tts_jax.sweeps.study.comparison import check_same
from tts_jax.sweeps.study.starts import seed_key
from tts_jax.sweeps.sweep import plan_of, run_study

MODULES = ["small_studies", "tts_jax.cli", "tts_jax.sweeps.sweep", "tts_jax.sweeps.storage.report"]
MODULES += ["tts_jax.sweeps.study.toml", "tts_jax.progress"]
"""What a process of the command imports. The server that the processes fork from has it already."""


@pytest.fixture(autouse=True)
def _environment_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    monkeypatch.setenv("JAX_ENABLE_X64", "1")


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
def study(tmp_path_factory):
    return written(tmp_path_factory.mktemp("study"), LONGER_STUDY)


@pytest.fixture(scope="module")
def whole(study):
    """A finished store, made by nobody who was disturbed."""
    store = study.with_name("whole.zarr")
    run_study(tts.read_study(study), store)
    return store


def made(store: Path) -> int:
    """How many runs a reader sees, at any moment."""
    if not store.exists():
        return 0
    data = tts.open_sweep(store)
    done = data.status.values >= 0
    assert np.all(np.isfinite(data.a.values[done]))
    return int(np.sum(done))


def sweep_many(store: Path) -> None:
    """A sweep that does little but write, such as a process of Python's runs."""
    jax.config.update("jax_enable_x64", True)
    tts.sweep(small_problem(), Apart(), MANY_UNITS, [0.0, 1.0], store=store)


KILLS = int(os.environ.get("TTS_KILLS", "20"))


@pytest.mark.thorough
def test_kills_at_random_moments_lose_nothing(processes, tmp_path):
    """TTS_KILLS of them: also while the store is made, and while what is damaged is made again."""
    store, moments = tmp_path / "killed.zarr", random.Random(KILLS)

    def begin(store):
        process = processes.Process(target=sweep_many, args=(store,))
        process.start()
        return process

    for name in ("first", "usual"):  # the first one finds nothing compiled
        begun = time.monotonic()
        begin(tmp_path / name).join()
        usual = time.monotonic() - begun
    there = 0
    for _ in range(KILLS):
        process = begin(store)
        process.join(moments.uniform(0.2, 1.0) * usual)
        process.kill()
        process.join()
        assert made(store) >= there
        there = made(store)
        if there == 160:  # all: the others are killed while they make some again
            for chunk in moments.sample(range(40), 10):
                shutil.rmtree(store / "status" / "c" / str(chunk))
            there = made(store)
    sweep_many(store)
    assert same(finished(store), finished(tmp_path / "usual"))
    assert not list(store.rglob("*.partial"))
    assert {file.name for file in tmp_path.iterdir()} == {"first", "usual", "killed.zarr"}


@pytest.mark.thorough
def test_two_at_once_do_not_meet(processes, study, whole, tmp_path, capsys):
    store = tmp_path / "shared.zarr"
    first = begin(processes, "sweep", study, "--out", store)
    while not (store / ".lock").exists():
        time.sleep(0.01)
        assert first.is_alive()
    assert cli.main(["resume", str(store)]) == 2
    assert "another process is working on" in capsys.readouterr().err
    first.join(120)
    assert first.exitcode == 0
    assert same(finished(store), finished(whole))


@pytest.mark.thorough
def test_an_interrupt_ends_it_well(processes, study, whole, tmp_path):
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


@pytest.mark.parametrize("damage", ["cut off", "altered", "empty", "gone"])
@pytest.mark.parametrize("name", ["u", "status"])
def test_a_damaged_chunk_is_made_again_and_no_other(whole, tmp_path, damage, name):
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
    assert cli.main(["resume", str(store)]) == 0
    made_in = sessions(tts.open_sweep(store))
    assert [session["runs"] for session in made_in] == [48, 4]
    assert same(finished(store), finished(whole))
    after = files(store)
    touched = {file for file in after if after[file] != before.get(file)}
    runs = ("risk", "u", "a", "status", "steps")
    assert {file.split("/c/")[1].split("/")[0] for file in touched if file.startswith(runs)} == {
        "5"
    }


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


def test_a_full_disk_is_told_and_what_was_finished_is_kept(study, whole, small_disk, capsys):
    store = small_disk / "full.zarr"
    assert cli.main(["sweep", str(study), "--out", str(store)]) == 1
    assert "no room in" in capsys.readouterr().err
    left = made(store)
    assert 0 < left < 48
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert cli.main(["resume", str(store)]) == 0
    assert same(finished(store), finished(whole))


def test_a_folder_that_cannot_be_written_is_told(study, whole, small_disk, capsys):
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    store, new = small_disk / "whole.zarr", small_disk / "new.zarr"
    shutil.copytree(whole, store)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for words in (["resume", str(store)], ["sweep", str(study), "--out", str(new)]):
        assert cli.main(words) == 2
        assert "cannot write to" in capsys.readouterr().err
    # To read it, nothing need be written.
    assert cli.main(["status", str(store)]) == 0
    assert "48 of 48 runs made, complete" in capsys.readouterr().out


def test_an_export_to_a_full_disk_leaves_what_was_there(copied, small_disk):
    file = small_disk / "s.nc"
    file.write_text("old")
    with contextlib.suppress(OSError), (small_disk / "much").open("wb") as filling:
        while True:
            filling.write(bytes(4096))
            filling.flush()
    with pytest.raises(tts.SweepError, match=f"cannot write {file}: No space left") as caught:
        export_netcdf(copied, file)
    assert caught.value.code == 1
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(tts.SweepError, match=f"cannot write {file}: Read-only"):
        export_netcdf(copied, file)
    assert sorted(path.name for path in small_disk.iterdir()) == ["much", "s.nc"]
    assert file.read_text() == "old"


def test_a_process_killed_while_it_made_room_leaves_a_readable_store(
    study, whole, tmp_path, monkeypatch
):
    """Arrays grow one after the other; readers go by the one file that is written last."""
    store = tmp_path / "growing.zarr"
    shutil.copytree(whole, store)
    asked = tts.read_study(study)
    more = tts.Study(
        asked.problem,
        asked.dynamics,
        {"epsilon": asked.axes.values("epsilon"), "seed": range(6), "width": 6},
        asked.taus,
    )
    original, grown = Store._grow, []

    def stops(self, name, shape):
        if len(grown) == 3:
            raise KeyboardInterrupt
        grown.append(name)
        original(self, name, shape)

    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(Store, "_grow", stops)
        run_study(more, store)
    assert len(grown) == 3
    assert same(finished(store), finished(whole))
    run_study(asked, store)
    assert same(finished(store), finished(whole))
    data = run_study(more, store)
    assert np.all(data.status == 0)
    old = data.sel(seed=range(4)).load().drop_attrs()
    assert same(old, finished(whole).drop_attrs())


def test_a_store_of_data_goes_on_by_itself_while_they_are_as_they_were(tmp_path):
    write_data(tmp_path)
    study = tts.read_study(written(tmp_path, DATA_STUDY))
    folder = tmp_path / "s.zarr"
    create_store(folder, make_layout(study, variables_of(study)))
    again = open_store(folder).study()
    assert again.description() == study.description()
    assert np.array_equal(again.problem.x, study.problem.x)
    description = study.description()
    assert resuming(folder, description) == f"`tts-jax resume {folder}`"
    # One made in Python has the same numbers, and no file that would bring them back.
    made = tts.Study(study.problem, study.dynamics, study.grid, study.taus, start=study.start)
    check_same(description, made.description(), folder)
    assert "another call of `tts.sweep`" in resuming(folder, made.description())
    write_data(tmp_path, DATA.replace("4.5", "4.6"))
    with pytest.raises(tts.SweepError, match=r"cannot be read again: the `y` in .* is no longer"):
        open_store(folder).study()
    with pytest.raises(tts.SweepError, match=r"problem\.y: other numbers"):
        plan_of(tts.read_study(written(tmp_path, DATA_STUDY)), folder)
    (tmp_path / "data.csv").rename(tmp_path / "moved.csv")
    with pytest.raises(tts.SweepError, match=r"there is no file `.*data\.csv`\. Put back"):
        open_store(folder).study()


@pytest.mark.thorough
@pytest.mark.parametrize("text", [GAUSSIAN_STUDY, DATA_STUDY], ids=["teacher", "data"])
def test_studies_of_two_layers_run_and_go_on_by_the_command(tmp_path, text, capsys):
    write_data(tmp_path)
    store = tmp_path / "s.zarr"
    file = written(tmp_path, text.replace("count = 3", "count = 2"))
    assert cli.main(["sweep", str(file), "--out", str(store)]) == 0
    assert "4 of 4 runs made, complete" in capsys.readouterr().out
    assert cli.main(["sweep", str(written(tmp_path, text)), "--out", str(store)]) == 0
    assert cli.main(["resume", str(store)]) == 0
    assert "6 of 6 runs made, complete" in capsys.readouterr().out
    data, study = tts.open_sweep(store), tts.read_study(file)
    made = tts.sweep(study.problem, study.dynamics, study.grid, study.taus, start=study.start)
    np.testing.assert_allclose(data.risk, made.risk, rtol=1e-11)
    start = study.start(jax.random.fold_in(seed_key(1), 0), 4)
    drawn = data.u_w.sel(seed=1, epsilon=1.0)[0]
    np.testing.assert_allclose(drawn, start.u["w"], rtol=1e-14)


def forge(store: Path, change) -> None:
    """Change what the root of a store says. Its checksum is right: anybody can make one."""
    root = copy.deepcopy(read_root(store))
    change(root.attributes, root.arrays)
    write_root(store, Root(root.attributes, root.arrays))


def one_more(name):
    return lambda attributes, arrays: arrays.update({name: copy.deepcopy(arrays["u"])})


FORGERIES = {
    "above": one_more("../victim"),
    "below": one_more("u/victim"),
    "hidden": one_more(".lock"),
    "another": one_more("notes"),
    "fewer": lambda _, arrays: arrays.pop("a"),
    "a group": lambda _, arrays: arrays["u"].update(node_type="group"),
    "no metadata": lambda _, arrays: arrays.update(u=3),
    "longer": lambda _, arrays: arrays["u"].update(shape=[2, 3, 2, 60]),
    "other axes": lambda _, arrays: arrays["u"].update(dimension_names=["a", "b", "c", "d"]),
    "other numbers": lambda _, arrays: arrays["u"].update(data_type="int32"),
    "other codecs": lambda _, arrays: arrays["u"]["codecs"][1].update(name="gzip"),
    "no codecs": lambda _, arrays: arrays["u"].pop("codecs"),
    "other chunks": lambda given, _: given["layout"].update(chunks=[1, 3]),
    "chunks of nothing": lambda given, _: given["layout"].update(chunks=[0, 3]),
    "chunks of words": lambda given, _: given["layout"].update(chunks=["../victim", 3]),
    "no chunks": lambda given, _: given["layout"].pop("chunks"),
    "another axis": lambda given, _: given["study"]["grid"].update({"../victim": [1.0]}),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_strangers_store_is_refused_and_nothing_is_written(copied, victim, how):
    (copied / "notes").mkdir()
    (copied / "notes" / "zarr.json").write_text("mine")
    forge(copied, FORGERIES[how])
    before = {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()}
    with pytest.raises(tts.SweepError):
        drifts(copied)
    after = {file: file.read_bytes() for file in copied.rglob("*") if file.is_file()}
    assert after == before
    with contextlib.suppress(tts.SweepError):  # it may be read
        tts.open_sweep(copied)


@pytest.mark.parametrize("name", ["../victim", "{}", "u/../../victim", ".."])
def test_a_name_that_leads_elsewhere_is_not_even_read(copied, victim, name):
    forge(copied, one_more(name.format(victim)))
    for ask in (tts.open_sweep, drifts):
        with pytest.raises(tts.SweepError, match="can be no folder in it"):
            ask(copied)


def test_a_users_own_folder_inside_is_no_part_of_it(copied, made):
    (copied / "notes").mkdir()
    (copied / "notes" / "zarr.json").write_text("mine")
    drifts(copied)
    assert "notes" not in read_root(copied).arrays
    assert tts.open_sweep(copied).equals(tts.open_sweep(made))


def test_metadata_of_an_array_are_those_of_the_root(copied, made):
    """Also where they can be read: the writer would go by them."""
    file = copied / "u" / "zarr.json"
    file.write_text(file.read_text().replace("float64", "float32"))
    assert drifts(copied).u.equals(tts.open_sweep(made).u)
    (copied / "u" / "c" / "0" / "0" / "0" / "0").unlink()
    assert drifts(copied).u.equals(tts.open_sweep(made).u)
    assert "float64" in file.read_text()


def test_a_store_that_is_moved_while_it_is_written_is_left(tmp_path, monkeypatch):
    store, moved, written = tmp_path / "s.zarr", tmp_path / "moved.zarr", []
    original = Store.write

    def write(self, *given):
        if len(written) == 2:
            store.rename(moved)
        written.append(given)
        original(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", write)
        with pytest.raises(tts.SweepError, match=r"has been moved or removed") as caught:
            sweep_many(store)
    assert caught.value.code == 1
    assert [file.name for file in tmp_path.iterdir()] == ["moved.zarr"]
    assert made(moved) == 8
    sweep_many(moved)
    assert made(moved) == 160


def test_a_store_that_another_machine_holds_tells_how_to_go_on(copied):
    with locked(copied):
        holder = copied / ".lock.holder"
        holder.write_text('{"host": "node7", "process": 41, "since": "2026-01-01T00:00:00"}')
        with pytest.raises(tts.SweepError, match=r"of the machine node7, since .*remove .*\.lock"):
            drifts(copied)
        (copied / ".lock").unlink()  # as it was told
        drifts(copied)
