"""How far a sweep is: a bar where somebody watches, plain lines where the output goes to a file."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 10.0
"""Seconds between two lines."""


@contextmanager
def shown_progress(label: str) -> Iterator[Callable[[float], None]]:
    """Yield what shows a fraction on the standard error output, which is free of numbers."""
    from ..progress import ProgressBar

    if not sys.stderr.isatty():
        yield _lines(label)
        return
    with ProgressBar(label) as bar:
        yield bar


def duration(seconds: float) -> str:
    """Return seconds in words, in the unit that fits."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 1 else "a second"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 2880 else f"{minutes // 1440} days"


def _lines(label: str) -> Callable[[float], None]:
    began = told = time.monotonic()

    def show(fraction: float) -> None:
        nonlocal told
        now = time.monotonic()
        is_last = fraction >= 1 - 1e-9  # a sum of the shares of units, in any order
        if fraction <= 0 or (now - told < EVERY and not is_last):
            return
        told, spent = now, now - began
        rest = f"{duration(spent * (1 - fraction) / fraction)} left"
        if is_last:
            rest = f"in {duration(spent)}"
        print(f"{label}: {fraction:.0%} done, {rest}", file=sys.stderr, flush=True)

    return show
