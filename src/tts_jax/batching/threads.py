"""Threads that compute, one for each device, and what Ctrl-C does to them.

A thread inside XLA cannot be stopped, and must not outlive Python: up to Python 3.13 a thread that
comes back after the interpreter has ended is unwound through frames of C++, which abort the
process.
"""

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .thread_settings import in_this_context

Item = TypeVar("Item")
Result = TypeVar("Result")

_GLANCE = 0.2
"""Seconds between two looks at whether there was an interrupt."""

_left: list[threading.Event] = []
"""The ends of threads that nobody waits for any more."""


class Threads:
    """Threads for the items of some work. `stop` is set when no more of it is to be begun."""

    def __init__(self):
        self.stop = threading.Event()
        self._turn, self._are_left = threading.Lock(), False

    def run(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return what `work` makes of each item, each in a thread of its own, under the settings
        that hold here.

        An error, or Ctrl-C, sets `stop`, and is raised here when all threads have ended. A second
        Ctrl-C is raised at once: then the threads end by themselves, and `hand` does nothing.
        """
        found: dict[int, Result] = {}
        work = in_this_context(work)
        errors: list[BaseException] = []
        # Not `Thread.join`: in Python 3.11 and 3.12, one that was interrupted takes the thread for
        # dead while it is running.
        ends = [threading.Event() for _ in items]
        begun: list[threading.Event] = []
        starting = threading.Lock()

        def one(place: int) -> None:
            try:
                with starting:
                    if self.stop.is_set():  # an interrupt came while threads were started
                        return
                    begun.append(ends[place])
                found[place] = work(items[place])
            except BaseException as error:
                errors.append(error)
                self.stop.set()
            finally:
                ends[place].set()

        try:
            for place in range(len(items)):
                # Daemons: Python does not wait for them, `_end` below sees to it.
                threading.Thread(target=one, args=(place,), daemon=True).start()
            _wait(ends)
        except KeyboardInterrupt:
            try:
                with starting:
                    self.stop.set()
                logging.getLogger("tts_jax").warning(
                    "Interrupted: what is under way ends first. A second interrupt stops at once."
                )
                _wait(begun)
            except KeyboardInterrupt:
                self._leave(begun)
                raise
            raise
        if errors:
            raise errors[0]
        return [found[place] for place in range(len(items))]

    def hand(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function, for one thread at a time, and not once the threads have been left."""
        with self._turn:
            if not self._are_left:
                function(*arguments)

    def _leave(self, ends: list[threading.Event]) -> None:
        _left.extend(end for end in ends if not end.is_set())
        with self._turn:  # what is being handed over is finished first
            self._are_left = True


def _wait(ends: Sequence[threading.Event]) -> None:
    for end in ends:
        while not end.wait(_GLANCE):
            pass


@atexit.register
def _end() -> None:
    """End the process well where threads have been left: at once if an interrupt ends it, else as
    soon as they have ended."""
    try:
        ended_by = getattr(sys, "last_value", None)
        if not isinstance(ended_by, KeyboardInterrupt):
            _wait(_left)
    except KeyboardInterrupt:
        pass
    if all(end.is_set() for end in _left):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    # As Python ends at an interrupt that nobody has caught.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
