"""The error that the command shows as one line instead of a traceback, and paths that raise it."""

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
