"""How far a sweep is, in plain lines: where the output is no terminal."""

import time

import pytest

from tts_jax.cli.progress import duration, shown_progress


def test_lines_come_from_time_to_time_and_at_the_end(monkeypatch, capsys):
    clock = iter([0.0, 4.0, 20.0, 25.0, 40.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with shown_progress("s.zarr") as show:
        for fraction in (0.1, 0.25, 0.5, 1.0):
            show(fraction)
    said = capsys.readouterr()
    assert said.err == "s.zarr: 25% done, 1 min left\ns.zarr: 100% done, in 40 s\n"
    assert said.out == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "a second"), (59, "59 s"), (90, "2 min"), (7500, "2 h 5 min"), (3e5, "3 days")],
)
def test_durations_are_told_in_the_unit_that_fits(seconds, words):
    assert duration(seconds) == words
