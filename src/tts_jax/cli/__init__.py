"""The command `tts-jax`. Nothing here imports JAX until a command needs it."""

import os
import sys

import tyro

from .errors import UsageError
from .figures import figures, load_experiments
from .sweeps import export, plot, resume, status, sweep

__all__ = ["command", "load_experiments", "main"]


def command() -> None:
    """`main` as a process, which ends with its exit status."""
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if code == _INTERRUPTED:
        # At once: an orderly end of Python would abort threads that XLA still has at work.
        os._exit(code)
    sys.exit(code)


_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status.

    0 fine; 1 a missed expectation, or a sweep that could not go on; 2 bad usage; 130 interrupted.
    """
    app = tyro.extras.SubcommandApp()
    for command in (figures, sweep, status, resume, plot, export, version):
        app.command(command)
    try:
        return app.cli(prog="tts-jax", args=argv, description="Two time scale training, simulated.")
    except KeyboardInterrupt:
        print("\nInterrupted: what was finished is kept.", file=sys.stderr)
        return _INTERRUPTED
    except UsageError as error:
        print(f"tts-jax: {error}", file=sys.stderr)
        return error.code


def version() -> int:
    """Print the versions of tts_jax and of what it stands on."""
    from importlib.metadata import version as of

    for name in ("tts-jax", "jax", "jaxlib", "diffrax", "optax"):
        print(f"{name} {of(name)}")
    print(f"python {sys.version.split()[0]}")
    return 0
