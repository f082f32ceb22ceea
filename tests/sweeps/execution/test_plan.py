"""The plan: chunks of runs that cost alike, in order of cost, as large as pays."""

import math
import threading

import jax
import numpy as np
import pytest
from small_studies import small_problem

import tts_jax as tts
from tts_jax.sweeps.execution import plan as tts_plan
from tts_jax.sweeps.execution.cost import expected_seconds, expected_steps
from tts_jax.sweeps.execution.local import on_devices
from tts_jax.sweeps.execution.plan import Efficiency, Layout
from tts_jax.sweeps.sweep import plan_of

SGD = tts.SGD(0.05, 1e-3)


def plan(dynamics, grid, taus=(0.0, 1.0), **options):
    return plan_of(tts.Study(small_problem(), dynamics, grid, taus, **options))


def test_every_run_is_in_one_unit():
    grid = {"epsilon": np.geomspace(1e-3, 1, 7), "seed": range(45), "width": [4, 6]}
    whole = plan(tts.GradientFlow(1.0), grid)
    points = [tuple(p.items()) for unit in whole.units for p in whole.layout.points(unit)]
    assert len(points) == len(set(points)) == whole.runs == 7 * 45 * 2


def test_dear_units_come_first():
    grid = {"epsilon": np.geomspace(1e-3, 1e-1, 5), "seed": range(40), "width": 4}
    seconds = [unit.seconds for unit in plan(SGD, grid).units]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > 50 * seconds[-1]


def test_runs_of_sgd_in_a_unit_take_equally_many_steps_and_fill_the_lanes():
    grid = {"epsilon": [0.01, 0.02], "noise": [0.0, 0.1], "seed": range(16), "width": 4}
    whole = plan(SGD, grid)
    for unit in whole.units:
        assert len({point["epsilon"] for point in whole.layout.points(unit)}) == 1
    assert max(unit.size for unit in whole.units) == 32


def test_the_parts_of_an_axis_are_about_as_long():
    chunks = Layout.of(
        tts.Study(small_problem(), SGD, {"seed": range(65), "width": 4}, [1.0])
    ).chunks
    assert chunks == (22,)  # of at most 32


def test_units_of_an_accelerator_fill_it_and_are_as_many_as_devices_need(monkeypatch):
    """Flows of any epsilon share one; SGD does not, nor takes a unit of long runs for hours."""
    monkeypatch.setattr(tts_plan, "on_accelerator", lambda: True)
    monkeypatch.setattr(tts_plan, "_FILLED", 64)

    def chunks(dynamics, seeds, tau=1e-3):
        grid = {"epsilon": [1e-4, 1e-2], "seed": range(seeds), "width": 4}
        return Layout.of(tts.Study(small_problem(), dynamics, grid, [tau])).chunks

    flow = tts.GradientFlow(1.0)
    assert math.prod(chunks(flow, 2048)) == 2 * 2048 // 16
    assert chunks(flow, 32) == (2, 32)
    assert chunks(SGD, 2048) == (1, 256)
    assert chunks(SGD, 2048, tau=1e5) == (1, 64)


def test_a_unit_keeps_to_its_memory():
    grid = {"seed": range(4000), "width": 100}
    whole = plan(tts.LimitFlow(), grid, np.linspace(0.0, 1.0, 2000))
    variables = whole.layout.whole.values()
    size = sum(math.prod(v.shape) * v.dtype.itemsize for v in variables)
    assert max(unit.size for unit in whole.units) * size < 1e8
    last = plan(tts.LimitFlow(), grid, np.linspace(0.0, 1.0, 2000), keep="last")
    assert len(last.units) < len(whole.units)


@pytest.mark.parametrize("epsilon", [0.01, 0.1])
def test_steps_of_sgd_are_known(epsilon):
    study = tts.Study(small_problem(), SGD, {"epsilon": [epsilon], "width": 4}, [0.5])
    run = tts.simulate(
        small_problem(),
        tts.SGD(epsilon, 1e-3),
        tts.init_uniform(jax.random.key(0), 4),
        np.array([0.5]),
        key=jax.random.key(1),
    )
    assert expected_steps(study, study.axes.point([0])) == int(run.stats["steps"])


