"""Runs of SGD in pieces, from a loop on the host: with progress, saved as it goes, and resumed."""

import os
import time
import warnings
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ..._digest import digest
from ..._errors import CheckpointWarning, argument_error
from ..._files import HeldError, held, scratch_prefix, whole
from ..._programs import compiled
from ..._types import Array, Count, Tree, is_key
from ...models.network import Params
from ..base import Progress, RunInputs
from .gpu import kernel_step
from .loop import AbstractRun, RunState
from .many_runs import run_alone
from .run_spec import RunSpec

PIECE = 2_000_000
"""Samples between two reports of progress, at most."""

FULL_PIECE = 100
"""Training steps on the whole risk between two reports, at most."""

SOON = 0.5
"""Seconds that a piece is to take: an interrupt is seen between two of them."""

SAVE_AFTER = 20.0
"""Seconds between two saves: what a kill can cost."""


class Checkpoint(NamedTuple):
    """A file that a run is saved to; `name`: a digest of all that the run depends on, but for the
    times at which it is recorded; `stops`: the training steps at those."""

    path: Path
    name: str
    stops: np.ndarray

    def save(self, state: RunState, ys: list[Params]) -> None:
        """Write where a run is and what it has recorded, or warn: the run is worth more than its
        file."""
        leaves = jax.tree.leaves((state, ys), is_leaf=is_key)
        arrays = [np.asarray(jax.random.key_data(v) if is_key(v) else v) for v in leaves]
        try:
            with whole(self.path) as half, half.open("xb") as file:
                np.savez(file, *arrays, run=np.asarray(self.name), recorded=self.stops[: len(ys)])
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            warnings.warn(
                CheckpointWarning(
                    f"The checkpoint {self.path} could not be written: {error.strerror or error}. "
                    "What has been computed since it was last written is not in it; a run that "
                    "has ended is returned all the same."
                ),
                stacklevel=2,
            )

    def load(self, state: RunState, params: Params) -> tuple[RunState, list[Params]]:
        """Return what was saved, in the shapes of a state and of recorded parameters.

        **Raises:** `ValueError` if the file is not a checkpoint of this very run.
        """
        try:
            with np.load(self.path, allow_pickle=False) as file:
                found = dict(file)
            name, recorded = str(found.pop("run")), np.atleast_1d(found.pop("recorded"))
            saved = [found[f"arr_{i}"] for i in range(len(found))]
        except (ValueError, TypeError, KeyError, EOFError, OSError, zipfile.BadZipFile):
            raise self._refused("a file that `simulate` wrote, or none", "") from None
        if name != self.name:
            raise self._refused("a file of this run, or none", "of other numbers: ")
        one = len(jax.tree.leaves(params))
        if len(saved) != len(jax.tree.leaves(state, is_leaf=is_key)) + one * len(recorded):
            raise self._refused("a file that `simulate` wrote, or none", "altered: ")
        template: Tree = (state, [params] * len(recorded))
        old, structure = jax.tree.flatten(template)
        leaves = [
            jax.random.wrap_key_data(jnp.asarray(new), impl=jax.random.key_impl(key))
            if is_key(key)
            else jnp.asarray(new)
            for new, key in zip(saved, old, strict=True)
        ]
        if any(jnp.shape(a) != jnp.shape(b) for a, b in zip(leaves, old, strict=True)):
            raise self._refused("a file that `simulate` wrote, or none", "altered: ")
        state, ys = jax.tree.unflatten(structure, leaves)
        same = np.array_equal(recorded, self.stops[: len(recorded)])
        # Of the last one also where all times are recorded, which is then the only one left.
        left = [*self.stops[len(recorded) :], self.stops[-1]]
        if not same or min(left) < state.step:
            raise argument_error(
                "taus",
                "those that the run in `checkpoint` was recorded at so far, and then later ones",
                f"others: {self.path} has {len(recorded)} times, and is at step {state.step}",
            )
        return state, ys

    def _refused(self, expected: str, got: str) -> ValueError:
        return argument_error("checkpoint", expected, f"{got}{self.path}")


