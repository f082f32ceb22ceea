"""Units on devices: the same numbers however many there are, and who takes what."""

import threading
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from small_problems import small_problem
from small_studies import FLOW_STUDY, SGD_STUDY, Drift, compilations, written

import tts_jax as tts
from tts_jax.sweeps.execution import local as tts_local
from tts_jax.sweeps.execution.local import on_devices
from tts_jax.sweeps.execution.runner import Runner
from tts_jax.sweeps.sweep import plan_of


def swept(text, folder, devices):
    """What the runs of a study leave that is made on some devices, which all take part."""
    whole = plan_of(tts.read_study(written(folder, text)))
    runner, found, taken = Runner.of(whole.layout), {}, set()
    # Else the first device may have done all before the last one has begun.
    all_begin = threading.Barrier(len(devices))

    class Watched:
        compiled_on = runner.compiled_on

        def __call__(self, points, device):
            if device not in taken:
                taken.add(device)
                all_begin.wait(timeout=60)
            return runner(points, device)

    on_devices(whole, Watched(), lambda unit, out: found.update({unit.chunk: out}), devices)
    assert taken == set(devices)
    return found


@pytest.mark.parametrize("text", [FLOW_STUDY, SGD_STUDY], ids=["flow", "sgd"])
def test_one_device_and_several_give_the_same_and_all_keep_their_programs(
    text, tmp_path, monkeypatch
):
    devices = jax.local_devices()
    if len(devices) == 1:
        pytest.skip("one device only")
    monkeypatch.setattr(tts_local, "COMPILE", 0.0)  # so that no work is too short for a device
    one = swept(text, tmp_path, devices[:1])
    several = swept(text, tmp_path, devices)
    with compilations() as found:
        again = swept(text, tmp_path, devices)
    assert found == []
    assert all(np.all(out["status"] == 0) for out in one.values())
    jax.tree.map(np.testing.assert_array_equal, several, one)
    jax.tree.map(np.testing.assert_array_equal, again, one)


class Noted:
    """A runner that computes nothing, and notes who asked for which width."""

    def __init__(self, compiled=()):
        self.taken = {}
        self._compiled = dict(compiled)

    def __call__(self, points, device):
        self.taken.setdefault(points[0]["width"], set()).add(device)
        return {"status": np.zeros(len(points), int)}

    def compiled_on(self, points):
        return {device for device, width in self._compiled.items() if width == points[0]["width"]}


def plan(widths, seeds):
    grid = {"width": widths, "eta": [0.05, 0.06, 0.07], "seed": range(seeds)}
    return plan_of(tts.Study(small_problem(), Drift(), grid, [0.01]))


def worked(whole, runner):
    done, turn = [], threading.Lock()

    def note(unit, found):
        with turn:
            done.append((unit.size, len(found["status"])))

    on_devices(whole, runner, note, devices=["one", "two"])
    assert sorted(done) == sorted((unit.size, unit.size) for unit in whole.units)
    return runner.taken


def test_a_device_keeps_to_the_program_it_has():
    """Every width is compiled for one device only, as long as there is another width to take."""
    taken = worked(plan([3, 4, 5, 6], 16), Noted())
    assert set(taken) == {3, 4, 5, 6}
    assert all(len(devices) == 1 for devices in taken.values())


@pytest.mark.parametrize("device", ["one", "two"])
def test_a_device_takes_the_program_that_it_has_from_an_earlier_sweep(device):
    assert worked(plan([3], 4), Noted({device: 3})) == {3: {device}}


def test_a_program_of_a_device_that_does_not_take_part_is_compiled_again():
    taken = worked(plan([3], 4), Noted({"three": 3}))
    assert len(taken[3]) == 1
    assert taken[3] <= {"one", "two"}


def test_much_work_goes_to_all_devices():
    """Even if one of them has the program: compiling it again takes less time than waiting."""
    whole = plan([3], 64)
    slow = SimpleNamespace(**{name: getattr(whole, name) for name in ("layout", "program")})
    slow.units = tuple(unit._replace(seconds=100.0) for unit in whole.units)
    both, turns = threading.Barrier(2), []

    class Waits(Noted):
        def __call__(self, points, device):
            if device not in turns:  # until the other one has something to do, too
                turns.append(device)
                both.wait(timeout=30)
            return super().__call__(points, device)

    assert worked(slow, Waits({"one": 3})) == {3: {"one", "two"}}


def test_an_error_on_a_device_is_raised_here():
    def fails(unit, found):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        on_devices(plan([3], 40), Noted(), fails)


def test_a_sweep_runs_under_the_settings_of_the_caller():
    grid = {"width": [3, 4], "seed": range(2)}

    def risks():
        return tts.sweep(small_problem(), Drift(), grid, [0.0, 1.0]).risk

    wanted = risks()
    jax.config.update("jax_enable_x64", False)
    try:
        with jax.enable_x64(True), jax.default_device("cpu"):
            found = risks()
    finally:
        jax.config.update("jax_enable_x64", True)
    assert found.identical(wanted)
