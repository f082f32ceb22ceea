"""Long runs of SGD: saved as they go, killed, resumed, and refused where the file is another's."""

import errno
import os
import re
import signal
import subprocess
import sys
import time

import equinox as eqx
import filelock
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_problems import random_problem
from small_runs import EPSILON, NOISE, STEP, assert_same, steps_to_taus

import tts_jax as tts
from tts_jax._files import scratch_prefix
from tts_jax.dynamics.sgd import checkpoints
from tts_jax.dynamics.sgd import dynamics as sgd_dynamics

pytestmark = pytest.mark.usefixtures("bare")

SCRIPT = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
import tts_jax as tts
from tts_jax.dynamics.sgd import checkpoints

checkpoints.PIECE, checkpoints.SAVE_AFTER = 5000, 0.0
dtype, checkpoint, out, *whole = sys.argv[1:]
problem = tts.Problem(
    tts.ShallowNetwork(tts.CubicStep(eta=0.05)), tts.PiecewiseConstant([0.4], [1.0, 3.0])
)
start = jax.tree.map(lambda v: v.astype(dtype), tts.init_uniform(jax.random.key(0), 3))
sgd = tts.SGD(1e-4, 1e-4, noise=0.5)
taus = jnp.linspace(0.0, 4e-3, 5)



def simulated(checkpoint, out):
    run = tts.simulate(
        problem, sgd, start, taus, key=jax.random.key(1), checkpoint=checkpoint,
        progress=lambda fraction: print(fraction, flush=True),
    )
    np.savez(out, *jax.tree.leaves(run))


simulated(checkpoint, out)
for name in whole:
    simulated(None, name)
