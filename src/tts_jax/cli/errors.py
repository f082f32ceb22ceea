"""The error that the command shows as one line instead of a traceback, and paths that raise it."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class UsageError(Exception):
    """An error that the user can correct. `code` is the exit status."""

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code


def path_of(name: str, given: Path) -> Path:
    """Return the path given as the option or argument `name`, with `~` as the home.

    A shell does not expand it in `--out=~/x`.
    """
    from .._files import as_path  # it imports JAX, which `--help` does not need

    try:
        return as_path(name, given)
    except ValueError as error:
        raise UsageError(str(error)) from error


def file_of(name: str, given: Path) -> Path:
    """Return the path of a file to write, given as the option or argument `name`."""
    file = path_of(name, given)
    if file.is_dir():
        raise UsageError(f"{file} is a folder: name a file in it.")
    if not file.absolute().parent.is_dir():
        raise UsageError(
            f"there is no folder {file.parent}, in which {file.name} is to be written."
        )
    return file


def unknown(what: str, word: str, names: Iterable[str]) -> UsageError:
    """Return the error for a word that names nothing, with the names that are like it."""
    names = list(names)
    near = difflib.get_close_matches(word, names, n=3)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    return UsageError(f"there is no {what} `{word}`. {hint}All: {', '.join(names)}.")
