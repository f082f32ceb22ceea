"""The grid: axes, zipped axes, single values, labels, and the stream of noise of a run."""

import numpy as np
import pytest

import tts_jax as tts
from tts_jax.sweeps.study.grid import make_grid, stream


def test_a_product_has_every_combination_once():
    grid = make_grid({"epsilon": [0.1, 1.0], "seed": range(3), "width": 20})
    assert grid.shape == (2, 3)
    points = [grid.point(index) for index in np.ndindex(grid.shape)]
    assert len({tuple(sorted(point.items())) for point in points}) == 6
    assert points[4] == {"epsilon": 1.0, "seed": 1, "width": 20}


def test_zipped_names_go_together():
    grid = make_grid({("width", "eta"): [(10, 1e-2), (20, 4e-3)], "seed": [7]})
    assert grid.shape == (2, 1)
    assert grid.axes[0].dimension == "width_eta"
    assert grid.point((1, 0)) == {"width": 20, "eta": 4e-3, "seed": 7}


def test_numbers_of_any_kind_become_those_of_python():
    grid = make_grid({"epsilon": np.array([1, 2]), "width": np.int32(5), "seed": np.arange(2)})
    assert grid.point((0, 1)) == {"epsilon": 1.0, "width": 5, "seed": 1}
    assert isinstance(grid.point((0, 0))["width"], int)


def test_an_extended_grid_keeps_its_places_and_appends():
    first = make_grid({"epsilon": [1.0, 0.1], "seed": range(2), "width": 4})
    more = make_grid({"epsilon": [0.5, 0.1], "seed": range(3), "width": 4})
    both = first.extended(more)
    assert both.values("epsilon") == (1.0, 0.1, 0.5)
    assert both.values("seed") == (0, 1, 2)
    assert both.point((1, 1)) == first.point((1, 1))


def test_a_stream_depends_on_the_run_alone():
    point = {"epsilon": 0.1, "width": 20, "seed": 3}
    assert stream(point) == stream({"width": 20, "seed": 4, "epsilon": 0.1})
    for other in ({"epsilon": float(np.nextafter(0.1, 1.0))}, {"width": 21}, {"noise": 0.0}):
        assert stream({**point, **other}) != stream(point)


@pytest.mark.parametrize(
    ("grid", "complaint"),
    [
        ([1, 2], "a mapping of names to values"),
        ({"epsilon": []}, "at least one value"),
        ({"epsilon": [0.1, 0.1]}, "0.1 more than once"),
        ({"epsilon": ["a"]}, "must be numbers, but is 'a'"),
        ({"epsilon": [np.nan]}, "must be finite numbers"),
        ({"seed": [0.5]}, "whole numbers of at least 0"),
        ({"width": [0]}, "whole numbers of at least 1"),
        ({("width", "eta"): [(1, 2, 3)]}, "rows of 2 values"),
        ({("width", "eta"): [(1, 0.1)], "eta": [0.1]}, "['eta'] given twice"),
        ({"target": {}}, "a mapping of labels to targets"),
        ({"target": {"a": 3.0}}, "'a': float"),
        ({("target", "eta"): [(1, 2)]}, "an axis of its own"),
    ],
)
def test_what_is_no_grid_is_refused(grid, complaint):
    with pytest.raises(ValueError, match="Argument `grid") as error:
        make_grid(grid)
    assert complaint in str(error.value)


def test_labels_of_targets_are_an_axis():
    stairs = tts.PiecewiseConstant([0.5], [0.0, 1.0])
    grid = make_grid({"target": {"up": stairs}, "width": 3})
    assert grid.shape == (1,)
    assert grid.point((0,)) == {"target": "up", "width": 3}
    assert dict(grid.targets)["up"] is stairs