"""


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, dtype):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)

    def command(*outs):
        names = (str(tmp_path / f"{name}.npz") for name in ("run", *outs))
        return [sys.executable, str(script), dtype, *names]

    first = subprocess.Popen(command("killed"), stdout=subprocess.PIPE, text=True)
    fraction = 0.0
    while fraction < 0.3:
        fraction = float(first.stdout.readline())
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed.npz").exists()
    again = subprocess.run(command("resumed", "whole"), check=True, capture_output=True, text=True)
    # It went on, and did not start again.
    assert float(again.stdout.split()[0]) > 0.25
    resumed, whole = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("resumed", "whole"))
    assert resumed.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(resumed[name], values)


def test_progress_changes_nothing(monkeypatch):
    problem, start = random_problem(24)
    monkeypatch.setattr(checkpoints, "PIECE", 1000)
    arguments = (problem, tts.SGD(EPSILON, STEP, noise=NOISE), start, steps_to_taus(10, 9000))
    plain = tts.simulate(*arguments, key=jax.random.key(0))
    seen = []
    watched = tts.simulate(*arguments, key=jax.random.key(0), progress=seen.append)
    assert_same(watched, plain, atol=0)
    assert len(seen) > 9
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


class StopError(Exception):
    pass


def stop_at(limit):
    def progress(fraction):
        if fraction > limit:
            raise StopError

    return progress


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(checkpoints, "PIECE", 500)


def arguments(seed=0, **changes):
    problem, start = random_problem(41)
    sgd = tts.SGD(**{"epsilon": 0.01, "step_size": 0.005, "noise": 0.1, **changes})
    key = jax.random.key(seed)
    return (problem, sgd, start, jnp.array([0.0, 0.05, 0.1, 0.2])), {"key": key}


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("limit", [0.0, 0.3, 0.8])
@pytest.mark.parametrize(
    "optimiser", [None, optax.sgd(0.001, momentum=0.9)], ids=["plain", "heavy"]
)
def test_an_exception_saves_the_run_too(tmp_path, limit, optimiser):
    (given, named), file = arguments(optimiser=optimiser), tmp_path / "run.npz"
    whole = tts.simulate(*given, **named)
    with pytest.raises(StopError):
        tts.simulate(*given, **named, checkpoint=file, progress=stop_at(limit))
    seen = []
    resumed = tts.simulate(*given, **named, checkpoint=str(file), progress=seen.append)
    assert seen[0] > limit
    assert_same(resumed, whole, atol=0)
    # Once more: all is there already.
    assert_same(tts.simulate(*given, **named, checkpoint=file), whole, atol=0)
    assert os.listdir(tmp_path) == ["run.npz"]


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"epsilon": 0.011}, {"noise": 0.2}, {"batch_size": 2}, {"gradient": "box"}],
    ids=str,
)
def test_the_file_of_another_run_is_refused(tmp_path, changes):
    (given, named), file = arguments(), tmp_path / "run.npz"
    tts.simulate(*given, **named, checkpoint=file)
    before = file.read_bytes()
    given, named = arguments(**changes)
    with pytest.raises(ValueError, match="Argument `checkpoint` must be a file of this run"):
        tts.simulate(*given, **named, checkpoint=file)
    assert file.read_bytes() == before


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("often", [True, False])
def test_a_full_disk_costs_the_file_and_not_the_run(tmp_path, monkeypatch, often):
    (given, named), file = arguments(), tmp_path / "run.npz"
    whole = tts.simulate(*given, **named)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        patched.setattr(checkpoints, "SAVE_AFTER", -1.0 if often else 1e9)
        told = f"The checkpoint {file} could not be written: No space left"
        with pytest.warns(tts.CheckpointWarning, match=re.escape(told)) as warned:
            run = tts.simulate(*given, **named, checkpoint=file)
        assert (len(warned) > 1) is often
        assert_same(run, whole, atol=0)
        with pytest.warns(tts.CheckpointWarning), pytest.raises(StopError):  # and not an OSError
            tts.simulate(*given, **named, checkpoint=file, progress=stop_at(0.3))
    assert os.listdir(tmp_path) == []


def test_a_disk_that_cannot_be_written_is_told_before_anything_is_run(tmp_path, monkeypatch):
    def read_only(*given, **named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(filelock.FileLock, "acquire", read_only)
    monkeypatch.setattr(checkpoints, "_begin", None)
    given, named = arguments()
    with pytest.raises(ValueError, match=r"can be written, but is not, .*run\.npz: Read"):
        tts.simulate(*given, **named, checkpoint=tmp_path / "run.npz")


@pytest.mark.usefixtures("small_pieces")
def test_two_at_once_do_not_meet(tmp_path):
    (given, named), file = arguments(), tmp_path / "run.npz"
    refused = []

    def meanwhile(fraction):
        if not refused:
            with pytest.raises(ValueError, match="a file that no other process works on") as caught:
                tts.simulate(*given, **named, checkpoint=file)
            refused.append(str(caught.value))

    run = tts.simulate(*given, **named, checkpoint=file, progress=meanwhile)
    assert f"in use, {file}: process {os.getpid()} of this machine" in refused[0]
    assert_same(run, tts.simulate(*given, **named, checkpoint=file), atol=0)
    assert os.listdir(tmp_path) == ["run.npz"]


def test_names_links_and_the_home(tmp_path, monkeypatch):
    """A name may be as long as names are; what a link points to is written; ~ is the home."""
    given, named = arguments()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place/run.npz")
    longest = "n" * 255
    left = tmp_path / f"{scratch_prefix(tmp_path / longest)}01234567"
    left.touch()  # as by a kill while it was written
    for name in ("link", longest):
        tts.simulate(*given, **named, checkpoint=f"~/{name}")
    assert sorted(os.listdir(tmp_path)) == ["link", longest, "place"]
    assert os.listdir(tmp_path / "place") == ["run.npz"]
    for name in ("s3://bucket/run.npz", "", "~nobody-of-this-name/x", "n" * 256):
        with pytest.raises(ValueError, match="Argument `checkpoint` must be"):
            tts.simulate(*given, **named, checkpoint=name)


@pytest.mark.parametrize("change", ["recorded", "fewer", "shape", "bits"])
def test_a_file_that_was_altered_is_refused(tmp_path, change):
    (given, named), file = arguments(), tmp_path / "run.npz"
    tts.simulate(*given, **named, checkpoint=file)
    with np.load(file) as opened:
        found = dict(opened)
    if change == "bits":
        content = bytearray(file.read_bytes())
        content[content.index(found["arr_0"].tobytes()) + 3] ^= 1
        file.write_bytes(content)
    else:
        if change == "recorded":
            found["recorded"] = np.asarray(10**15)
        elif change == "fewer":
            del found["arr_1"]
        else:
            found["arr_1"] = np.zeros((2, 2))
        with file.open("wb") as opened:
            np.savez(opened, **found)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="must be a file that `simulate` wrote, or none"):
        tts.simulate(*given, **named, checkpoint=file)
    assert file.read_bytes() == before


def target_of(height):
    return tts.Function(lambda x: height * x, degree=1)


@pytest.mark.parametrize(
    "others",
    [
        lambda: (target_of(2.0), None),
        lambda: (tts.Function(lambda x: 3.0 * x, degree=1), None),
        lambda: (target_of(3.0), optax.sgd(0.002)),
    ],
    ids=["closure", "code", "optimiser"],
)
def test_functions_are_told_apart(tmp_path, others):
    """By their code and what they close over: made anew, the same ones are the same."""
    (given, named), file = arguments(), tmp_path / "run.npz"

    def run(target, optimiser):
        problem = tts.Problem(given[0].network, target)
        sgd = tts.SGD(0.01, 0.005, optimiser=optimiser)
        return tts.simulate(problem, sgd, *given[2:], **named, checkpoint=file)

    first = run(target_of(3.0), None)
    assert_same(run(target_of(3.0), None), first, atol=0)
    with pytest.raises(ValueError, match="Argument `checkpoint` must be a file of this run"):
        run(*others())


def scheduled(decay):
    falling = optax.exponential_decay(1e-3, 1000, decay)
    slow = optax.sgd(lambda count: 0.1 * falling(count), momentum=0.9)
    layers = {"a": optax.sgd(falling, momentum=0.5), "u": slow}
    return optax.partition(layers, tts.Params("a", "u"))


def test_a_schedule_deep_inside_an_optimiser_counts(tmp_path):
    file = tmp_path / "run.npz"
    (given, named), (same, _), (other, _) = (
        arguments(optimiser=scheduled(decay)) for decay in (0.5, 0.5, 0.51)
    )
    first = tts.simulate(*given, **named, checkpoint=file)
    assert_same(tts.simulate(*same, **named, checkpoint=file), first, atol=0)
    with pytest.raises(ValueError, match="Argument `checkpoint` must be a file of this run"):
        tts.simulate(*other, **named, checkpoint=file)


def test_an_optimiser_that_draws_is_saved(tmp_path):
    noisy = optax.chain(optax.add_noise(0.01, 0.55, jax.random.key(5)), optax.sgd(0.001))
    (given, named), file = arguments(optimiser=noisy), tmp_path / "run.npz"
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and floats
        whole = tts.simulate(*given, **named)
        with pytest.raises(StopError):
            tts.simulate(*given, **named, checkpoint=file, progress=stop_at(0.0))
        assert_same(tts.simulate(*given, **named, checkpoint=file), whole, atol=0)


class KickedDescent(eqx.Module):
    """An optimiser whose numbers are traced, as those of a user's own module are."""

    key: jax.Array
    rate: jax.Array

    def init(self, params):
        return jnp.zeros((), jnp.int32)

    def update(self, gradient, state, params):
        kick = 1e-3 * jax.random.normal(jax.random.fold_in(self.key, state))
        return jax.tree.map(lambda v: kick - self.rate * v, gradient), state + 1


