"""Ctrl-C in a script and in a notebook: how the process ends, what is told, and what is kept."""

import signal
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

HEAD = """
import asyncio
import sys

import jax
import jax.numpy as jnp
import numpy as np

import tts_jax as tts
from tts_jax.dynamics.base import RunOutputs

tts.configure(devices=2)
file, turns = sys.argv[1], int(float(sys.argv[2]))
problem = tts.Problem(
    tts.ShallowNetwork(tts.CubicStep(eta=0.1)), tts.PiecewiseConstant([0.5], [0.0, 1.0])
)


class Slow(tts.AbstractDynamics):
    # Compiles in no time, and may stay in XLA. Each epsilon has a unit to itself, and the smallest
    # come first: two that are short.
    epsilon: float
    sweepable = ("epsilon",)
    even_steps = True

    def expected_steps(self, horizon):
        return 1.0 / self.epsilon

    def check(self, given):
        pass

    def run(self, given):
        count = jnp.where(self.epsilon < 0.25, 1, turns)
        end = jax.lax.fori_loop(0, count, lambda i, x: jnp.cos(x), jnp.asarray(self.epsilon))
        params = jax.tree.map(lambda leaf: leaf[None] + 0 * end, given.params)
        ok = jnp.asarray(tts.Status.OK, jnp.int32)
        return RunOutputs(params, end[None], ok, {"steps": jnp.asarray(1)})


def told(fraction):
    print(fraction, flush=True)
    sys.stdin.readline()  # until the test has sent its interrupt


def swept():
    grid = {"epsilon": np.linspace(0.1, 0.8, 8), "seed": range(2), "width": 3}
    tts.sweep(problem, Slow(1.0), grid, [1.0], store=file, progress=told)
"""

SWEEP = f"{HEAD}\n\nswept()\n"

CELLS = f"""{HEAD}

async def cell():
    # As a kernel runs one: in its main thread, inside its event loop.
    try:
        swept()
    except KeyboardInterrupt:
        print("interrupted", flush=True)


loop = asyncio.new_event_loop()
loop.run_until_complete(cell())
loop.run_until_complete(cell())
"""

RUN = f"""{HEAD}
how, key = tts.SGD(1e-2, 1e-3, noise=0.1), jax.random.key(1)
start = tts.init_uniform(jax.random.key(0), 3)
# So many steps that they would take weeks.
tts.simulate(problem, how, start, [1e9], key=key, progress=told, checkpoint=file)
"""


def process(tmp_path, script, turns=1):
    (tmp_path / "script.py").write_text(script)
    words = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "kept"), str(turns)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, **pipes, text=True)


def interrupted(run):
    """What a process says that is interrupted when its first unit is done."""
    run.stdout.readline()
    run.send_signal(signal.SIGINT)
    assert "what is under way ends first" in run.stderr.readline()
    return run.communicate("")


def kept(tmp_path):
    with xr.open_zarr(tmp_path / "kept", chunks=None) as data:
        return int(np.sum(data.status.values >= 0))


@pytest.mark.thorough
def test_an_interrupt_of_a_sweep_keeps_what_is_finished_and_what_is_under_way(tmp_path):
    run = process(tmp_path, SWEEP)
    out, told = interrupted(run)
    assert run.returncode == -signal.SIGINT  # as Python ends at an interrupt
    assert "\nKeyboardInterrupt" in told
    assert f"What was finished is kept in {tmp_path / 'kept'}: the same call goes on." in told
    units = 1 + len(out.split())
    assert units <= 2  # one on each device
    assert kept(tmp_path) == 2 * units


def test_a_second_interrupt_of_a_sweep_ends_it_at_once(tmp_path):
    run = process(tmp_path, SWEEP, turns=1e15)  # which would take a year
    for _ in range(2):
        run.stdin.write("\n")
        run.stdin.flush()
        run.stdout.readline()
    run.send_signal(signal.SIGINT)
    assert "Interrupted" in run.stderr.readline()
    run.send_signal(signal.SIGINT)
    told = run.communicate()[1]
    assert run.returncode == -signal.SIGINT
    assert "\nKeyboardInterrupt" in told
    assert kept(tmp_path) == 4


@pytest.mark.thorough
def test_a_cell_that_was_interrupted_can_be_run_again(tmp_path):
    run = process(tmp_path, CELLS)
    said = interrupted(run)[0].split()
    assert run.returncode == 0
    assert "interrupted" in said
    assert len(said) == 8  # the first unit has been read: none was made twice
    assert kept(tmp_path) == 16


@pytest.mark.thorough
def test_an_interrupt_of_a_long_run_ends_it_between_two_pieces(tmp_path):
    run = process(tmp_path, RUN)
    run.stdout.readline()
    run.send_signal(signal.SIGINT)
    told = run.communicate("")[1]
    assert run.returncode == -signal.SIGINT
    assert "\nKeyboardInterrupt" in told
    assert f"The run is kept in {tmp_path / 'kept'}: the same call goes on." in told
    with np.load(tmp_path / "kept") as saved:
        assert saved["recorded"].size == 0
