"""What a simulation returns: labelled, printed, and picked from."""

import numpy as np
import pytest
from small_problems import TIMES, WIDTH, slow_times, small_problem, spread_start

import tts_jax as tts

TAUS = slow_times(0.05)


@pytest.fixture(scope="module")
def good():
    return tts.simulate(small_problem(), tts.GradientFlow(1e-3), spread_start(), TAUS)


def test_to_xarray_names_its_axes(good):
    data = good.to_xarray()
    assert data["a"].dims == ("tau", "outer")
    assert data["u"].dims == ("tau", "neuron")
    assert data["risk"].dims == ("tau",)
    assert data.attrs["method"] == "GradientFlow"
    assert data.attrs["solver"] == "Rodas5P, PairwiseForm"
    np.testing.assert_array_equal(data["tau"], TAUS)
    np.testing.assert_array_equal(data["u"].isel(neuron=2), good.params.u[:, 2])
    assert int(data["steps"]) == int(good.stats["steps"])
    assert int(data["status"]) == tts.Status.OK


def test_a_trajectory_prints_a_summary(good):
    text = str(good)
    for part in (
        "GradientFlow (Rodas5P, PairwiseForm): OK",
        f"a ({TIMES}, {WIDTH + 1})",
        f"u ({TIMES}, {WIDTH})",
    ):
        assert part in text
    assert f"{float(good.risk[-1]):.6g} at tau = 0.05" in text
    assert f"{int(good.stats['steps'])} steps" in text


def test_final_and_at_pick_times(good):
    np.testing.assert_array_equal(good.final.u, good.params.u[-1])
    np.testing.assert_array_equal(good.at(3).a, good.params.a[3])