def test_an_optimiser_may_hold_traced_numbers():
    (given, named) = arguments(optimiser=KickedDescent(jax.random.key(3), jnp.asarray(1e-3)))
    whole = tts.simulate(*given, **named)
    assert_same(tts.simulate(*given, **named, progress=lambda _: None), whole, atol=0)


@pytest.mark.usefixtures("small_pieces")
def test_a_finished_run_is_made_longer(tmp_path):
    (problem, sgd, start, taus), named = arguments()
    file, longer = tmp_path / "run.npz", jnp.concatenate([taus, jnp.array([0.25, 0.31])])
    whole = tts.simulate(problem, sgd, start, longer, **named)
    tts.simulate(problem, sgd, start, taus, **named, checkpoint=file)
    seen = []
    more = tts.simulate(problem, sgd, start, longer, **named, checkpoint=file, progress=seen.append)
    assert seen[0] > 0.2 / 0.31  # it went on, and did not start again
    assert_same(more, whole, atol=0)
    before = file.read_bytes()
    # Shorter ones, others, and later ones that leave some out.
    for others in (taus, longer.at[1].set(0.06), longer[1:], jnp.append(longer[:2], 0.5)):
        with pytest.raises(ValueError, match="Argument `taus` must be those that the run in"):
            tts.simulate(problem, sgd, start, others, **named, checkpoint=file)
    assert file.read_bytes() == before


