"""How much memory there is, so that what cannot fit is refused before it is asked for.

An allocation that is too large does not raise: the system ends the process.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from ._errors import argument_error, has_started


def check_memory(name: str, count: int, *, at_once: int = 1) -> None:
    """Raise unless `count` numbers of 64 bits fit into memory, `at_once` times.

    `name` is the argument that asks for so many.
    """
    needed = 8 * count * at_once
    if needed < _ALWAYS:
        return
    there = min(_sizes(), default=needed)
    if needed > there:
        expected = f"small enough for the {there / 2**30:.3g} GiB of memory that are free"
        raise argument_error(name, expected, f"so large that {needed / 2**30:.3g} GiB are needed")


_ALWAYS = 2**26
"""Bytes that are there: to ask how much is takes longer than small problems do."""


def _sizes() -> Iterator[int]:
    """Yield the bytes that are free by each account there is: of the machine, the group of
    processes that this one belongs to, and an accelerator."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
    with contextlib.suppress(OSError, ValueError):  # the limit may be the word "max"
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{n}").read_text() for n in ("max", "current"))
        lines = (group / "memory.stat").read_text().splitlines()
        # Pages of files that were read are given back where room is needed.
        pages = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        yield int(limit) - int(used) + pages
    with contextlib.suppress(AttributeError, OSError, ValueError):  # where neither of them is
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # To ask JAX for its devices would start it, and `tts.configure()` would come too late.
    stats = (jax.local_devices()[0].memory_stats() if has_started() else None) or {}
    if "bytes_limit" in stats:
        yield stats["bytes_limit"] - stats.get("bytes_in_use", 0)
