"""The bar for `simulate`."""

import io

import jax.numpy as jnp
import tqdm as tqdm_module

import tts_jax as tts
from tts_jax import progress


def drawn(monkeypatch, **kwargs):
    """What a terminal gets from a bar that goes to the end."""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)

    def tqdm(**options):
        return tqdm_module.tqdm(file=terminal, mininterval=0.0, ncols=100, **options)

    monkeypatch.setattr(progress, "tqdm", tqdm)
    with tts.ProgressBar("SGD", **kwargs) as bar:
        for fraction in (0.25, 0.5, 1.0):
            bar(fraction)
    return terminal.getvalue()


def test_it_tells_the_steps_per_second(monkeypatch):
    text = drawn(monkeypatch, steps=jnp.asarray(4_000_000))
    assert "SGD:  25%" in text
    assert "2.00M/4.00M" in text
    assert "steps/s]" in text


def test_without_steps_it_tells_the_time_left(monkeypatch):
    text = drawn(monkeypatch)
    assert "50%" in text
    assert "<" in text
    assert "steps" not in text


def test_it_is_silent_where_there_is_no_terminal(capsys):
    with tts.ProgressBar("SGD", steps=10) as bar:
        bar(1.0)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def enabled(options):
    return {**options, "disable": False, "file": io.StringIO()}


def test_the_speed_is_that_of_what_it_has_seen(monkeypatch):
    """A run that goes on from a checkpoint had half of its steps done before."""
    monkeypatch.setattr(progress, "tqdm", lambda **options: tqdm_module.tqdm(**enabled(options)))
    with tts.ProgressBar("SGD", steps=1000) as bar:
        inner = bar._bar
        bar(0.5)
        bar(0.75)
        assert inner.n == 750
        assert inner.format_dict["n"] - inner.format_dict["initial"] == 250
