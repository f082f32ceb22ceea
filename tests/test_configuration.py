"""`configure`, and the warning to who did not call it. JAX starts once, so in fresh processes."""

import json
import os
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import pytest
from small_problems import small_problem, spread_start

import tts_jax as tts
from tts_jax import configuration
from tts_jax.configuration import SMALL_LOOPS, WIDE_VECTORS, warn_if_slow

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
DEVICES = "--xla_force_host_platform_device_count"
OLD = jax.__version_info__ < (0, 12)
"""Whether this JAX needs a flag for small loops."""

HEAD = """
import importlib, json, os, pkgutil
import jax, jax.numpy as jnp
import tts_jax as tts


def loops_are_kernels():
    def loop(x):
        return jax.lax.fori_loop(0, 10, lambda i, c: jnp.sin(c) + c.sum(), x)

    return "xla_cpu_small_call" in jax.jit(loop).lower(jnp.ones(2000)).compile().as_text()


def state():
    return [jax.config.jax_enable_x64, *map(os.environ.get, ("JAX_ENABLE_X64", "XLA_FLAGS"))]


def complaint(call, **arguments):
    try:
        call(**arguments)
    except RuntimeError as error:
        return str(error)


found = {}
"""


def in_a_fresh_process(script: str, **environment: str) -> dict:
    """What a script puts into `found`, in a process whose JAX nobody has set up."""
    names = ("XLA_FLAGS", "JAX_ENABLE_X64", "JAX_NUM_CPU_DEVICES", "NPROC")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", f"{HEAD}\n{script}\nprint(json.dumps(found))"],
        env={**clean, "JAX_PLATFORMS": "cpu", **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_it_sets_everything_although_jax_is_imported_and_again_nothing():
    found = in_a_fresh_process(
        """
for module in pkgutil.walk_packages(tts.__path__, "tts_jax."):
    if module.name != "tts_jax.__main__":
        importlib.import_module(module.name)
found["imported"] = state()
made = tts.configure()
found["set"], found["report"] = state(), str(made)
found["devices"] = [made.devices, jax.device_count()]
found["dtype"] = str(jnp.ones(1).dtype)
found["kernels"] = loops_are_kernels()
found["again"] = tts.configure() == made
found["more"] = complaint(tts.configure, devices=made.devices + 1)
found["after"] = state()
"""
    )
    flags = [f"{DEVICES}={CORES}", WIDE_VECTORS, *([SMALL_LOOPS] if OLD else [])]
    assert found["imported"] == [False, None, None]
    assert found["set"] == [True, "1", " ".join(flags)]
    assert found["report"].split("\n") == [
        f"64-bit numbers, CPU devices: {CORES}, threads: {2 * CORES}",
        *(f"  set:  {flag}" for flag in flags),
    ]
    assert found["devices"] == [CORES, CORES]
    assert found["dtype"] == "float64"
    assert found["kernels"]
    assert found["again"]
    assert f"{DEVICES}={CORES + 1}" in found["more"]
    assert found["after"] == found["set"]


def test_threads_are_more_than_devices_can_wait_in_and_stay_where_the_user_has_set_them():
    script = """
found["first"] = tts.configure(devices=3).threads
found["kept"] = tts.configure(devices=3).kept
found["again"] = tts.configure(devices=2).threads
jnp.ones(1)
found["after"] = [tts.configure(devices=2).threads, os.environ["NPROC"]]
"""
    found = in_a_fresh_process(script)
    assert found["first"] == CORES + 3
    assert found["kept"] == []
    assert found["again"] == CORES + 2
    assert found["after"] == [CORES + 2, str(CORES + 2)]
    found = in_a_fresh_process(script, NPROC="5")
    assert found == {"first": 5, "kept": ["NPROC=5"], "again": 5, "after": [5, "5"]}


def test_it_is_too_late_after_the_first_computation_and_changes_nothing():
    found = in_a_fresh_process(
        """
jnp.ones(1)
found["error"] = complaint(tts.configure, devices=1)
found["after"] = state()
found["kernels"] = loops_are_kernels()
"""
    )
    # One device is what JAX has by itself; what matters is named.
    assert WIDE_VECTORS in found["error"]
    assert (SMALL_LOOPS in found["error"]) == OLD
    assert DEVICES not in found["error"]
    assert "Call `tts.configure()` before the first computation" in found["error"]
    assert found["after"] == [False, None, None]
    assert found["kernels"] != OLD


def test_flags_of_the_user_stay_and_others_of_the_kind_are_added():
    theirs = [
        "--xla_backend_extra_options=xla_cpu_mine=1",
        "--xla_cpu_prefer_vector_width=128",
        f"{DEVICES}=3",
    ]
    found = in_a_fresh_process(
        """
made = tts.configure(devices=5)
found["kept"], found["set"], found["flags"] = sorted(made.kept), made.flags, state()[-1]
found["devices"] = [made.devices, jax.device_count()]
found["kernels"] = loops_are_kernels()
found["again"] = tts.configure() == made
""",
        XLA_FLAGS=" ".join(theirs),
    )
    ours = [SMALL_LOOPS] if OLD else []
    assert found["kept"] == sorted(theirs[1:])
    assert found["set"] == ours
    assert found["flags"] == " ".join([*theirs, *ours])
    assert found["devices"] == [3, 3]
    assert found["kernels"]
    assert found["again"]


def test_devices_set_by_jax_and_flags_in_a_file_stay(tmp_path):
    file = tmp_path / "flags"
    file.write_text(f"{SMALL_LOOPS}\n--xla_cpu_prefer_vector_width=256\n")
    found = in_a_fresh_process(
        """
jax.config.update("jax_num_cpu_devices", 3)
made = tts.configure(x64=False)
found["kept"], found["set"] = made.kept, made.flags
found["devices"] = [made.devices, jax.device_count()]
found["x64"] = [made.x64, *state()[:2]]
found["kernels"] = loops_are_kernels()
""",
        XLA_FLAGS=str(file),
    )
    assert {"jax_num_cpu_devices=3", "--xla_cpu_prefer_vector_width=256"} <= set(found["kept"])
    assert (SMALL_LOOPS in found["kept"]) == OLD
    assert found["set"] == []
    assert found["devices"] == [3, 3]
    assert found["x64"] == [False, False, None]
    assert found["kernels"]


def test_the_command_calls_it():
    found = in_a_fresh_process(
        """
from tts_jax import cli
found["before"] = state()
found["code"] = cli.main(["figures", "no such figure"])
found["after"] = state()
"""
    )
    assert found["before"] == [False, None, None]
    assert found["code"] == 2
    assert found["after"][:2] == [True, "1"]
    assert WIDE_VECTORS in found["after"][2]


def test_another_number_of_devices_before_the_first_computation_replaces_the_last():
    found = in_a_fresh_process(
        """
found["devices"] = [tts.configure(devices=2).devices, tts.configure(devices=3).devices]
found["there"] = jax.device_count()
"""
    )
    assert found == {"devices": [2, 3], "there": 3}


@pytest.mark.parametrize("devices", [0, -1, 1.5, "some", True, None])
def test_a_bad_number_of_devices_is_named(devices):
    with pytest.raises(ValueError, match=r'^Argument `devices` must be "all" or'):
        tts.configure(devices=devices)


@pytest.mark.parametrize("x64", ["no", 1, None])
def test_a_bad_mode_is_named(x64):
    with pytest.raises(ValueError, match=r"^Argument `x64` must be True or False"):
        tts.configure(x64=x64)


def test_an_untried_jax_gets_no_flag_that_it_may_not_know(monkeypatch):
    # As if nothing had been set before, by this process or by the one that started it.
    monkeypatch.setattr(configuration, "_added", set())
    monkeypatch.setenv("XLA_FLAGS", f"{DEVICES}={CORES}")
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setattr(configuration, "_KNOWS_WIDE_VECTORS", False)
    monkeypatch.setattr(configuration, "_NEEDS_SMALL_LOOPS", False)
    found = tts.configure()
    assert {*found.flags, *found.kept} == {f"{DEVICES}={CORES}"}
    assert os.environ["XLA_FLAGS"] == f"{DEVICES}={CORES}"


def simulated() -> list[str]:
    """What a first and a second simulation of a process warn of: a batch of two, then one."""
    warn_if_slow.cache_clear()
    problem, start = small_problem(), spread_start()

    def run(shift):
        moved = tts.Params(start.a, start.u + shift)
        return tts.simulate(problem, tts.LimitFlow(), moved, jnp.zeros(1))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jax.vmap(run)(jnp.asarray([0.0, 1e-3]))
        run(jnp.asarray(0.0))
    assert all(warning.filename == __file__ for warning in caught)
    assert all(warning.category is tts.SlowSettingsWarning for warning in caught)
    return [str(warning.message) for warning in caught]


def test_a_process_without_the_flag_is_told_the_line_once(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")
    monkeypatch.setattr(configuration, "_NEEDS_SMALL_LOOPS", True)
    (message,) = simulated()
    assert "call `tts.configure()` before the first computation" in message


@pytest.mark.parametrize(
    ("flags", "needs", "on_cpu"),
    [
        ("--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=0", True, True),
        (SMALL_LOOPS, True, True),
        ("", False, True),
        ("", True, False),
    ],
    ids=["by-hand", "configured", "newer-jax", "accelerator"],
)
def test_others_are_told_nothing(monkeypatch, flags, needs, on_cpu):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(configuration, "_NEEDS_SMALL_LOOPS", needs)
    monkeypatch.setattr(configuration, "on_cpu", lambda: on_cpu)
    assert simulated() == []
