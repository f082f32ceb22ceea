"""The command `tts-jax`. It owns what a library must not touch: 64-bit mode and XLA's flags."""

import difflib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import jax
import tyro

SMALL_LOOPS = "xla_cpu_small_while_loop_byte_threshold=1000000"
"""Lets XLA on a CPU turn the loops of SGD and of the flows into one kernel. See benchmarks/."""

WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"
"""Lets XLA on a CPU use the widest vectors there are, which it does not by default."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status: 0 fine, 1 a missed expectation, 2 bad usage."""
    app = tyro.extras.SubcommandApp()
    app.command(figures)
    app.command(version)
    try:
        return app.cli(prog="tts-jax", args=argv, description="Two time scale training, simulated.")
    except KeyboardInterrupt:
        print("\nInterrupted: what was finished is kept.", file=sys.stderr)
        return 130
    except UsageError as error:
        print(f"tts-jax: {error}", file=sys.stderr)
        return 2


class UsageError(Exception):
    """Something that the user can put right."""


def figures(
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    /,
    only: Literal["data", "plot"] | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    out: Path | None = None,
) -> int:
    """Make the figures of the paper, and a table of measured against expected.

    Args:
        names: Figures to make, by default all: notations, limit-sketch, proof-sketch,
            two-timescale, equal-steps, epsilon-boxplot, two-dimensions, ten-dimensions, relu,
            epsilon-order.
        only: Make only the data, or only the pictures from saved data.
        quick: A shorter version that takes one to two minutes, and says that it is quick.
        out: Folder to write to, by default figures (with --quick: figures-quick).
    """
    prepare_jax()
    experiments = load_experiments()
    for name in names:
        if name not in experiments.FIGURES:
            near = difflib.get_close_matches(name, experiments.FIGURES, n=3, cutoff=0.4)
            hint = f"Did you mean {', '.join(near)}? " if near else ""
            raise UsageError(
                f"there is no figure `{name}`. {hint}All: {', '.join(experiments.FIGURES)}."
            )
    folder = out if out is not None else Path("figures-quick" if quick else "figures")
    check_writable(folder)
    runner = importlib.import_module(f"{experiments.__name__}.runner")
    try:
        return runner.run_figures(names or experiments.FIGURES, folder, only=only, quick=quick)
    except runner.NoDataError as error:
        raise UsageError(str(error)) from error


def version() -> int:
    """Print the versions of tts_jax and of what it stands on."""
    from importlib.metadata import version as of

    for name in ("tts-jax", "jax", "jaxlib", "diffrax", "optax"):
        print(f"{name} {of(name)}")
    print(f"python {sys.version.split()[0]}")
    return 0


def prepare_jax() -> None:
    """64-bit mode; fast loops on a CPU and each of its cores as a device, unless set already."""
    jax.config.update("jax_enable_x64", True)
    flags = os.environ.get("XLA_FLAGS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = f"--xla_force_host_platform_device_count={cores}"
    for flag in (f"--xla_backend_extra_options={SMALL_LOOPS}", WIDE_VECTORS, devices):
        if flag.split("=")[0] not in flags:
            flags = f"{flags} {flag}".strip()
    os.environ["XLA_FLAGS"] = flags


def load_experiments() -> ModuleType:
    """The package `experiments` of the checkout, or the copy that an installed wheel carries.

    It is loaded from its folder: the library itself never imports experiments.
    """
    name = "tts_jax_experiments"
    if name in sys.modules:
        return sys.modules[name]
    here = Path(__file__).resolve()
    for folder in (here.parents[2] / "experiments", here.parent / "_experiments"):
        source = folder / "__init__.py"
        if source.exists():
            spec = importlib.util.spec_from_file_location(
                name, source, submodule_search_locations=[str(folder)]
            )
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            return module
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
