"""`open_sweep`: what a reader sees, also while a process writes."""

import numpy as np
import pytest
import xarray as xr
from small_problems import small_problem
from small_studies import Apart, drifts

import tts_jax as tts
from tts_jax.sweeps.storage.report import report
from tts_jax.sweeps.storage.store import Store

GRID = {"epsilon": [0.1, 0.2, 0.5], "seed": range(4), "width": 3}
"""Three units of an `Apart`."""


def sweep(store):
    return tts.sweep(small_problem(), Apart(), GRID, [0.0, 1.0], store=store)


def at_every_write(monkeypatch, look):
    """Call a function after every write to a store."""
    original = Store._array

    class Watched:
        def __init__(self, array):
            self.array = array

        def __getattr__(self, name):
            return getattr(self.array, name)

        def __getitem__(self, place):
            return self.array[place]

        def __setitem__(self, place, values):
            self.array[place] = values
            look()

    monkeypatch.setattr(Store, "_array", lambda self, name: Watched(original(self, name)))


def test_numbers_come_in_order_though_they_are_stored_as_they_came(copied):
    data, stored = tts.open_sweep(str(copied)), xr.open_zarr(copied, chunks=None)
    assert stored.seed.values.tolist() == [5, 3, 4]
    assert data.seed.values.tolist() == [3, 4, 5]
    assert data.epsilon.values.tolist() == [0.1, 0.2]
    assert np.array_equal(data.u.sel(seed=5, epsilon=0.2), stored.u.sel(seed=5, epsilon=0.2))


def test_beside_a_status_is_all_that_the_run_left(tmp_path, monkeypatch):
    """A reader looks at parameters first and at statuses later, when more runs have been made."""
    store, seen = tmp_path / "s.zarr", []

    def look():
        if store.exists():
            data = tts.open_sweep(store)
            seen.append((data, data.a.values, data.risk.values))

    at_every_write(monkeypatch, look)
    sweep(store)
    made = [int(np.sum(data.status >= 0)) for data, *_ in seen]
    assert sorted(set(made)) == [0, 4, 8, 12]
    for data, a, risk in seen:
        done = data.status.values >= 0
        assert np.all(np.isfinite(a[done]))
        assert np.all(np.isfinite(risk[done]))


def test_a_run_that_is_made_again_has_no_status_meanwhile(tmp_path, monkeypatch):
    store, seen = tmp_path / "s.zarr", []
    sweep(store)
    (store / "a" / "c" / "1" / "0" / "0" / "0").unlink()
    with monkeypatch.context() as patched:
        original = Store.write

        def write(self, *given):
            seen.append(tts.open_sweep(store).status.values)
            original(self, *given)

        patched.setattr(Store, "write", write)
        sweep(store)
    (statuses,) = seen
    assert np.all(statuses[1] == -1)
    assert np.all(statuses[[0, 2]] == 0)
    assert np.all(tts.open_sweep(store).status == 0)


@pytest.mark.thorough
def test_a_reader_sees_one_moment_while_a_store_grows(tmp_path, monkeypatch):
    store, sizes = tmp_path / "s.zarr", []
    drifts(store, {"epsilon": [0.1, 0.2], "seed": range(2), "width": 3})

    def look():
        data = tts.open_sweep(store).load()
        sizes.append((data.sizes["epsilon"], data.epsilon.values.tolist()))

    at_every_write(monkeypatch, look)
    drifts(store, {"epsilon": [0.1, 0.2, 0.4], "seed": range(3), "width": [3]} | {"width": 3})
    assert {size for size, _ in sizes} == {2, 3}
    assert all(values == [0.1, 0.2, 0.4][:size] for size, values in sizes)


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_what_holds_no_sweep_is_told(tmp_path):
    (tmp_path / "file").write_text("no folder")
    xr.Dataset({"x": 1.0}).to_zarr(tmp_path / "other.zarr", zarr_format=3)
    for ask in (tts.open_sweep, report):
        for place in (tmp_path, tmp_path / "none", tmp_path / "file", tmp_path / "other.zarr"):
            with pytest.raises(tts.SweepError, match="holds no sweep"):
                ask(place)


def test_what_is_no_path_is_refused(monkeypatch, copied):
    for path in ("s3://bucket/s.zarr", 3, ""):
        with pytest.raises(ValueError, match="Argument `path` must be a path"):
            tts.open_sweep(path)
    monkeypatch.setenv("HOME", str(copied.parent))
    assert tts.open_sweep(f"~/{copied.name}").sizes["seed"] == 3


def test_a_sweep_is_one_netcdf_file(copied, tmp_path):
    data = tts.open_sweep(copied)
    data.to_netcdf(tmp_path / "s.nc")
    again = xr.load_dataset(tmp_path / "s.nc")
    assert again.attrs.keys() == data.attrs.keys()
    assert np.array_equal(again.u, data.u)
    target = {"one jump": small_problem().target}
    for grid in ({"target": target, "seed": range(2), "width": 3}, {"width": 3}):
        tts.sweep(small_problem(), Apart(), grid, [0.1]).to_netcdf(tmp_path / "t.nc")
        assert xr.load_dataset(tmp_path / "t.nc").attrs["method"] == "Apart"
