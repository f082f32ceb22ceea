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


ONES = {"taus": np.ones(1), "risk": np.ones(1), "status": 0, "stats": {}}


@pytest.mark.parametrize(
    ("a", "u", "axes"),
    [
        (
            np.ones((1, 5)),
            {"w": np.ones((1, 4, 3)), "b": np.ones((1, 4))},
            {"a": ("outer",), "u_b": ("neuron",), "u_w": ("neuron", "input")},
        ),
        (
            np.ones((1, 5, 2)),
            {"w": np.ones((1, 4, 3))},
            {"a": ("outer", "output"), "u_w": ("neuron", "input")},
        ),
        (
            {"last": [np.ones((1, 2))]},
            {"first": np.ones((1, 3)), "inner": {"b": np.ones(1)}},
            {"a_last_0": ("a_last_0_0",), "u_first": ("u_first_0",), "u_inner_b": ()},
        ),
        (
            np.ones((1, 2)),
            {"b_c": np.ones((1, 3)), "b": {"c": np.ones((1, 2))}},
            {"a": ("outer",), "u['b_c']": ("u['b_c']_0",), "u['b']['c']": ("u['b']['c']_0",)},
        ),
    ],
    ids=["two-layer", "outputs", "a user's own", "names that meet"],
)
def test_halves_of_any_pytrees_have_names(a, u, axes):
    data = tts.Trajectory(params=tts.Params(a, u), method="", solver="", **ONES).variables()
    found = {name: dims[1:] for name, (dims, _) in data.items() if name[0] in "au"}
    assert found == axes
