"""Analyses of sweeps, against formulas and loops over the runs."""

import numpy as np
import pytest
import xarray as xr

from tts_jax import Status, analyses

TAUS = np.array([0.0, 1.0, 2.0, 3.0])


def made_up(seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    risk = rng.choice([0.005, 0.5], size=(3, 2, 10, 4))
    status = np.zeros((3, 2, 10), int)
    status[1, 1, 2] = Status.MAX_STEPS
    status[2, 0, :4] = -1
    status[0, 1] = -1
    risk[status == -1] = np.nan
    return xr.Dataset(
        {
            "risk": (("epsilon", "width", "seed", "tau"), risk),
            "status": (("epsilon", "width", "seed"), status),
            "recovered_below": ((), 0.02),
        },
        coords={"epsilon": [0.1, 0.5, 1.0], "width": [5, 10], "tau": TAUS},
    )


def wilson(k: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson 1927: the values of p that are z standard deviations from k/n."""
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    return centre - half, centre + half


def test_success_counts_and_wilson_intervals():
    data = made_up()
    found = analyses.success(data)
    assert found.probability.dims == ("epsilon", "width")
    for i in range(3):
        for j in range(2):
            runs = data.isel(epsilon=i, width=j)
            there = [k for k in range(10) if runs.status[k] >= 0]
            won = [k for k in there if runs.status[k] == 0 and runs.risk[k, -1] < 2.5 * 0.008]
            cell = found.isel(epsilon=i, width=j)
            assert int(cell.runs) == len(there)
            assert int(cell.successes) == len(won)
            if there:
                assert float(cell.probability) == pytest.approx(len(won) / len(there))
                ends = wilson(len(won), len(there))
                assert (float(cell.low), float(cell.high)) == pytest.approx(ends, abs=1e-12)
            else:
                assert np.isnan(cell.probability)
                assert np.isnan(cell.low)
    assert int(found.failed.sum()) == 1
    turned = analyses.success(data, ("width", "epsilon"))
    assert np.array_equal(turned.probability.T, found.probability, equal_nan=True)


def test_success_over_one_axis_and_with_a_threshold():
    data = made_up()
    found = analyses.success(data, ("epsilon",), below=1.0)
    assert found.runs.values.tolist() == [10, 20, 16]
    assert found.successes.values.tolist() == [10, 19, 16]
    with pytest.raises(ValueError, match="`over` must be axes among"):
        analyses.success(data, ("noise",))
    with pytest.raises(ValueError, match="`below` must be a number"):
        analyses.success(data.drop_vars("recovered_below"))


def test_bands_are_quantiles_over_what_is_left():
    data = made_up()
    found = analyses.bands(data, ("epsilon",), quantiles=(0.25, 0.5))
    assert found.dims == ("quantile", "epsilon", "tau")
    for i in range(3):
        for t in range(4):
            runs = data.risk.values[i, :, :, t].ravel()
            expected = np.nanquantile(runs, [0.25, 0.5])
            assert np.allclose(found.isel(epsilon=i, tau=t), expected)


def test_convergence_is_the_first_time_from_which_it_stays():
    risk = [[1, 0.1, 0.1, 0.1], [1, 0.1, 1, 0.1], [0.1] * 4, [0.1, 0.1, 0.1, 1], [0.1, np.nan] * 2]
    data = xr.Dataset(
        {"risk": (("seed", "tau"), risk), "status": (("seed",), [0, 0, 0, 0, 1])},
        coords={"tau": TAUS},
    )
    found = analyses.convergence_time(data, below=0.5)
    assert np.array_equal(found, [1.0, 3.0, 0.0, np.nan, np.nan], equal_nan=True)


def test_only_a_dataset_is_analysed():
    with pytest.raises(ValueError, match="`data` must be of type Dataset"):
        analyses.success([1, 2])


def test_one_axis_may_be_named_alone():
    data = xr.Dataset(
        {
            "risk": (("epsilon", "seed", "tau"), np.array([[[0.0], [1.0]], [[1.0], [1.0]]])),
            "status": (("epsilon", "seed"), np.zeros((2, 2), int)),
        },
        coords={"epsilon": [0.1, 1.0], "seed": [0, 1], "tau": [1.0]},
    )
    found = analyses.success(data, "epsilon", below=0.5)
    assert found.probability.dims == ("epsilon",)
    assert found.probability.values.tolist() == [0.5, 0.0]
    assert analyses.bands(data, "epsilon").dims == ("quantile", "epsilon", "tau")
    with pytest.raises(ValueError, match=r"`over` must be axes among .*, but is `eta`"):
        analyses.success(data, "eta", below=0.5)
    with pytest.raises(ValueError, match=r"`data` must be a sweep, .* a Dataset without risk and"):
        analyses.convergence_time(xr.Dataset({"status": ("seed", [0])}), below=0.5)
