"""SGD in pieces, from a loop on the host: with progress, saved as it goes, and resumed."""

import os
import time
import zipfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._digest import digest, is_key
from ..._errors import argument_error
from ..._types import Count, Tree
from ...models.network import Params
from ..base import Progress, RunInputs, RunOutputs
from .dynamics import SGD, records
from .loop import Carry, advance, reached
from .many_runs import single

PIECE = 2_000_000
"""Samples between two reports of progress."""

SAVE_AFTER = 20.0
"""Seconds between two saves. What a kill can cost."""


def run_in_pieces(
    dynamics: SGD, given: RunInputs, progress: Progress | None, checkpoint: Path | None
) -> RunOutputs:
    """What `dynamics.run` returns, bit for bit, however often the run was cut off. Not traceable.

    `progress` is called with the fraction of the steps done. If the file `checkpoint` is there the
    run goes on from it; it is written about every `SAVE_AFTER` seconds, at an exception, and at the
    end.

    **Raises:** `ValueError` if the file is not a checkpoint of this very run.
    """
    stops = np.asarray(dynamics.steps_until(given.taus))
    piece = 100 if dynamics.batch_size == "full" else max(1, PIECE // dynamics.batch_size)
    carry, ys = _begin(dynamics, given), []
    # What is saved is shaped for the device: see `sgd_runs.single`.
    kind = jax.tree.map(jnp.shape, carry.params)
    name = None if checkpoint is None else digest(dynamics, given, kind)
    if checkpoint is not None and checkpoint.exists():
        carry, ys = _load(checkpoint, name, carry, given.params)
    saved = time.monotonic()
    try:
        for stop in stops[len(ys) :]:
            while carry.step < stop:
                carry = _advance(dynamics, given, carry, jnp.minimum(carry.step + piece, stop))
                if progress is not None:
                    progress(int(carry.step) / int(stops[-1]))
                if checkpoint is not None and time.monotonic() - saved > SAVE_AFTER:
                    _save(checkpoint, name, carry, ys)
                    saved = time.monotonic()
            ys.append(_view(dynamics, given, carry))
    finally:
        if checkpoint is not None:
            _save(checkpoint, name, carry, ys)
    return _records(dynamics, given, jax.tree.map(lambda *y: jnp.stack(y), *ys), carry.step)


@eqx.filter_jit
def _begin(dynamics: SGD, given: RunInputs) -> Carry:
    return single(*dynamics.prepare(given))[1]


@eqx.filter_jit
def _advance(dynamics: SGD, given: RunInputs, carry: Carry, stop: Count) -> Carry:
    return advance(single(*dynamics.prepare(given))[0], carry, stop)


@eqx.filter_jit
def _view(dynamics: SGD, given: RunInputs, carry: Carry) -> Params:
    return single(*dynamics.prepare(given))[2](reached(carry))


_records = eqx.filter_jit(records)


def _save(path: Path, name: str | None, carry: Carry, ys: list[Params]) -> None:
    """Whole or not at all: the file is written beside, and moved."""
    half = path.with_name(f".{path.name}.half")
    leaves = jax.tree.leaves((carry, ys), is_leaf=is_key)
    arrays = [np.asarray(jax.random.key_data(v) if is_key(v) else v) for v in leaves]
    with half.open("wb") as file:
        np.savez(file, *arrays, run=np.asarray(name), recorded=np.asarray(len(ys)))
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


def _load(path: Path, name: str | None, carry: Carry, params: Params) -> tuple[Carry, list[Params]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
        same = str(found["run"]) == name
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile):
        raise argument_error("checkpoint", "a file that `simulate` wrote, or none", path) from None
    if not same:
        raise argument_error(
            "checkpoint", "a file of this run, or none", f"of other numbers: {path}"
        )
    template: Tree = (carry, [params] * int(found["recorded"]))
    old, structure = jax.tree.flatten(template)
    leaves = [jnp.asarray(found[f"arr_{i}"]) for i in range(len(old))]
    leaves = [
        jax.random.wrap_key_data(new, impl=jax.random.key_impl(key)) if is_key(key) else new
        for new, key in zip(leaves, old, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)
