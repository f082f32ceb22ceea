"""What a store says of itself, and its export."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from small_problems import small_problem
from small_studies import Drift

import tts_jax as tts
from tts_jax.sweeps.storage.report import export_netcdf, report
from tts_jax.sweeps.storage.store import locked

GRID = {"epsilon": [0.2, 0.1], "seed": [5, 3, 4], "width": 6}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "s.zarr"
    tts.sweep(small_problem(), Drift(), GRID, [0.0, 1.0], store=folder)
    return folder


class Picky(Drift):
    """A `Drift` that runs only where the first neuron begins far left."""

    def run(self, given):
        failed = jnp.where(given.params.u[0] > 0.1, tts.Status.TOO_FEW_NEURONS, tts.Status.OK)
        return super().run(given)._replace(status=failed.astype(jnp.int32))


@pytest.fixture(scope="module")
def partial(tmp_path_factory):
    """A store with runs that failed, one of whose chunks has been lost."""
    folder = tmp_path_factory.mktemp("partial") / "s.zarr"
    grid = {"seed": range(40), "width": 6}
    tts.sweep(small_problem(), Picky(), grid, [0.1], store=folder)
    (folder / "status" / "c" / "0").unlink()
    return folder


def test_numbers_come_in_order_though_they_are_stored_as_they_came(store):
    data, stored = tts.open_sweep(store), xr.open_zarr(store, chunks=None)
    assert stored.seed.values.tolist() == [5, 3, 4]
    assert data.seed.values.tolist() == [3, 4, 5]
    assert data.epsilon.values.tolist() == [0.1, 0.2]
    assert np.array_equal(data.u.sel(seed=5, epsilon=0.2), stored.u.sel(seed=5, epsilon=0.2))


def test_a_finished_store_says_so(store):
    lines = report(store).splitlines()
    assert lines[0] == f"{store}: Drift, 6 of 6 runs made, complete"
    assert "runs per second" in lines[1]
    assert "efficiency 1.00" in lines[2]
    assert len(lines) == 3


def test_what_is_missing_and_what_failed_is_counted(partial):
    statuses = xr.open_zarr(partial, chunks=None).status.values
    missing, failed = np.sum(statuses < 0), np.sum(statuses == tts.Status.TOO_FEW_NEURONS)
    assert missing
    assert failed
    said = report(partial)
    assert f"{40 - missing} of 40 runs made\n" in said
    assert f"{failed} ended with TOO_FEW_NEURONS: {tts.Status.TOO_FEW_NEURONS.message}" in said
    # A class of the test's own, which the command does not know.
    assert said.endswith("go on with another call of `tts.sweep` with the same arguments")


def test_a_process_at_work_is_told(partial):
    with locked(partial):
        assert report(partial).endswith("a process is working on it now")


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_what_holds_no_sweep_is_told(tmp_path):
    for ask in (tts.open_sweep, report):
        with pytest.raises(tts.SweepError, match="holds no sweep"):
            ask(tmp_path)
    xr.Dataset({"x": 1.0}).to_zarr(tmp_path / "other.zarr", zarr_format=3)
    with pytest.raises(tts.SweepError, match="holds no sweep"):
        tts.open_sweep(tmp_path / "other.zarr")


def test_an_export_has_all_numbers_in_one_file(store, tmp_path):
    export_netcdf(store, tmp_path / "s.nc")
    data, original = xr.load_dataset(tmp_path / "s.nc", engine="scipy"), tts.open_sweep(store)
    assert set(data.variables) == set(original.variables)
    for name in original.variables:
        assert np.array_equal(data[name], original[name], equal_nan=True), name
    assert data.attrs == original.attrs
    assert json.loads(data.attrs["study"])["dynamics"]["type"].endswith("Drift")
    assert [path.name for path in tmp_path.iterdir()] == ["s.nc"]


def test_an_export_that_fails_leaves_nothing(store, tmp_path):
    (tmp_path / "taken.nc").mkdir()
    with pytest.raises(tts.SweepError, match="cannot write"):
        export_netcdf(store, tmp_path / "taken.nc")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.nc"]
