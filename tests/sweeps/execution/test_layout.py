"""The layout: chunks of runs that cost alike, as large as pays; making it traces nothing."""

import math

import numpy as np
import pytest
from small_problems import TRACED, CountedRamp, small_problem
from small_studies import Drift, compilations

import tts_jax as tts
from tts_jax.sweeps.execution import layout as tts_layout
from tts_jax.sweeps.execution.layout import make_layout
from tts_jax.sweeps.execution.plan import make_plan
from tts_jax.sweeps.execution.variables import Variable, variables_of

SGD = tts.SGD(0.05, 1e-3)


def given_variables(study):
    """What runs of a `ShallowNetwork` leave, written down."""
    count = len(study.taus)
    times = (count,) if study.keep == "all" else ()
    axes = ("tau",) if study.keep == "all" else ()
    float64, int32 = np.dtype(np.float64), np.dtype(np.int32)

    def of(width):
        return {
            "risk": Variable(("tau",), (count,), float64),
            "a": Variable((*axes, "outer"), (*times, width + 1), float64),
            "u": Variable((*axes, "neuron"), (*times, width), float64),
            "status": Variable((), (), int32),
        }

    return {(width, None): of(width) for width in study.axes.values("width")}


def layout(dynamics, grid, taus=(0.0, 1.0), **options):
    study = tts.Study(small_problem(), dynamics, grid, taus, **options)
    return make_layout(study, given_variables(study))


def everything(made):
    """All chunks of a layout, with all of their runs."""
    shapes = [[part.stop - part.start for part in made.region(c)] for c in made.all_chunks()]
    return [(c, np.ones(shape, bool)) for c, shape in zip(made.all_chunks(), shapes, strict=True)]


def bytes_of(made):
    return sum(math.prod(v.shape) * v.dtype.itemsize for v in made.whole.values())


def test_what_is_written_down_here_is_what_runs_leave():
    study = tts.Study(small_problem(), tts.LimitFlow(), {"width": [4, 6]}, (0.0, 1.0))
    assert given_variables(study) == variables_of(study)


def test_making_a_layout_and_a_plan_traces_nothing():
    problem = tts.Problem(tts.ShallowNetwork(CountedRamp(eta=0.1)), small_problem().target)
    grid = {"epsilon": [0.1, 1.0], "eta": [0.1, 0.2], "seed": range(40), "width": [3, 5]}
    for dynamics in (Drift(), SGD, tts.GradientFlow(1.0)):
        study = tts.Study(problem, dynamics, grid, (0.0, 1.0))
        variables = given_variables(study)
        TRACED.clear()
        with compilations() as found:
            made = make_layout(study, variables)
            plan = make_plan(made, everything(made), devices=2)
            assert "to do: 320 runs" in str(plan)
            assert plan.seconds > 0
        assert found == []
        assert TRACED == []


def test_the_parts_of_an_axis_are_about_as_long():
    made = layout(SGD, {"seed": range(65), "width": 4}, [1.0])
    assert made.chunks == (22,)  # of at most 32


def test_units_of_an_accelerator_fill_it_and_are_as_many_as_devices_need(monkeypatch):
    """Flows of any epsilon share one; SGD does not, nor takes a unit of long runs for hours."""
    monkeypatch.setattr(tts_layout, "on_accelerator", lambda: True)
    monkeypatch.setattr(tts_layout, "_FILLED", 64)

    def chunks(dynamics, seeds, tau=1e-3):
        grid = {"epsilon": [1e-4, 1e-2], "seed": range(seeds), "width": 4}
        return layout(dynamics, grid, [tau]).chunks

    flow = tts.GradientFlow(1.0)
    assert math.prod(chunks(flow, 2048)) == 2 * 2048 // 16
    assert chunks(flow, 32) == (2, 32)
    assert chunks(SGD, 2048) == (1, 256)
    assert chunks(SGD, 2048, tau=1e5) == (1, 64)


def test_a_unit_keeps_to_its_memory():
    grid = {"seed": range(4000), "width": 100}
    taus = np.linspace(0.0, 1.0, 2000)
    whole = layout(tts.LimitFlow(), grid, taus)
    assert math.prod(whole.chunks) * bytes_of(whole) < 1e8
    last = layout(tts.LimitFlow(), grid, taus, keep="last")
    assert len(last.all_chunks()) < len(whole.all_chunks())


@pytest.mark.parametrize("widths", [[5, 2000], [2000, 5]])
def test_the_widest_network_bounds_the_units(widths):
    grid = {"width": widths, "seed": range(4000)}
    made = layout(tts.GradientFlow(1.0), grid, np.linspace(0.0, 1.0, 1001))
    assert math.prod(made.chunks) * bytes_of(made) < 1e8
    units = [made.unit(chunk, runs) for chunk, runs in everything(made)]
    assert max(unit.seconds for unit in units) <= 60.0


def test_axes_that_cost_alike_are_filled_up_first():
    """Seeds, whatever their place; then what changes no steps; what changes most comes last."""
    flow = tts.GradientFlow(1.0)
    grid = {"epsilon": [1e-4, 1.0], "rtol": [1e-6, 1.1e-6], "eta": [0.1, 0.2], "seed": range(8)}
    assert layout(flow, {**grid, "width": 4}).chunks == (1, 1, 2, 8)
    grid["seed"] = range(4)
    assert layout(flow, {**grid, "width": 4}).chunks == (1, 2, 2, 4)


def test_runs_of_a_unit_of_sgd_are_in_step():
    """Not where a number changes how many steps there are, even if another one makes up for it."""
    pairs = [(0.01, 2e-3), (0.02, 1e-3)]
    zipped = {("epsilon", "step_size"): pairs, "noise": [0.0, 0.1], "seed": range(4), "width": 4}
    assert layout(SGD, zipped).chunks == (1, 2, 4)
    assert layout(tts.GradientFlow(1.0), {"epsilon": [0.01, 0.02], "width": 4}).chunks == (2,)


def test_what_all_runs_of_a_chunk_have_in_common_is_named():
    grid = {("width", "eta"): [(4, 0.1), (5, 0.2)], "noise": [0.0, 0.1], "epsilon": [0.1, 0.2]}
    made = layout(SGD, {**grid, "step_size": 1e-3, "seed": range(3)})
    assert made.shared == ("width", "eta", "epsilon", "step_size")


def test_every_run_is_at_one_place_of_one_chunk():
    grid = {"epsilon": np.geomspace(0.1, 1, 7), "seed": range(45), "width": [4, 6]}
    made = layout(tts.GradientFlow(1.0), grid)
    units = [made.unit(chunk, runs) for chunk, runs in everything(made)]
    points = [tuple(point.items()) for unit in units for point in made.points(unit)]
    assert len(points) == len(set(points)) == 7 * 45 * 2
    assert {made.kind(unit) for unit in units} == {(4, None), (6, None)}
    # Of a part of a unit, only the points that are asked for.
    mask = np.zeros_like(units[0].mask)
    mask.flat[[1, 3]] = True
    part = made.unit(units[0].chunk, mask)
    assert made.points(part) == [made.points(units[0])[i] for i in (1, 3)]