def _keep_others_off(path: Path, stack: ExitStack) -> None:
    """Hold a checkpoint until the stack ends, and remove what a killed process was writing.

    **Raises:** `ValueError` if another process works on it, or nothing can be written there.
    """
    prefix = scratch_prefix(path)
    try:
        stack.enter_context(held(path.with_name(f"{prefix}lock")))
        for half in path.parent.glob(prefix + 8 * "?"):
            half.unlink(missing_ok=True)
    except HeldError as error:
        expected = "a file that no other process works on"
        raise argument_error("checkpoint", expected, f"in use, {path}: {error}") from error
    except OSError as error:
        expected = "a file that can be written"
        raise argument_error("checkpoint", expected, f"not, {path}: {error.strerror}") from error


class MakesSpec(Protocol):
    """What is asked of the dynamics here."""

    def spec(self, given: RunInputs) -> RunSpec: ...


def record_in_pieces(
    dynamics: MakesSpec, given: RunInputs, progress: Progress | None, checkpoint: Path | None
) -> tuple[Params, Count]:
    """Return what `record_run` returns, bit for bit, however often the run was cut off.

    `progress` is called with the fraction of the training steps done. If the file `checkpoint` is
    there the run goes on from it; it is written about every `SAVE_AFTER` seconds, at an exception,
    and at the end.

    **Warns:** `CheckpointWarning` where it cannot be written; the run goes on.

    **Raises:** `ValueError` if the file is not a checkpoint of this very run, at these times or at
    the first of them, or in use, and where nothing tells whether it is.
    """
    if checkpoint is None:
        return _record(dynamics, given, progress, None)
    path = Path(os.path.realpath(checkpoint))  # what a link points to is what is written
    with ExitStack() as stack:
        _keep_others_off(path, stack)
        return _record(dynamics, given, progress, path)


def _record(
    dynamics: MakesSpec, given: RunInputs, progress: Progress | None, path: Path | None
) -> tuple[Params, Count]:
    (state, stops, batch), ys = _begin(dynamics, given), []
    stops = np.asarray(stops)
    longest = max(1, PIECE // batch) if batch else FULL_PIECE
    length = longest
    file = None
    if path is not None:
        # What is saved is shaped for the device: see `run_alone`.
        shapes = jax.tree.map(jnp.shape, state.params)
        everything = {"dynamics": dynamics, **given._replace(taus=None)._asdict()}
        file = Checkpoint(path, digest(everything | {"shapes": shapes}), stops)
        if path.exists():
            state, ys = file.load(state, given.params)
    saved = time.monotonic()
    try:
        for stop in stops[len(ys) :]:
            while state.step < stop:
                began, first = time.monotonic(), int(state.step)
                end = jnp.minimum(first + length, stop)
                state = _advance(dynamics, given, state, end)
                reached = int(state.step)
                fitting = int(SOON * (reached - first) / max(1e-9, time.monotonic() - began))
                # By little, as the first piece is compiled on the way.
                length = max(1, length // 4, min(4 * length, fitting))
                if progress is not None or file is not None:
                    length = min(length, longest)
                if progress is not None:
                    progress(reached / int(stops[-1]))
                if file is not None and time.monotonic() - saved > SAVE_AFTER:
                    file.save(state, ys)
                    saved = time.monotonic()
            ys.append(_parameters(dynamics, given, state))
    except KeyboardInterrupt as interrupt:
        if file is not None:
            interrupt.add_note(f"The run is kept in {file.path}: the same call goes on.")
        raise
    finally:
        if file is not None:
            file.save(state, ys)
    return jax.tree.map(lambda *y: jnp.stack(y), *ys), state.step


def _run(spec: RunSpec) -> AbstractRun:
    return run_alone(spec, kernel_step(spec))


# The spec is made anew in each of these: an optimiser in it may hold traced numbers.


@compiled
def _begin(dynamics: MakesSpec, given: RunInputs) -> tuple[RunState, Array, int]:
    """Return the first state, the stops, and the samples of a training step."""
    spec = dynamics.spec(given)
    return _run(spec).begin(), spec.stops, spec.source.size


@compiled
def _advance(dynamics: MakesSpec, given: RunInputs, state: RunState, stop: Count) -> RunState:
    return _run(dynamics.spec(given)).advance(state, stop)


@compiled
def _parameters(dynamics: MakesSpec, given: RunInputs, state: RunState) -> Params:
    return _run(dynamics.spec(given)).parameters(state)
