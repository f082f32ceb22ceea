"""The command's sweeps: plan, run, status, resume, pictures, export; help without JAX."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from small_studies import SGD_STUDY, written

import tts_jax as tts
from tts_jax import cli
from tts_jax.sweeps.storage.root import read_root, write_root


def test_help_needs_no_jax():
    script = (
        "import sys\n"
        "from tts_jax.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as error:\n"
        "    assert not error.code\n"
        "heavy = {'jax', 'numpy', 'xarray', 'zarr', 'matplotlib', 'diffrax'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert "sweep" in done.stdout


def test_a_reader_that_goes_away_is_no_error():
    """As in `tts-jax version | head -0`: the pipe is closed before anything is written."""
    script = (
        "import sys; sys.argv = ['tts-jax', 'version']\nfrom tts_jax.cli import command; command()"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_dry_run_prints_the_plan_and_runs_nothing(tmp_path, capsys):
    path = written(tmp_path)
    assert cli.main(["sweep", str(path), "--out", str(tmp_path / "s.zarr"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "SGD: 12 epsilon x 4 seed = 48 runs (width 6), 3 recorded times" in said
    assert "48 runs in 12 units of up to 4, 1 shape to compile" in said
    assert "expected: " in said
    assert "nothing was run" in said
    assert not (tmp_path / "s.zarr").exists()


def test_a_dry_run_of_an_extension_counts_what_is_new(store, capsys):
    path = written(store.parent, SGD_STUDY.replace("count = 4", "count = 6"))
    assert cli.main(["sweep", str(path), "--out", str(store), "--dry-run"]) == 0
    assert "to do: 24 runs in 12 units of up to 2" in capsys.readouterr().out
    assert xr.open_zarr(store, chunks=None).sizes["seed"] == 4


def test_status_tells_how_far_it_is(store, capsys):
    assert cli.main(["status", str(store)]) == 0
    said = capsys.readouterr().out
    assert "SGD, 48 of 48 runs made, complete" in said
    assert "runs per second" in said
    assert cli.main(["resume", str(store)]) == 0
    said = capsys.readouterr()
    assert "nothing to do" in said.err
    assert "48 of 48 runs made" in said.out
    assert "nothing to do" not in said.out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["status", "{}"], "holds no sweep"),
        (["resume", "{}"], "holds no sweep"),
        (["plot", "{}"], "holds no sweep"),
        (["export", "{}", "x.nc"], "holds no sweep"),
        (["sweep", "{}/none.toml"], "No such file"),
    ],
)
def test_what_is_not_there_is_told(tmp_path, capsys, words, complaint):
    assert cli.main([word.format(tmp_path) for word in words]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("words", [["export", "{}"], ["plot", "{}", "--out"]])
def test_a_file_in_a_folder_that_is_not_there_is_refused(store, tmp_path, capsys, words):
    file = tmp_path / "none" / "x.nc"
    assert cli.main([*(word.format(store) for word in words), str(file)]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_damaged_store_is_told_and_resumed(store, tmp_path, capsys):
    broken = tmp_path / "broken.zarr"
    for name in ("status/c/3/0", "epsilon/c/0", "u/zarr.json", "zarr.json"):
        shutil.copytree(store, broken)
        content = bytearray((broken / name).read_bytes())
        (broken / name).write_bytes(content[: len(content) // 2])
        if name != "u/zarr.json":  # readers take the copy of the metadata in the root
            assert cli.main(["status", str(broken)]) == 2
            assert f"`tts-jax resume {broken}` makes it whole again" in capsys.readouterr().err
        assert cli.main(["resume", str(broken)]) == 0
        with xr.open_zarr(broken, chunks=None) as data, xr.open_zarr(store, chunks=None) as whole:
            assert data.drop_attrs().load().identical(whole.drop_attrs().load())
        shutil.rmtree(broken)


@pytest.mark.parametrize("name", ["../victim", "{}/victim", "notes"])
def test_a_strangers_store_is_refused(store, tmp_path, capsys, name):
    forged = shutil.copytree(store, tmp_path / "forged.zarr")
    root = read_root(forged)
    arrays = root.arrays | {name.format(tmp_path): root.arrays["u"]}
    write_root(forged, root._replace(arrays=arrays))
    there = sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*"))
    assert cli.main(["resume", str(forged)]) == 2
    assert name.format(tmp_path) in capsys.readouterr().err
    assert sorted(file.relative_to(tmp_path) for file in tmp_path.rglob("*")) == there


def test_what_status_advises_works(store, tmp_path, capsys):
    cut_off = shutil.copytree(store, tmp_path / "cut off.zarr")
    shutil.rmtree(cut_off / "status" / "c" / "3")
    for damage in ("", "zarr.json", "a/c/5/0/0/0"):
        (cut_off / damage).unlink() if damage else None
        code = cli.main(["status", str(cut_off)])
        said = capsys.readouterr()
        command = shlex.split(re.search("`tts-jax (.*)`", said.out + said.err)[1])
        assert code == (2 if damage else 0)
        assert cli.main(command) == 0
        assert "48 of 48 runs made, complete" in capsys.readouterr().out
        assert tts.open_sweep(cut_off).equals(tts.open_sweep(store))


def test_a_strangers_study_makes_no_names(store, tmp_path, capsys):
    forged = shutil.copytree(store, tmp_path / "forged.zarr")
    root = read_root(forged)
    root.attributes["study"]["grid"]["../victim"] = [1.0, 2.0]
    write_root(forged, root)
    assert cli.main(["resume", str(forged)]) == 2
    assert "there is no `../victim` to sweep" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["forged.zarr"]


def test_a_file_of_another_kind_is_refused(store, tmp_path, capsys):
    for name in ("x.csv", "x.h5", "x"):
        assert cli.main(["export", str(store), str(tmp_path / name)]) == 2
        assert f"{tmp_path / name} must end in .nc" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_paths_may_begin_at_home_and_are_no_addresses(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "s.zarr").symlink_to(store)
    assert cli.main(["export", "~/s.zarr", "~/x.nc"]) == 0
    assert cli.main(["plot", "~/s.zarr", "--kind=risk", "--out=~/x.png"]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.zarr", "x.nc", "x.png"]
    address = "s3://bucket/x.zarr"
    for words in (
        ["status", address],
        ["resume", address],
        ["plot", address],
        ["plot", str(store), "--limit", address],
        ["plot", str(store), "--out", address],
        ["export", address, "x.nc"],
        ["export", str(store), address],
        ["sweep", address],
        ["sweep", "study.toml", "--out", address],
        ["sweep", "study.toml", "--out", address, "--dry-run"],
        ["figures", "relu", "--out", address],
    ):
        assert cli.main(words) == 2
        assert "must be a path of this machine's file system" in capsys.readouterr().err


def test_pictures_and_reports_put_numbers_in_order(store, tmp_path):
    path = written(tmp_path, SGD_STUDY.replace("{ from = 1e-2", "[0.02, 0.01] # { from = 1e-2"))
    out = tmp_path / "s.zarr"
    assert cli.main(["sweep", str(path), "--out", str(out)]) == 0
    assert xr.open_zarr(out, chunks=None).epsilon.values.tolist() == [0.02, 0.01]
    data = tts.open_sweep(out)
    assert data.epsilon.values.tolist() == [0.01, 0.02]
    assert np.array_equal(data.risk.sel(epsilon=0.01), xr.open_zarr(out).risk.sel(epsilon=0.01))


def test_export_writes_one_file_with_the_same_numbers(store, tmp_path):
    out = tmp_path / "sweep.nc"
    assert cli.main(["export", str(store), str(out)]) == 0
    data, original = xr.load_dataset(out, engine="scipy"), xr.open_zarr(store, chunks=None)
    assert set(data.variables) == set(original.variables)
    for name in original.variables:
        assert np.array_equal(data[name], original[name], equal_nan=True), name
    assert '"SGD"' in data.attrs["study"]
    assert cli.main(["export", str(store), str(tmp_path / "no" / "x.nc")]) == 2


@pytest.mark.thorough
def test_a_store_of_anothers_functions_is_resumed_in_python(tmp_path, capsys):
    def start(key, width):
        return tts.init_uniform(key, width)

    target = tts.PiecewiseConstant([0.5], [0.0, 1.0])
    problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=0.1)), target)
    store, grid = tmp_path / "s.zarr", {"seed": range(2), "width": 4}
    tts.sweep(problem, tts.LimitFlow(), grid, [0.1], store=store, start=start)
    assert cli.main(["resume", str(store)]) == 2
    assert "Resume it in Python" in capsys.readouterr().err
    assert tts.sweep(problem, tts.LimitFlow(), grid, [0.1], store=store, start=start).sizes


def test_every_public_name_can_be_had():
    for name in tts.__all__:
        assert getattr(tts, name) is not None
    assert callable(tts.simulate)
    assert callable(tts.sweep)
    with pytest.raises(AttributeError):
        _ = tts.nothing
