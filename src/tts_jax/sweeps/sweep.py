"""`sweep`: a grid of runs as one labelled data set, which survives kills and damage."""

import dataclasses
import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import xarray as xr

from .._errors import argument_error
from .._numbers import check_path, shown
from .._types import Times
from ..dynamics.base import AbstractDynamics, Progress
from ..models.initialisers import init_uniform
from ..problems.base import AbstractProblem
from .errors import SweepError
from .execution.dask import client_of, on_cluster, workers_of
from .execution.layout import Index, Layout, Unit, make_layout
from .execution.local import on_devices
from .execution.plan import Efficiency, Plan, make_plan
from .execution.runner import Results, Runner
from .execution.variables import variables_of
from .storage.report import open_sweep
from .storage.store import Store, create_store, locked, open_store
from .study.comparison import check_same
from .study.grid import Grid
from .study.study import Start, Study
from .study.tables import TableError
from .study.toml import grid_from


def sweep(
    problem: AbstractProblem,
    dynamics: AbstractDynamics,
    grid: Grid | Mapping[Any, Any],
    taus: Times,
    *,
    store: str | os.PathLike[str] | None = None,
    start: Start = init_uniform,
    keep: Literal["all", "last"] = "all",
    precision: Literal["float64", "float32"] = "float64",
    cluster: Any = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Run a grid of simulations, on all local devices or on a cluster.

    **Arguments:** `problem`, `dynamics`, `grid`, `taus`, `start`, `keep`, `precision`: see
    `Study`.

    - `store`: a folder for a Zarr store, which `xarray.open_zarr` reads at any moment. If it holds
      this study already, only what is missing is run: the rest of a sweep that was cut off, chunks
      that are damaged, and new values on the axes. Without it all is kept in memory.
    - `cluster`: a `distributed.Client`, "local:4" for worker processes on this machine, or the
      address of a Dask scheduler.
    - `progress`: called with the fraction of the work done.

    **Returns:** a Dataset with the axes of the grid as dimensions, and with `tau`, `outer` and
    `neuron`; narrower networks are filled up with NaN. From a store it is read when it is needed.
    A run's key derives from its coordinates alone: adding values changes no other run. `status` is
    a code of `tts.Status` for each run, and -1 where none has been made.

    Programs are kept: another call with other numbers, in the grid or beside it, compiles nothing,
    but where a number of the problem or the dynamics becomes zero, or ceases to be.

    **Raises:** `ValueError` for bad arguments; `SweepError` if the store belongs to another study,
    is in use, or cannot be written.
    """
    if store is not None:
        check_path("store", store)
    study = Study(problem, dynamics, grid, taus, start=start, keep=keep, precision=precision)
    if store is not None:
        return run_study(study, Path(store), cluster=cluster, progress=progress)
    _check_progress(progress)
    with _client(cluster) as client, tempfile.TemporaryDirectory() as folder:
        layout = _layout_of(study)
        with _told(Path(folder)):  # of nobody else: there is nothing to lock, repair or extend
            place = create_store(Path(folder, "sweep"), layout)
            return _run(study, place, layout, client, progress).load()


def run_study(
    study: Study,
    folder: Path,
    *,
    cluster: Any = None,
    progress: Progress | None = None,
    announce: Callable[[Plan], None] | None = None,
) -> xr.Dataset:
    """Run a `Study` into a store, as `sweep` does.

    `announce` is called with the `Plan` before the first run.
    """
    _check_progress(progress)
    with _client(cluster) as client, _told(folder):
        store = _store_of(study, folder)
        with locked(store.folder):
            store.repair()
            return _run(study, store, _grown(store, study), client, progress, announce)


def _check_progress(progress: Any) -> None:
    if progress is not None and not callable(progress):
        raise argument_error("progress", "a function or None", shown(progress))


def _client(cluster: Any) -> Any:
    """A context that yields the client of a cluster, or None without one."""
    return nullcontext() if cluster is None else client_of(cluster)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Raise a `SweepError` that says what to do where a folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise _explained(error, folder) from error


def _run(
    study: Study,
    store: Store,
    layout: Layout,
    client: Any,
    progress: Progress | None,
    announce: Callable[[Plan], None] | None = None,
) -> xr.Dataset:
    """Run what is missing in a store of a study, and return the runs that the study asks for."""
    hands = jax.local_device_count() if client is None else workers_of(client)
    plan = _plan(layout, study, dict(store.pending(layout)), hands)
    if announce is not None:
        announce(plan)
    _work(plan, store, client, progress)
    return _sorted(open_sweep(store.folder), study)


def plan_of(study: Study, folder: Path | None = None) -> Plan:
    """Return the plan of what is left of a study, without changing anything."""
    if folder is None or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        layout = _layout_of(study)
        nothing = np.ones(study.axes.shape, bool)
        pending = {chunk: nothing[layout.region(chunk)] for chunk in layout.all_chunks()}
        return _plan(layout, study, pending, jax.local_device_count())
    store = open_store(folder)
    check_same(store.attributes["study"], study.description(), folder)
    old = _layout_of(store_study(store, study), store.chunks)
    whole = _layout_of(old.study.extended(study), store.chunks)
    left = np.ones(whole.study.axes.shape, bool)
    for chunk, runs in store.pending(old):
        left[old.region(chunk)] = runs
    pending = {chunk: left[whole.region(chunk)] for chunk in whole.all_chunks()}
    return _plan(whole, study, pending, jax.local_device_count())


def _layout_of(study: Study, chunks: Index | None = None) -> Layout:
    return make_layout(study, variables_of(study), chunks)


def _plan(layout: Layout, study: Study, pending: Mapping[Index, np.ndarray], devices: int) -> Plan:
    """A plan for what is pending of the runs that a study asks for."""
    asked = _asked(layout.study, study)
    wanted = [(chunk, runs & asked[layout.region(chunk)]) for chunk, runs in pending.items()]
    return make_plan(layout, wanted, devices)


def store_study(store: Store, study: Study) -> Study:
    """Return the study of a store, with the objects of a study that is equal but for its values."""
    try:
        grid = grid_from(store.attributes["study"]["grid"], dict(study.axes.targets))
    except TableError as error:
        label = error.path[2] if len(error.path) > 2 else ""
        raise SweepError(
            f"{store.folder} has the target `{label}`, too, which cannot be built from its "
            "description: pass it with the others."
        ) from error
    return dataclasses.replace(study, grid=grid)


def _store_of(study: Study, folder: Path) -> Store:
    """The store of a study in a folder, which is made if there is none."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        store = open_store(folder)
        check_same(store.attributes["study"], study.description(), folder)
        return store
    return create_store(folder, _layout_of(study))  # moved to where it is to be, if that is empty


def _grown(store: Store, study: Study) -> Layout:
    """The layout of a store, after it has got room for what the study has more."""
    stored = store_study(store, study)
    layout = _layout_of(stored.extended(study), store.chunks)
    # Also where nothing is new: a process may have been killed while it made room.
    store.extend(layout)
    return layout


def _work(plan: Plan, store: Store, client: Any, progress: Progress | None) -> None:
    total = sum(unit.seconds for unit in plan.units)
    spent, runs, efficiency = 0.0, 0, Efficiency()
    with store.session(plan.devices) as note:

        def done(unit: Unit, found: Results) -> None:
            nonlocal spent, runs
            store.write(plan.layout, unit, found)
            spent, runs = spent + unit.seconds, runs + unit.size
            efficiency.add(found.get("steps", np.ones(unit.size)))
            note(runs=runs, efficiency=round(efficiency.share, 4))
            if progress is not None:
                progress(spent / total)

        runner = Runner.of(plan.layout)
        if client is None:
            on_devices(plan, runner, done)
        else:
            on_cluster(plan, runner, done, client)


def _asked(whole: Study, study: Study) -> np.ndarray:
    """Which runs of the whole study of a store are asked for."""
    asked = np.ones(whole.axes.shape, bool)
    for place, (all_of, some) in enumerate(zip(whole.axes.axes, study.axes.axes, strict=True)):
        wanted = set(some.values)
        chosen = np.array([value in wanted for value in all_of.values])
        asked &= chosen.reshape([-1 if i == place else 1 for i in range(asked.ndim)])
    return asked


def _sorted(dataset: xr.Dataset, study: Study) -> xr.Dataset:
    """The runs that were asked for; numbers in increasing order."""
    for axis in study.axes.axes:
        if len(axis.names) == 1:
            name = axis.names[0]
            values = [value[0] for value in axis.values]
            values = values if name == "target" else sorted(values)
            if list(dataset[name].values) != values:
                dataset = dataset.sel({name: values})
        else:
            columns = [dataset[name].values.tolist() for name in axis.names]
            there = list(zip(*columns, strict=True))
            if there != list(axis.values):
                place_of = {value: place for place, value in enumerate(there)}
                places = [place_of[value] for value in axis.values]
                dataset = dataset.isel({axis.dimension: places})
    return dataset


def _explained(error: OSError, folder: Path) -> SweepError:
    what = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return SweepError(
            f"no room in {folder}: {what}. What was finished is kept: make room, and resume.",
            code=1,
        )
    return SweepError(f"cannot write to {folder}: {what}.")
