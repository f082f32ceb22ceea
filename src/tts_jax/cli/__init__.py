"""The command `tts-jax`. Nothing here imports JAX until a command needs it."""

import os
import sys

import tyro

from .errors import UsageError, unknown
from .figures import figures, load_experiments
from .studies import studies
from .sweeps import export, plot, resume, status, sweep

__all__ = ["command", "load_experiments", "main"]


def command() -> None:
    """Run `main`, and end the process with its exit status."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on, such as behind `| head`: Python would complain of what it cannot flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _NOT_READ
    sys.stderr.flush()
    if code == _INTERRUPTED:
        # At once: Python's orderly exit would abort threads in which XLA is still working.
        os._exit(code)
    sys.exit(code)


_INTERRUPTED = 130
_NOT_READ = 141
"""What a shell says of a process that ends since nobody reads its output."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status.

    0 fine; 1 a missed expectation, or a sweep that could not go on; 2 bad usage; 130 interrupted.
    """
    words = sys.argv[1:] if argv is None else argv
    app = tyro.extras.SubcommandApp()
    commands = (figures, sweep, status, resume, plot, export, studies, version)
    for command in commands:
        app.command(command)
    description = "Two time scale training, simulated. `--version` prints the version."
    try:
        if words[:1] == ["--version"]:
            print(f"tts-jax {_version_of('tts-jax')}")
            return 0
        if words and not words[0].startswith("-"):
            _check_command(words[0], [command.__name__ for command in commands])
        return app.cli(prog="tts-jax", args=words, description=description)
    except KeyboardInterrupt:
        print("\nInterrupted: what was finished is kept.", file=sys.stderr)
        return _INTERRUPTED
    except UsageError as error:
        print(f"tts-jax: {error}", file=sys.stderr)
        return error.code


def version() -> int:
    """Print the versions of tts_jax, of the libraries that it is built on, and of Python."""
    for name in ("tts-jax", "jax", "jaxlib", "diffrax", "optax"):
        print(f"{name} {_version_of(name)}")
    print(f"python {sys.version.split()[0]}")
    return 0


def _version_of(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def _check_command(word: str, names: list[str]) -> None:
    if word not in names:
        raise unknown("command", word, names)
