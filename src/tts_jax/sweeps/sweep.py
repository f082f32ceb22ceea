"""`sweep`: a grid of runs as one labelled data set, which survives kills and damage."""

import errno
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from .._errors import Status, argument_error
from .._files import as_path
from .._numbers import shown
from .._types import Times
from ..batching.devices import local_devices
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
from .storage.creation import create_store
from .storage.opening import open_sweep
from .storage.store import Store, locked, open_store
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

    - `store`: a folder for a Zarr store, which `open_sweep` reads at any moment. If it holds this
      study already, only what is missing is run: the rest of a sweep that was cut off, chunks
      that are damaged, and new values on the axes. Without it all is kept in memory.
    - `cluster`: a `distributed.Client`, "local:4" for worker processes on this machine, or the
      address of a Dask scheduler.
    - `progress`: called with the fraction of the work done.

    **Returns:** a Dataset with the axes of the grid as dimensions, and with `tau` and
    the axes of the parameters, as in `Trajectory.variables`; narrower networks are filled up with
    NaN. From a store it is read when it is needed.
    A run's key derives from its coordinates alone: adding values changes no other run. `status` is
    a code of `tts.Status` for each run, and -1 where none has been made. The attributes `study`,
    `statuses` and `sessions` are JSON, so that `to_netcdf` takes them.

    Programs are kept: another call with other numbers, in the grid or beside it, compiles nothing,
    but where a number of the problem or the dynamics becomes zero, or ceases to be.

    Ctrl-C lets the units under way end (on a cluster it drops them), and is raised then; a second
    one stops it at once. What was finished stays in the store.

    **Warns:** `CoarseStepsWarning`, with the number of runs of SGD whose steps are so large that
    they do not follow the flow.

    **Raises:** `ValueError` for bad arguments; `SweepError` if the store belongs to another study,
    is in use, or cannot be written.
    """
    folder = None if store is None else as_path("store", store)
    study = Study(problem, dynamics, grid, taus, start=start, keep=keep, precision=precision)
    if folder is None:
        data = _in_memory(study, cluster, progress)
    else:
        data = run_study(study, folder, cluster=cluster, progress=progress)
    for caution in cautions_of(study, data):
        warnings.warn(caution, stacklevel=2)
    return data


def _in_memory(study: Study, cluster: Any, progress: Progress | None) -> xr.Dataset:
    progress = _Progress.of(progress)
    with _client(cluster) as client, tempfile.TemporaryDirectory() as folder:
        layout = _layout_of(study)
        advice = "Name a `store` where there is room, or a larger TMPDIR"
        # Of nobody else: there is nothing to lock, repair or extend.
        with _told(Path(folder), progress, advice):
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
    progress = _Progress.of(progress)
    with _client(cluster) as client, _told(folder, progress):
        store = _store_of(study, folder)
        with locked(store.folder):
            store = _store_of(study, store.folder)  # from here on nobody else changes it
            try:
                return _run(study, store, _grown(store, study), client, progress, announce)
            except KeyboardInterrupt as interrupt:
                interrupt.add_note(f"What was finished is kept in {folder}: the same call goes on.")
                raise


def cautions_of(study: Study, data: xr.Dataset) -> list[Warning]:
    """Return what a user should know of the runs that ended well, as `simulate` warns of one."""
    ended_well = data.status == Status.OK
    of_runs = [n for n, v in data.data_vars.items() if v.dims == data.status.dims]
    floats = [name for name in of_runs if data[name].dtype.kind == "f"]
    stats = {str(name): data[name].where(ended_well).values for name in floats}
    return study.dynamics.cautions(stats)


class _Progress:
    """A user's function of the fraction done. Its `error` is known as one that no disk has made."""

    def __init__(self, function: Progress):
        self.function = function
        self.error: BaseException | None = None

    @classmethod
    def of(cls, given: Any) -> "_Progress | None":
        if given is not None and not callable(given):
            raise argument_error("progress", "a function or None", shown(given))
        return None if given is None else cls(given)

    def __call__(self, fraction: float) -> None:
        try:
            self.function(fraction)
        except OSError as error:
            self.error = error
            raise


def _client(cluster: Any) -> Any:
    """A context that yields the client of a cluster, or None without one."""
    return nullcontext() if cluster is None else client_of(cluster)


_ADVICE = "What was finished is kept: make room, and resume"


@contextmanager
def _told(folder: Path, progress: _Progress | None = None, advice: str = _ADVICE) -> Iterator[None]:
    """Raise a `SweepError` that says what to do where a folder cannot be written."""
    try:
        yield
    except OSError as error:
        if progress is not None and error is progress.error:
            raise
        raise _explained(error, folder, advice) from error


def _run(
    study: Study,
    store: Store,
    layout: Layout,
    client: Any,
    progress: Progress | None,
    announce: Callable[[Plan], None] | None = None,
) -> xr.Dataset:
    """Run what is missing in a store of a study, and return the runs that the study asks for."""
    hands = len(local_devices()) if client is None else workers_of(client)
    pending = dict(store.pending(layout))
    store.forget(layout, pending)
    plan = _plan(layout, study, pending, hands)
    if announce is not None:
        announce(plan)
    _work(plan, store, client, progress)
    return _sorted(open_sweep(store.folder), study)


def plan_of(study: Study, folder: Path | None = None) -> Plan:
    """Return the plan of what is left of a study, without changing anything."""
    with _told(Path() if folder is None else folder):
        if folder is None or _is_free(folder):
            layout = _layout_of(study)
            nothing = np.ones(study.axes.shape, bool)
            pending = {chunk: nothing[layout.region(chunk)] for chunk in layout.all_chunks()}
            return _plan(layout, study, pending, len(local_devices()))
        store = open_store(folder)
    check_same(store.attributes["study"], study.description(), folder)
    stored = store_study(store, study)
    chunks = store.chunks(stored)
    old, whole = _layout_of(stored, chunks), _layout_of(stored.extended(study), chunks)
    store.check(old)
    left = np.ones(whole.study.axes.shape, bool)
    for chunk, runs in store.pending(old):
        left[old.region(chunk)] = runs
    pending = {chunk: left[whole.region(chunk)] for chunk in whole.all_chunks()}
    return _plan(whole, study, pending, len(local_devices()))


def _is_free(folder: Path) -> bool:
    """Whether a store can be made in a folder: there is none, or nothing in it."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


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
    return study.with_grid(grid)


def _store_of(study: Study, folder: Path) -> Store:
    """The store of a study in a folder, which is made if there is none."""
    if _is_free(folder):
        return create_store(folder, _layout_of(study))
    store = open_store(folder)
    check_same(store.attributes["study"], study.description(), folder)
    return store


def _grown(store: Store, study: Study) -> Layout:
    """The layout of a store that has been repaired, with room for what the study has more."""
    stored = store_study(store, study)
    chunks = store.chunks(stored)
    store.repair(_layout_of(stored, chunks))
    layout = _layout_of(stored.extended(study), chunks)
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


def _explained(error: OSError, folder: Path, advice: str) -> SweepError:
    what = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return SweepError(f"no room in {folder}: {what}. {advice}.", code=1)
    return SweepError(f"cannot write to {folder}: {what}.")