@pytest.mark.usefixtures("small_pieces")
def test_a_run_that_was_cut_off_takes_other_later_times(tmp_path):
    (problem, sgd, start, taus), named = arguments()
    file, others = tmp_path / "run.npz", taus.at[-1].set(0.3)
    with pytest.raises(StopError):
        tts.simulate(problem, sgd, start, taus, **named, checkpoint=file, progress=stop_at(0.6))
    # Cut off beyond the last time asked for: it would have taken more steps than a run till there.
    with pytest.raises(ValueError, match="Argument `taus` must be those that the run in"):
        tts.simulate(problem, sgd, start, taus[:-1], **named, checkpoint=file)
    whole = tts.simulate(problem, sgd, start, others, **named)
    assert_same(tts.simulate(problem, sgd, start, others, **named, checkpoint=file), whole, atol=0)


def test_a_long_run_goes_in_pieces_though_nobody_watches(monkeypatch):
    """So that Ctrl-C ends it soon, see test_interrupts.py."""
    (problem, sgd, start, taus), named = arguments()
    whole = tts.simulate(problem, sgd, start, taus, **named)
    pieces = []
    run = checkpoints.record_in_pieces
    monkeypatch.setattr(
        sgd_dynamics, "record_in_pieces", lambda *given: pieces.append(given) or run(*given)
    )
    tts.simulate(problem, sgd, start, taus, **named)
    assert pieces == []
    monkeypatch.setattr(sgd_dynamics, "_LONG", 1e-6)
    assert_same(tts.simulate(problem, sgd, start, taus, **named), whole, atol=0)
    assert len(pieces) == 1
    # Under a transformation nothing runs on the host.
    jax.jit(lambda: tts.simulate(problem, sgd, start, taus, **named).risk)()
    jax.vmap(lambda key: tts.simulate(problem, sgd, start, taus, key=key).risk)(
        jax.random.split(jax.random.key(0), 2)
    )
    assert len(pieces) == 1


@pytest.mark.parametrize("content", [b"", b"nothing of ours", None])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (given, named), file = arguments(), tmp_path / "run.npz"
    if content is None:
        np.savez(file, np.zeros(3))
        content = file.read_bytes()
    else:
        file.write_bytes(content)
    with pytest.raises(ValueError, match="must be a file that `simulate` wrote"):
        tts.simulate(*given, **named, checkpoint=file)
    assert file.read_bytes() == content


def test_a_checkpoint_is_refused_where_it_means_nothing(tmp_path):
    (given, named), file = arguments(), tmp_path / "run.npz"
    problem, sgd, start, taus = given
    with pytest.raises(ValueError, match="`checkpoint` must be None for a flow"):
        tts.simulate(problem, tts.GradientFlow(0.01), start, taus, checkpoint=file)
    with pytest.raises(ValueError, match="`checkpoint` must be a path"):
        tts.simulate(*given, **named, checkpoint=3)
    with pytest.raises(ValueError, match="in a folder that exists"):
        tts.simulate(*given, **named, checkpoint=tmp_path / "none" / "run.npz")
    with pytest.raises(ValueError, match="None under a jax transformation"):
        jax.jit(lambda key: tts.simulate(problem, sgd, start, taus, key=key, checkpoint=file))(
            named["key"]
        )
    samples = (np.full((2, 4000), 0.5), np.zeros((2, 4000)))
    with pytest.raises(ValueError, match="`checkpoint` must be None under"):
        jax.vmap(lambda s: tts.simulate(*given, samples=s, checkpoint=file))(samples)
    with pytest.raises(ValueError, match="`progress` must be None under"):
        jax.vmap(lambda s: tts.simulate(*given, samples=s, progress=print))(samples)


def test_it_is_saved_from_time_to_time(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PIECE", 500)
    monkeypatch.setattr(checkpoints, "SAVE_AFTER", 1.0)
    (given, named), file = arguments(), tmp_path / "run.npz"
    clock = iter(np.arange(0.0, 1000.0, 0.4))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    there = []
    tts.simulate(*given, **named, checkpoint=file, progress=lambda _: there.append(file.exists()))
    assert not there[0]
    assert there[-1]
