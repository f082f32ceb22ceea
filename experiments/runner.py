"""Runs figures: data first, pictures from the data, and the table of measured against expected."""

import filecmp
import importlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeVar

import xarray as xr
from matplotlib.animation import FuncAnimation, PillowWriter
from tqdm import tqdm

import tts_jax as tts

from . import FIGURES

Item = TypeVar("Item")
Result = TypeVar("Result")


class NoDataError(Exception):
    """A picture was asked for before its data were made."""


@dataclass(frozen=True)
class Row:
    """One measured number and the range that it is expected in, ends included.

    `quick`: whether the quick version is held to the range too.
    """

    what: str
    measured: float
    low: float
    high: float
    quick: bool = True

    @property
    def met(self) -> bool:
        return self.low <= self.measured <= self.high


@dataclass(frozen=True)
class Run:
    """What a figure's `data` gets: whether to be quick, and progress with time left."""

    name: str
    quick: bool

    def progress(self, label: str, *, steps: int | None = None) -> tts.ProgressBar:
        """A bar for one simulation."""
        return tts.ProgressBar(f"{self.name}: {label}", steps=steps)

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], label: str
    ) -> list[Result]:
        """`function` of every item, on all cores, with a bar over the items."""
        waiting = list(items)
        what = f"{self.name}: {label}"
        # disable=None: no bar where the output is not a terminal.
        with tqdm(total=len(waiting), desc=what, leave=False, disable=None) as bar:

            def counted(item: Item) -> Result:
                result = function(item)
                bar.update()
                return result

            # The first one alone, so that the others find its compiled code.
            results = [counted(item) for item in waiting[:1]]
            pool = ThreadPoolExecutor(os.cpu_count())
            try:
                results += pool.map(counted, waiting[1:])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        return results


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, moved to `path` if the block ends well, else deleted.

    A file that is the same to the last bit stays as it is; one that has changed is told.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".half-", suffix=path.suffix)
    os.close(handle)
    half = Path(name)
    try:
        yield half
        is_there = path.exists()
        if is_there and filecmp.cmp(half, path, shallow=False):
            return
        half.chmod(0o644)
        half.replace(path)
        if is_there:
            print(f"  {path} has changed", file=sys.stderr, flush=True)
    finally:
        half.unlink(missing_ok=True)


def module_of(name: str) -> ModuleType:
    return importlib.import_module(f".{name.replace('-', '_')}", __package__)


def run_figures(
    names: Sequence[str], out: Path, *, only: Literal["data", "plot"] | None, quick: bool
) -> int:
    """Make the figures in `out`; return 1 if an expectation was missed, else 0."""
    # The paper's steps at epsilon = .1 and 1 are coarse; its figures are about that.
    warnings.simplefilter("ignore", tts.CoarseStepsWarning)
    for count, name in enumerate(names, 1):
        began = time.perf_counter()
        module = module_of(name)
        if only != "plot":
            data = module.data(Run(name, quick))
            data.attrs.update(figure=name, quick=int(quick), tts_jax=tts.__version__)
            with atomically(out / f"{name}.nc") as half:
                data.to_netcdf(half, engine="scipy")
        if only != "data":
            _draw(module, _load(out, name), out, name)
        spent = time.perf_counter() - began
        print(f"{count} of {len(names)}: {name}, in {spent:.0f} s", file=sys.stderr, flush=True)
    return _report(names, out)


def _load(out: Path, name: str) -> xr.Dataset:
    path = out / f"{name}.nc"
    if not path.exists():
        raise NoDataError(
            f"There are no data for figure {name} at {path}: run it without `--only plot` first."
        )
    return xr.load_dataset(path, engine="scipy")


def _draw(module: ModuleType, data: xr.Dataset, out: Path, name: str) -> None:
    for file, picture in module.plot(data).items():
        with atomically(out / file) as half:
            if isinstance(picture, FuncAnimation):
                with tqdm(desc=f"{name}: {file}", leave=False, disable=None) as bar:

                    def drawn(frame: int, frames: int, bar: tqdm = bar) -> None:
                        bar.total = frames
                        bar.update()

                    picture.save(half, writer=PillowWriter(fps=10), progress_callback=drawn)
            else:
                if data.attrs["quick"]:
                    picture.text(0.995, 0.995, "quick version", ha="right", va="top", size=9)
                picture.savefig(half)


def _report(names: Sequence[str], out: Path) -> int:
    """Print and save the table for every figure that has data; judge the ones asked for."""
    lines = [
        "| figure | what | measured | expected | |",
        "|---|---|---|---|---|",
    ]
    missed = unjudged = 0
    quick_ones = []
    for name in FIGURES:
        if not (out / f"{name}.nc").exists():
            continue
        data = _load(out, name)
        quick = bool(data.attrs["quick"])
        quick_ones += [name] if quick else []
        for row in module_of(name).rows(data):
            judged = row.quick or not quick
            verdict = ("met" if row.met else "**missed**") if judged else "not judged (quick)"
            missed += name in names and judged and not row.met
            unjudged += name in names and not judged
            expected = f"{row.low:.6g} to {row.high:.6g}"
            lines.append(f"| {name} | {row.what} | {row.measured:.7g} | {expected} | {verdict} |")
    if quick_ones:
        lines += ["", f"Quick versions, not the paper's settings: {', '.join(quick_ones)}."]
    table = "\n".join(lines) + "\n"
    with atomically(out / "expected.md") as half:
        half.write_text(table)
    print(table)
    met = "Every expectation that was judged is met." if unjudged else "Every expectation is met."
    print(f"{missed} expectation(s) missed." if missed else met)
    if unjudged:
        print(f"{unjudged} not judged: the quick version is too short or too noisy for them.")
    return int(missed > 0)
