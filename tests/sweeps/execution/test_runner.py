"""Units of runs: compiled once for all numbers, kept between sweeps, and forgotten in the end."""

import functools
import gc
import weakref

import jax
import numpy as np
import pytest
from small_problems import small_problem
from small_studies import Drift, compilations

import tts_jax as tts
from tts_jax.sweeps.execution import runner as tts_runner
from tts_jax.sweeps.execution import variables as tts_variables
from tts_jax.sweeps.execution.layout import make_layout
from tts_jax.sweeps.execution.runner import Runner
from tts_jax.sweeps.execution.variables import variables_of

TAUS = np.linspace(0.0, 0.3, 4)


def prepared(grid, chunks, dynamics=None, taus=TAUS, **options):
    study = tts.Study(options.pop("problem", small_problem()), dynamics or Drift(), grid, taus)
    layout = make_layout(study, variables_of(study), chunks)
    units = [
        layout.unit(chunk, np.ones([part.stop - part.start for part in layout.region(chunk)], bool))
        for chunk in layout.all_chunks()
    ]
    return Runner.of(layout), [layout.points(unit) for unit in units]


def programs(found):
    return [name for name in found if "backend_compile" in name and "together" in name]


def test_numbers_never_compile_again_and_shapes_do_once():
    grid = {"epsilon": np.geomspace(0.01, 1.0, 5), "seed": range(20), "width": [2, 5]}
    runner, units = prepared(grid, (1, 10, 1), Drift(drag=0.25))
    with compilations() as found:
        for points in units:
            runner(points)
    assert len(units) == 20
    assert len(programs(found)) == 2
    # The next sweep has other numbers everywhere, in the grid and beside it.
    more = {"epsilon": np.geomspace(0.02, 3.0, 5), "seed": range(50, 70), "width": [2, 5]}
    problem = small_problem(eta=0.2, values=(0.0, 1.0, 2.0))
    runner, units = prepared(more, (1, 10, 1), Drift(drag=0.5), 2 * TAUS, problem=problem)
    with compilations() as found:
        for points in units:
            runner(points)
    assert found == []


def test_targets_of_one_shape_share_a_program():
    targets = {str(i): tts.PiecewiseConstant([0.2 + 0.1 * i], [1.0 * i, 5.0]) for i in range(3)}
    runner, units = prepared({"target": targets, "seed": [0, 1], "width": 2}, (1, 2))
    with compilations() as found:
        risks = [runner(points)["risk"] for points in units]
    assert len(programs(found)) == 1
    assert np.all(risks[0] != risks[1])


def test_what_a_run_leaves_does_not_depend_on_the_others_in_its_unit():
    grid = {"epsilon": [0.1, 0.4], "seed": range(3), "width": 3}
    runner, (points,) = prepared(grid, (2, 3))
    whole = runner(points)
    assert all(len(values) == 6 for values in whole.values())
    for place in (0, 4):
        alone = runner([points[place]])
        for name, values in whole.items():
            np.testing.assert_allclose(alone[name][0], values[place], rtol=1e-14, atol=0)


def test_a_share_of_the_time_ends_earlier():
    runner, (points,) = prepared({"seed": [4], "width": 3}, (1,), taus=[1.0, 2.0])
    u = runner(points)["u"]
    half = runner(points, share=0.5)["u"]
    np.testing.assert_allclose(half - runner(points, share=0.0)["u"], [[[0.5] * 3, [1.0] * 3]])
    np.testing.assert_allclose(u[:, 0], half[:, 1])


@pytest.mark.thorough
def test_a_runner_tells_which_devices_have_its_program():
    device = jax.local_devices()[-1]
    runner, (points,) = prepared({"seed": range(7), "width": 2}, (7,), taus=[1.0, 2.0, 7.0, 8.0, 9])
    assert runner.compiled_on(points) == set()
    runner(points, device)
    again, _ = prepared({"seed": range(7, 14), "width": 2}, (7,), taus=[1.0, 2.0, 7.0, 8.0, 10])
    assert again.compiled_on(points) == {device}
    assert again.compiled_on(points[:3]) == set()


@pytest.fixture
def one_program(monkeypatch):
    """Caches of their own for a test, which keep the last program only."""
    monkeypatch.setattr(tts_runner, "_PROGRAMS", tts_runner._Programs(most=1))
    traced = functools.lru_cache(maxsize=1)(tts_variables._traced.__wrapped__)
    monkeypatch.setattr(tts_variables, "_traced", traced)


@pytest.mark.thorough
def test_programs_that_many_others_came_after_are_forgotten(one_program):
    """With all that the functions in them hold."""

    def start_with(scale):
        def start(key, width):
            params = tts.init_uniform(key, width)
            return tts.Params(params.a, scale[0] * params.u)

        return start

    def swept(start):
        return tts.sweep(small_problem(), Drift(), {"seed": [0], "width": 2}, TAUS, start=start)

    first, second = (start_with(np.array([scale])) for scale in (0.5, 0.25))
    held = weakref.ref(first.__closure__[0].cell_contents)
    swept(first)
    del first
    gc.collect()
    assert held() is not None
    swept(second)
    gc.collect()
    assert held() is None


def test_as_many_are_kept_as_there_is_room_for_on_all_devices_together():
    """Those that were asked for last, however long ago they were compiled."""
    kept = tts_runner._Programs(most=4)
    runner, _ = prepared({"seed": [0], "width": 2}, (1,))
    made, numbers = runner.settings.split(2, None)

    def program(count):
        return kept.of(made, (numbers, np.zeros(count)))

    first, second, third = (program(count) for count in (1, 2, 3))
    assert program(1) is first
    third.devices |= {"one", "two"}
    assert kept.devices(made, (numbers, np.zeros(3))) == {"one", "two"}
    program(4)  # makes five on all devices: the second one is the one that nobody asked for
    assert program(1) is first
    assert program(3) is third
    assert program(2) is not second
    assert kept.devices(made, (numbers, np.zeros(4))) == set()


def large_arrays():
    return sum(array.size >= 1000 for array in jax.live_arrays())


@pytest.mark.thorough
def test_nothing_keeps_the_data_of_a_sweep():
    x = np.linspace(0.0, 1.0, 1000)
    problem = tts.EmpiricalProblem(tts.ShallowNetwork(tts.Tanh(eta=0.1)), x, x)
    held, before = weakref.ref(problem.x), large_arrays()
    tts.sweep(problem, Drift(), {"seed": [0], "width": 2}, TAUS)
    del problem, x
    gc.collect()
    assert held() is None
    assert large_arrays() == before
