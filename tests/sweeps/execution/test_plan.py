"""The plan: every run once, dear units first, and how long they take."""

import dataclasses

import numpy as np
import pytest
from small_problems import small_problem
from small_studies import Drift

import tts_jax as tts
from tts_jax.sweeps.execution.plan import Efficiency
from tts_jax.sweeps.execution.runner import Runner
from tts_jax.sweeps.sweep import plan_of

SGD = tts.SGD(0.05, 1e-3)


def plan(dynamics, grid, taus=(0.0, 1.0), **options):
    return plan_of(tts.Study(small_problem(), dynamics, grid, taus, **options))


def test_every_run_is_in_one_unit():
    grid = {"epsilon": np.geomspace(1e-3, 1, 7), "seed": range(45), "width": [4, 6]}
    whole = plan(Drift(), grid)
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
    whole = plan(Drift(), {"epsilon": [1e-2, 2e-2], "seed": range(32), "width": 4})
    assert 0.0 < whole.predict(Runner.of(whole.layout)) < 600.0
    assert plan(SGD, {"epsilon": [1e-2], "width": 4}).seconds > 0


def test_a_prediction_goes_by_a_part_of_the_time_where_steps_are_equally_long(monkeypatch):
    """And by the whole where they are not: the runs of such a dynamics have no shorter sample."""
    clock, shares = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("jax.local_devices", lambda **_: ["one"])

    def runner(points, device, share):
        shares.append(share)
        clock[0] += 3.0 if len(shares) == 1 else 1.0

    grid = {"epsilon": [1e-2], "seed": range(64), "width": 4}
    long = plan(SGD, grid, (0.0, 20.0))
    assert len(long.units) == 2
    # Twenty of slow time are 2e6 steps, of which 2e5 are made: in 1 second, and 2 to compile.
    assert dataclasses.replace(long, devices=1).predict(runner) == pytest.approx(
        2 * 1.0 / 0.1 + 2.0
    )
    assert shares == [0.1, 0.1]
    shares.clear()
    short = dataclasses.replace(plan(Drift(), grid, (0.0, 20.0)), devices=2)
    assert short.predict(runner) == pytest.approx((4 * 1.0 + 2.0) / 2)
    assert shares == [1.0, 1.0]
