"""Runs of SGD in pieces, from a loop on the host: with progress, saved as it goes, and resumed."""

import os
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._digest import is_key
from ..._errors import argument_error
from ..._types import Count, Tree
from ...models.network import Params
from ..base import Progress
from .gpu import kernel_step
from .loop import AbstractRun, RunState
from .many_runs import run_alone
from .run_spec import RunSpec

PIECE = 2_000_000
"""Samples between two reports of progress."""

FULL_PIECE = 100
"""Training steps on the whole risk between two reports."""

SAVE_AFTER = 20.0
"""Seconds between two saves: what a kill can cost."""


class Checkpoint(NamedTuple):
    """A file that a run is saved to; `name`: a digest of all that the run depends on."""

    path: Path
    name: str

    def save(self, state: RunState, ys: list[Params]) -> None:
        """Write where a run is and what it has recorded."""
        # Whole or not at all: the file is written beside, and moved.
        half = self.path.with_name(f".{self.path.name}.half")
        leaves = jax.tree.leaves((state, ys), is_leaf=is_key)
        arrays = [np.asarray(jax.random.key_data(v) if is_key(v) else v) for v in leaves]
        with half.open("wb") as file:
            np.savez(file, *arrays, run=np.asarray(self.name), recorded=np.asarray(len(ys)))
            file.flush()
            os.fsync(file.fileno())
        half.replace(self.path)

    def load(self, state: RunState, params: Params) -> tuple[RunState, list[Params]]:
        """Return what was saved, in the shapes of a state and of recorded parameters.

        **Raises:** `ValueError` if the file is not a checkpoint of this very run.
        """
        try:
            with np.load(self.path, allow_pickle=False) as file:
                found = dict(file)
            is_same = str(found["run"]) == self.name
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile):
            raise argument_error(
                "checkpoint", "a file that `simulate` wrote, or none", self.path
            ) from None
        if not is_same:
            raise argument_error(
                "checkpoint", "a file of this run, or none", f"of other numbers: {self.path}"
            )
        template: Tree = (state, [params] * int(found["recorded"]))
        old, structure = jax.tree.flatten(template)
        leaves = [jnp.asarray(found[f"arr_{i}"]) for i in range(len(old))]
        leaves = [
            jax.random.wrap_key_data(new, impl=jax.random.key_impl(key)) if is_key(key) else new
            for new, key in zip(leaves, old, strict=True)
        ]
        return jax.tree.unflatten(structure, leaves)


def record_in_pieces(
    spec: RunSpec, state: RunState, progress: Progress | None, checkpoint: Checkpoint | None
) -> tuple[Params, Count]:
    """Return what `record_run` returns, bit for bit, however often the run was cut off.

    `state`: that of the run alone before its first training step. `progress` is called with the
    fraction of the steps done. If the file of `checkpoint` is there the run goes on from it; it is
    written about every `SAVE_AFTER` seconds, at an exception, and at the end.
    """
    stops, batch, ys = np.asarray(spec.stops), spec.source.size, []
    piece = max(1, PIECE // batch) if batch else FULL_PIECE
    if checkpoint is not None and checkpoint.path.exists():
        state, ys = checkpoint.load(state, spec.params)
    saved = time.monotonic()
    try:
        for stop in stops[len(ys) :]:
            while state.step < stop:
                state = _advance(spec, state, jnp.minimum(state.step + piece, stop))
                if progress is not None:
                    progress(int(state.step) / int(stops[-1]))
                if checkpoint is not None and time.monotonic() - saved > SAVE_AFTER:
                    checkpoint.save(state, ys)
                    saved = time.monotonic()
            ys.append(_parameters(spec, state))
    finally:
        if checkpoint is not None:
            checkpoint.save(state, ys)
    return jax.tree.map(lambda *y: jnp.stack(y), *ys), state.step


def run_of(spec: RunSpec) -> AbstractRun:
    """Return what advances the run. To be traced."""
    return run_alone(spec, kernel_step(spec))


@eqx.filter_jit
def _advance(spec: RunSpec, state: RunState, stop: Count) -> RunState:
    return run_of(spec).advance(state, stop)


@eqx.filter_jit
def _parameters(spec: RunSpec, state: RunState) -> Params:
    return run_of(spec).parameters(state)