def test_steps_of_a_flow_are_expected_about_right(problem):
    """A rule of thumb: on average over starts within a factor of two, at any tolerance."""
    for rtol, epsilon in ((1e-4, 1e-3), (1e-6, 1e-5), (1e-8, 1.0)):
        flow = tts.GradientFlow(epsilon, rtol=rtol, atol=1e-2 * rtol)
        study = tts.Study(problem, flow, {"seed": range(8), "width": 20}, [1.0])
        data = tts.sweep(problem, flow, {"seed": range(8), "width": 20}, [1.0])
        ratio = float(data.steps.mean()) / expected_steps(study, {"width": 20, "seed": 0})
        assert 0.5 < ratio < 2.0


def test_wider_longer_and_tighter_is_expected_to_cost_more():
    def cost(dynamics, **point):
        study = tts.Study(small_problem(), dynamics, {"width": 4}, [1.0])
        return expected_seconds(study, {"width": 20, **point})

    flow = tts.GradientFlow(1.0)
    assert cost(flow, width=40) > cost(flow, width=20)
    assert cost(flow, width=2000) > cost(flow, width=200)
    assert cost(flow, rtol=1e-10) > cost(flow, rtol=1e-4)
    assert cost(SGD, epsilon=1e-3) == pytest.approx(10 * cost(SGD, epsilon=1e-2))
    assert cost(tts.LimitFlow()) < cost(tts.ReducedFlow())


def test_a_device_keeps_to_the_program_it_has():
    """Every width is compiled for one device only, as long as there is another width to take."""
    widths = [3, 4, 5, 6]
    grid = {"width": widths, "eta": [0.05, 0.06, 0.07], "seed": range(16)}
    flow = tts.GradientFlow(1.0, rtol=1e-3, atol=1e-5)
    study = tts.Study(small_problem(), flow, grid, [0.01])
    whole = plan_of(study)
    taken: dict[int, set] = {}

    class Fake:
        traces = 0

        def __call__(self, points, device):
            taken.setdefault(points[0]["width"], set()).add(device)
            return {"status": np.zeros(len(points), int)}

    object.__setattr__(whole.layout, "runner", Fake())
    done, turn = [], threading.Lock()

    def note(unit, found):
        with turn:
            done.append(unit)

    on_devices(whole, note, devices=["one", "two"])
    assert len(done) == len(whole.units)
    assert all(len(devices) == 1 for devices in taken.values())
    assert set(taken) == set(widths)


def test_an_error_on_a_device_is_raised_here():
    whole = plan(tts.LimitFlow(), {"seed": range(40), "width": 6})

    def fails(unit, found):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        on_devices(whole, fails)


def test_efficiency_is_mean_over_largest():
    efficiency = Efficiency()
    efficiency.add(np.array([1, 1, 4]))
    efficiency.add(np.array([2, 2]))
    assert efficiency.share == pytest.approx((6 + 4) / (12 + 4))


def test_the_plan_prints_what_there_is_to_do():
    text = str(plan(SGD, {"epsilon": [0.01, 0.02], "seed": range(50), "width": 4}))
    assert "2 epsilon x 50 seed = 100 runs (width 4)" in text
    assert "100 runs in 4 units of up to 25" in text
    assert "1 shape to compile" in text


def test_a_prediction_is_a_measured_time():
    whole = plan(SGD, {"epsilon": [1e-2, 2e-2], "seed": range(32), "width": 4}, (0.0, 20.0))
    assert 0.0 < whole.predict() < 600.0
    assert plan(SGD, {"width": 4}).seconds > 0


@pytest.mark.parametrize("widths", [[5, 2000], [2000, 5]])
def test_the_widest_network_bounds_the_units(widths):
    grid = {"width": widths, "seed": range(4000)}
    whole = plan(tts.GradientFlow(1.0), grid, np.linspace(0.0, 1.0, 1001))
    variables = whole.layout.whole.values()
    size = sum(math.prod(v.shape) * v.dtype.itemsize for v in variables)
    assert max(unit.size for unit in whole.units) * size < 1e8
    assert max(unit.seconds for unit in whole.units) <= 60.0
