"""Threads that compute: what they return, an error in one, and interrupts. See test_interrupts.py
for the end of a process."""

import signal
import threading

import pytest

from tts_jax.batching import threads as tts_threads
from tts_jax.batching.threads import Threads


def test_the_results_come_in_order():
    first = threading.Event()

    def late(item):
        if item == 0:
            first.wait()  # until all others are there
        elif item == 3:
            first.set()
        return 10 * item

    assert Threads().run(late, range(4)) == [0, 10, 20, 30]
    assert Threads().run(late, []) == []


def test_an_error_stops_the_others_and_is_raised_here():
    threads, begun = Threads(), threading.Event()

    def work(item):
        if item:
            begun.wait()
            raise ZeroDivisionError
        begun.set()
        threads.stop.wait()

    with pytest.raises(ZeroDivisionError):
        threads.run(work, range(2))


@pytest.fixture
def interrupts():
    """A thread that interrupts this one whenever it is asked to."""
    asked = [threading.Event(), threading.Event()]

    def interrupt():
        for event in asked:
            event.wait()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    return [event.set for event in asked]


def test_an_interrupt_lets_what_is_under_way_end(interrupts, caplog):
    threads, kept, all_begun = Threads(), [], threading.Barrier(3)

    def work(item):
        all_begun.wait()
        interrupts[0]()
        threads.stop.wait()
        threads.hand(kept.append, item)

    with pytest.raises(KeyboardInterrupt):
        threads.run(work, range(3))
    assert sorted(kept) == [0, 1, 2]
    assert "A second interrupt stops at once" in caplog.text


def test_a_second_interrupt_leaves_them_and_drops_what_they_find(interrupts, monkeypatch):
    monkeypatch.setattr(tts_threads, "_left", [])
    threads, kept, go = Threads(), [], threading.Event()
    all_begun, handed = threading.Barrier(3), threading.Event()

    def work(item):
        all_begun.wait()
        if item == 0:
            threads.hand(kept.append, item)
            handed.set()
            return
        handed.wait()
        interrupts[0]()
        threads.stop.wait()
        interrupts[1]()
        go.wait()
        threads.hand(kept.append, item)

    with pytest.raises(KeyboardInterrupt):
        threads.run(work, range(3))
    left = tts_threads._left
    assert sum(not end.is_set() for end in left) == 2
    go.set()
    for end in left:
        end.wait()
    assert kept == [0]
    # Others know nothing of it.
    assert Threads().run(str, [1]) == ["1"]
