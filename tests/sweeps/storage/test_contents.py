"""What is in a store: no links, nothing missing, and coordinates that are those of the study."""

import os
import shutil

import numpy as np
import pytest
from small_problems import small_problem
from small_studies import Drift, drifts, same

import tts_jax as tts
from tts_jax.sweeps.storage.contents import chunk_files, hash_of, remove_partial
from tts_jax.sweeps.storage.report import export_netcdf, report

NAMES = (
    "a",
    "risk",
    "steps",
    "u",
    "status",
    "epsilon",
    "seed",
    "tau",
    "width",
    "floor",
    "recovered_below",
)


def chunks_of(store, name):
    place = store / name / "c"  # a file, where there is a single value
    return [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.is_file())


@pytest.mark.parametrize("name", NAMES)
def test_a_chunk_that_is_missing_is_told_and_made_again(copied, made, tmp_path, name):
    (file,) = chunks_of(copied, name)
    file.unlink()
    if name == "status":  # that of runs that have not been made
        assert "0 of 6 runs made" in report(copied)
    else:
        for ask in (tts.open_sweep, report, lambda path: export_netcdf(path, tmp_path / "x.nc")):
            with pytest.raises(tts.SweepError, match="makes it whole again"):
                ask(copied)
        assert not (tmp_path / "x.nc").exists()
    assert same(drifts(copied).load().drop_attrs(), tts.open_sweep(made).load().drop_attrs())
    assert "6 of 6 runs made, complete" in report(copied)


def test_coordinates_of_another_store_are_told(copied, tmp_path):
    """Their chunks have checksums, and they are right."""
    drifts(tmp_path / "other.zarr", {"epsilon": [0.2, 0.1], "seed": [1, 2, 9], "width": 6})
    shutil.copytree(tmp_path / "other.zarr" / "seed", copied / "seed", dirs_exist_ok=True)
    with pytest.raises(tts.SweepError, match="coordinates are not those of its study"):
        tts.open_sweep(copied)
    assert drifts(copied).seed.values.tolist() == [3, 4, 5]
    assert tts.open_sweep(copied).seed.values.tolist() == [3, 4, 5]


def test_narrow_runs_have_no_chunk_where_wide_ones_go_on(tmp_path):
    store, grid = tmp_path / "s.zarr", {"width": [3], "seed": range(2)}
    drifts(store, grid)
    drifts(store, {**grid, "width": [3, 6]})
    assert np.all(tts.open_sweep(store).status == 0)
    files = [str(file.relative_to(store / "u" / "c")) for file in chunks_of(store, "u")]
    assert files == ["0/0/0/0", "1/0/0/0", "1/0/0/1"]
    (store / "u" / "c" / "1" / "0" / "0" / "1").unlink()
    with pytest.raises(tts.SweepError, match="u/c/1/0/0/1 is missing"):
        tts.open_sweep(store)


def test_targets_tell_kinds_apart(tmp_path):
    target = small_problem().target
    grid = {"target": {"one": target, "two": target}, ("width", "eta"): [(3, 0.1), (5, 0.2)]}
    tts.sweep(small_problem(), Drift(), grid, [0.1], store=tmp_path / "s.zarr")
    assert np.all(tts.open_sweep(tmp_path / "s.zarr").status == 0)


@pytest.mark.parametrize(
    "place",
    ["u", "u/c", "u/c/0", "u/c/0/0/0/0", "u/zarr.json", "zarr.json", ".lock", "more", "x/y"],
)
def test_a_link_inside_is_refused(copied, tmp_path, victim, place):
    where = copied / place
    shutil.rmtree(where, ignore_errors=True)
    where.unlink(missing_ok=True)
    where.parent.mkdir(exist_ok=True)
    where.symlink_to(victim if "." not in place else victim / "file")
    asks = (tts.open_sweep, report, drifts, lambda path: export_netcdf(path, tmp_path / "x.nc"))
    for ask in asks:
        with pytest.raises(tts.SweepError, match="is a link"):
            ask(copied)


def test_what_is_no_file_is_refused(copied):
    os.mkfifo(copied / "u" / "c" / "pipe")  # to read it would take forever
    with pytest.raises(tts.SweepError, match="is a link, or no file"):
        tts.open_sweep(copied)


def test_only_what_a_kill_left_is_removed(copied):
    number = "0123456789abcdef" * 2
    left = [f"u/c/0/0/0/0.{number}.partial", f"zarr.{number}.partial", f"width/c.{number}.partial"]
    mine = ["notes.partial", "u/c/mine.partial", f"notes/0.{number}.partial", "zarr.partial"]
    (copied / "notes").mkdir()
    for name in (*left, *mine):
        (copied / name).write_text("")
    remove_partial(copied, ["u", "width"])
    assert not any((copied / name).exists() for name in left)
    drifts(copied)
    assert all((copied / name).exists() for name in mine)


def test_files_of_a_chunk():
    assert chunk_files("u", (1, 2), (7, 3), (4, 3)) == ["u/c/1/2/0/0", "u/c/1/2/1/0"]
    assert chunk_files("status", (), (), ()) == ["status/c"]


def test_a_hash_counts_names_and_every_value():
    first = {"x": np.array([0.1, 0.2]), "label": np.array(["a"], object)}
    assert hash_of(first) == hash_of(dict(reversed(first.items())))
    for other in ({"x": np.array([0.1, np.nextafter(0.2, 1)])}, {"label": np.array(["b"])}):
        assert hash_of(first | other) != hash_of(first)
    assert hash_of({"y" if n == "x" else n: v for n, v in first.items()}) != hash_of(first)
