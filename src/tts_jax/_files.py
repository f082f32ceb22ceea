"""Files: paths as users give them, files that appear whole or not at all, and locks."""

import datetime
import hashlib
import json
import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from ._errors import argument_error
from ._numbers import shown


def as_path(name: str, given: Any) -> Path:
    """Return the path that a user gave as the argument `name`; `~` is the home.

    **Raises:** `ValueError` for what is no path, and for an address such as s3://bucket, which
    would be taken for the name of a folder here.
    """
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
        raise argument_error(name, "a path", shown(given))
    text = os.fspath(given)
    if not text or "\0" in text:
        raise argument_error(name, "a path", repr(text))
    # A `Path` has made one slash of two. One letter is a drive.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise argument_error(name, "a path of this machine's file system", f"an address: {text}")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argument_error(name, "below a home that is known", text) from error


def scratch_prefix(file: Path) -> str:
    """Return how the names of all that is beside a file only for a while begin.

    They are short, however long the name of the file is: it may be as long as names can be.
    """
    return f".tts-{hashlib.sha256(file.name.encode()).hexdigest()[:16]}-"


@contextmanager
def whole(file: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a path to write to, which becomes the file at the end, and vanishes after an error.

    It ends in `suffix`. Where the file is a link, what it points to is replaced.
    """
    file = Path(os.path.realpath(file))
    half = file.with_name(f"{scratch_prefix(file)}{uuid.uuid4().hex[:8]}{suffix}")
    try:
        yield half
        half.replace(file)
    except BaseException:
        with suppress(OSError):
            half.unlink(missing_ok=True)
        raise


class HeldError(RuntimeError):
    """A lock that another process holds. The message says which, and what can be done."""


@contextmanager
def held(lock: Path, *, patience: float = 0.0, keep: bool = False) -> Iterator[None]:
    """Hold a lock as long as the process lives, and tell others who does.

    **Arguments:** `lock`: the file; `patience`: seconds to wait for it; `keep`: whether the file
    stays when the lock is let go of.

    **Raises:** `HeldError` if another process holds it; `OSError` if no file can be written there.
    """
    handle, holder = filelock.FileLock(lock), lock.with_name(f"{lock.name}.holder")
    try:
        handle.acquire(timeout=patience)
    except filelock.Timeout as error:
        raise HeldError(_who(lock, holder)) from error
    try:
        with suppress(OSError):  # it is for others: a full disk does not matter here
            _tell(holder)
        yield
    finally:
        for file in (holder,) if keep else (holder, lock):
            with suppress(OSError):
                file.unlink(missing_ok=True)
        handle.release()


def _tell(holder: Path) -> None:
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    me = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
    with whole(holder) as half:
        half.write_text(json.dumps(me))


def _who(lock: Path, holder: Path) -> str:
    try:
        found = json.loads(holder.read_bytes())
        host, process, since = (str(found[name]) for name in ("host", "process", "since"))
    except (OSError, ValueError, KeyError, TypeError):
        return f"wait for it to end; if there is none, remove {lock}"
    if host == socket.gethostname():
        return f"process {process} of this machine, since {since}; wait for it to end"
    return (
        f"process {process} of the machine {host}, since {since}; wait for it to end, or, if it is "
        f"gone, remove {lock}"
    )
