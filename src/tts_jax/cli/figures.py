"""`tts-jax figures`: the figures of the paper, and of others about two rates."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import tyro

from .errors import UsageError, path_of, unknown

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]


def figures(
    names: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="[NAME ...]", help_behavior_hint=""),
    ] = (),
    /,
    only: Annotated[
        Literal["data", "plot"] | None,
        tyro.conf.arg(metavar="{data,plot}", help_behavior_hint=""),
    ] = None,
    quick: Flag = False,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None,
) -> int:
    """Make the figures of the papers, and a table of measured against expected.

    Args:
        names: Figures to make, by default all: notations, limit-sketch, proof-sketch,
            two-timescale, equal-steps, epsilon-boxplot, two-dimensions, ten-dimensions, relu,
            epsilon-order, learning-order, fast-link, varpro.
        only: Make only the data, or only the pictures from saved data.
        quick: A shorter version that takes two to three minutes, and says that it is quick.
        out: Folder to write to, by default figures (with --quick: figures-quick).
    """
    from ..configuration import configure

    configure()
    experiments = load_experiments()
    for name in names:
        if name not in experiments.FIGURES:
            raise unknown("figure", name, experiments.FIGURES)
    usual = Path("figures-quick" if quick else "figures")
    folder = usual if out is None else path_of("out", out)
    check_writable(folder)
    runner = importlib.import_module(f"{experiments.__name__}.runner")
    try:
        return runner.run_figures(names or experiments.FIGURES, folder, only=only, quick=quick)
    except runner.NoDataError as error:
        raise UsageError(str(error)) from error


def load_experiments() -> ModuleType:
    """Return the package `experiments`.

    It is loaded from its folder: the library itself never imports experiments.
    """
    name = "tts_jax_experiments"
    if name in sys.modules:
        return sys.modules[name]
    folder = experiments_folder()
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def experiments_folder() -> Path:
    """Return the folder of the experiments, in the checkout or in the installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parents[1] / "experiments", package / "_experiments"):
        if (folder / "__init__.py").exists():
            return folder
    raise UsageError("the experiments are neither in a checkout nor in this installation.")


def check_writable(folder: Path) -> None:
    """Make the folder, and raise `UsageError` if no file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"cannot write to the output folder {folder}: {error.strerror}."
        ) from error
