"""`tts-jax studies`: the studies that come with the package."""

from pathlib import Path
from typing import Annotated

import tyro

from .errors import unknown
from .figures import experiments_folder


def studies(
    name: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]", help_behavior_hint="")
    ] = None,
    /,
) -> int:
    """List the studies that come with the package, or print one.

    `tts-jax sweep NAME` runs one as it is, `tts-jax studies NAME > my.toml` makes a file to change.

    Args:
        name: The study to print.
    """
    if name is not None:
        print(shipped_study(name).read_text(), end="")
        return 0
    for file in _files():
        first = file.read_text().splitlines()[0]
        print(f"{file.stem}  {first.removeprefix('# ')}")
    return 0


def study_file(study: Path) -> Path:
    """Return the file of a study, which may be given by the name of one of the package's."""
    if study.exists() or study.suffix or study.name != str(study):
        return study
    return shipped_study(str(study))


def shipped_study(name: str) -> Path:
    """Return the file of one of the package's studies.

    **Raises:** `UsageError` with the names that there are.
    """
    names = {file.stem: file for file in _files()}
    if name in names:
        return names[name]
    raise unknown("study", name, names)


def _files() -> list[Path]:
    return sorted(experiments_folder().glob("studies/*.toml"))
