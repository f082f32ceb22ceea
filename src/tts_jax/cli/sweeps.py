"""`tts-jax sweep`, `status`, `resume`, `plot` and `export`: studies, and their stores."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from .errors import UsageError, file_of, path_of
from .figures import Flag
from .progress import duration, shown_progress
from .studies import study_file

if TYPE_CHECKING:
    from ..sweeps.execution.plan import Plan
    from ..sweeps.study.study import Study


Store = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
Cluster = Annotated[str | None, tyro.conf.arg(metavar="CLUSTER", help_behavior_hint="")]


def sweep(
    study: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")],
    /,
    out: Folder = None,
    dry_run: Flag = False,
    cluster: Cluster = None,
) -> int:
    """Run a study: a grid of simulations, into a Zarr store that xarray opens.

    A store that exists already is continued: with runs that are missing or damaged, and with
    values that were added to the study.

    Args:
        study: A TOML file, or the name of one that comes with the package: see `tts-jax studies`.
        out: Folder of the store, by default named after the study, in the current folder.
        dry_run: Print the plan and the time that it is expected to take, and run nothing.
        cluster: "local:4" for worker processes, or the address of a Dask scheduler.
    """
    from ..configuration import configure
    from ..sweeps.execution.runner import Runner
    from ..sweeps.study.toml import read_study
    from ..sweeps.sweep import plan_of

    configure()
    folder = Path(f"{study.stem}.zarr") if out is None else path_of("out", out)
    with _explained():
        asked = read_study(study_file(study))
        if not dry_run:
            return _run(asked, folder, cluster)
        plan = plan_of(asked, folder)
        print(plan)
        print(f"  expected: {duration(plan.predict(Runner.of(plan.layout)))}; nothing was run")
    return 0


def resume(folder: Store, /, cluster: Cluster = None) -> int:
    """Continue a sweep that was interrupted, and make damaged runs again.

    Args:
        folder: The folder of the store.
        cluster: "local:4" for worker processes, or the address of a Dask scheduler.
    """
    from ..configuration import configure
    from ..sweeps.storage.store import open_store

    configure()
    folder = path_of("folder", folder)
    with _explained():
        return _run(open_store(folder).study(), folder, cluster)


def status(folder: Store, /) -> int:
    """Print how far a sweep is, and how its runs ended.

    Args:
        folder: The folder of the store.
    """
    from ..sweeps.storage.report import report

    with _explained():
        print(report(path_of("folder", folder)))
    return 0


def plot(
    folder: Store,
    /,
    kind: Literal["phase", "risk", "box"] = "phase",
    over: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="AXIS [AXIS ...]", help_behavior_hint="")
    ] = (),
    below: Annotated[float | None, tyro.conf.arg(metavar="RISK", help_behavior_hint="")] = None,
    limit: Annotated[Path | None, tyro.conf.arg(metavar="STORE", help_behavior_hint="")] = None,
    out: File = None,
) -> int:
    """Draw a sweep.

    Args:
        folder: The folder of the store.
        kind: "phase" is the probability of success over two axes, "risk" the risk against slow
            time for each value of one axis (median, and the band of the middle 80 %), "box" the
            final risks over one axis.
        over: The axes, by default the first ones other than seed.
        below: A run succeeds with a risk below this, by default 2.5 times the floor
            of the problem, or half the risk of missing a jump if that is less.
        limit: The store of a LimitFlow over the same starts, to draw on top of "risk".
        out: The picture, by default named after the store and the kind, a PNG beside the store.
    """
    from .pictures import picture

    with _explained():
        folder = path_of("folder", folder)
        limit = None if limit is None else path_of("limit", limit)
        place = folder.resolve()
        usual = place.with_name(f"{place.stem}-{kind}.png")
        file = usual if out is None else file_of("out", out)
        print(picture(folder, kind, over, below, limit, file))
    return 0


def export(
    folder: Store,
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    /,
) -> int:
    """Write a sweep as one netCDF file.

    Args:
        folder: The folder of the store.
        file: The file to write, such as sweep.nc; `xarray.open_dataset` reads it.
    """
    from ..sweeps.storage.report import export_netcdf

    with _explained():
        file = file_of("file", file)
        export_netcdf(path_of("folder", folder), file)
        print(file)
    return 0


def _run(study: "Study", folder: Path, cluster: str | None) -> int:
    from ..sweeps.execution.runner import Runner
    from ..sweeps.storage.report import report
    from ..sweeps.sweep import cautions_of, run_study

    shown: list[Callable[[float], None]] = []

    def announce(plan: "Plan") -> None:
        print(plan, file=sys.stderr)
        if plan.units:
            about = plan.seconds
            if about > _WORTH_MEASURING:
                about = plan.predict(Runner.of(plan.layout))
            print(f"  expected: about {duration(about)}", file=sys.stderr, flush=True)
        shown.append(stack.enter_context(shown_progress(folder.name)))

    def progress(fraction: float) -> None:
        shown[0](fraction)

    with ExitStack() as stack:
        data = run_study(study, folder, cluster=cluster, progress=progress, announce=announce)
    for caution in cautions_of(study, data):
        print(f"tts-jax: {caution}", file=sys.stderr)
    print(report(folder))
    return 0


_WORTH_MEASURING = 10.0
"""The estimated seconds from which on some runs of a sweep are timed before it starts."""


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors that a user can correct into a `UsageError`, which is shown as one line."""
    from ..sweeps.errors import StudyError, SweepError

    try:
        yield
    except StudyError as error:
        raise UsageError(str(error)) from error
    except SweepError as error:
        raise UsageError(str(error), code=error.code) from error
    except ValueError as error:
        if not str(error).startswith("Argument"):
            raise
        raise UsageError(str(error)) from error
