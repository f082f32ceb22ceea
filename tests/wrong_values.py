"""Values that are wrong for an argument, made at random, by the kind of argument.

A kind is a function of a generator of NumPy: `number` makes what is no positive number, and so on.
"""

import datetime
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr

import tts_jax as tts

Kind = Callable[[np.random.Generator], Any]
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 3)
OLD_KEYS = jax.random.key_data(KEYS)
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz_ 0123456789.-"))


def word(rng: np.random.Generator) -> str:
    return "".join(rng.choice(LETTERS, rng.integers(1, 9)))


def _shape(rng: np.random.Generator, least: int = 0) -> tuple[int, ...]:
    return tuple(rng.integers(1, 4, rng.integers(least, 4)).tolist())


def _masked(rng: np.random.Generator) -> Any:
    values = rng.normal(size=_shape(rng, 1))
    mask = np.zeros(values.shape, bool)
    mask.flat[rng.integers(values.size)] = True
    return np.ma.array(values, mask=mask)


def _date(rng: np.random.Generator) -> Any:
    return datetime.date(2020, 1, 1) + datetime.timedelta(int(rng.integers(1000)))


def _dates(rng: np.random.Generator) -> Any:
    return np.array([_date(rng) for _ in range(3)], "datetime64[ns]")


_NO_NUMBERS: tuple[Kind, ...] = (
    word,
    lambda rng: word(rng).encode(),
    lambda rng: [word(rng), word(rng)],
    lambda rng: np.array([word(rng), word(rng)]),
    lambda rng: pd.Series([word(rng), word(rng)]),
    lambda rng: complex(rng.normal(), rng.normal()),
    lambda rng: rng.normal(size=_shape(rng)) + 1j,
    lambda rng: bool(rng.integers(2)),
    lambda rng: rng.normal(size=_shape(rng, 1)) > 0,
    _masked,
    lambda rng: [_masked(rng)],
    lambda rng: np.ma.masked,
    _date,
    _dates,
    lambda rng: xr.DataArray(_dates(rng)),
    lambda rng: pd.to_datetime(_dates(rng)),
    lambda rng: xr.Dataset({word(rng): ("x", rng.normal(size=3))}),
    lambda rng: np.timedelta64(int(rng.integers(100)), "s"),
    lambda rng: {word(rng): rng.normal()},
    lambda rng: {rng.normal()},
    lambda rng: (v for v in rng.normal(size=3)),
    lambda rng: [[rng.normal()], list(rng.normal(size=2))],
    lambda rng: [rng.normal(), None],
    lambda rng: object(),
    lambda rng: KEYS,
    lambda rng: Decimal("sNaN"),
    lambda rng: 10 ** int(rng.integers(400, 500)),
    lambda rng: tts.CubicStep,
    lambda rng: tts.CubicStep(0.1),
    lambda rng: tts.GradientFlow(0.1),
)


def one_of(rng: np.random.Generator, kinds: Sequence[Kind]) -> Any:
    return kinds[rng.integers(len(kinds))](rng)


def no_number(rng: np.random.Generator) -> Any:
    """What is no real number, nor several."""
    return one_of(rng, _NO_NUMBERS)


def number(rng: np.random.Generator) -> Any:
    """What is no single positive number."""
    others = (
        lambda rng: -float(rng.exponential()),
        lambda rng: 0,
        lambda rng: rng.choice([np.nan, np.inf, -np.inf]),
        lambda rng: Decimal(-int(rng.integers(1, 9))),
        lambda rng: np.float32("nan"),
        lambda rng: xr.DataArray(-rng.exponential()),
        lambda rng: rng.exponential(size=_shape(rng, 1)),
        lambda rng: list(rng.exponential(size=3)),
        lambda rng: pd.Series(rng.exponential(size=2)),
        lambda rng: None,
    )
    return one_of(rng, (no_number, no_number, *others))


def whole(rng: np.random.Generator) -> Any:
    """What is no whole number from 1 to 2^31."""
    others = (
        lambda rng: float(rng.exponential()),
        lambda rng: -int(rng.integers(0, 10)),
        lambda rng: 2 ** int(rng.integers(41, 99)),
        lambda rng: rng.integers(1, 9, _shape(rng, 1)),
        lambda rng: [int(rng.integers(1, 9))],
        lambda rng: Decimal(2),
        lambda rng: xr.DataArray(1.5),
    )
    return one_of(rng, (no_number, *others))


def array(rng: np.random.Generator) -> Any:
    """What is no array of finite numbers with one axis at least."""
    others = (
        lambda rng: float(rng.normal()),
        lambda rng: None,
        lambda rng: rng.choice([np.nan, np.inf], 3),
        lambda rng: np.where(rng.uniform(size=3) < 2, np.nan, 0.0),
        lambda rng: rng.normal(size=(2, 2, 2, 1)) * np.nan,
        lambda rng: pd.Series([0.1, None], dtype="Float64"),
    )
    return one_of(rng, (no_number, no_number, *others))


def thing(rng: np.random.Generator) -> Any:
    """What is no module of the package that an argument is for, no function, and no path."""
    others = (
        lambda rng: float(rng.normal()),
        lambda rng: int(rng.integers(99)),
        lambda rng: rng.normal(size=_shape(rng)),
        lambda rng: list(rng.normal(size=2)),
        lambda rng: {word(rng): rng.normal()},
        lambda rng: object(),
        lambda rng: KEY,
        lambda rng: b"bytes",
        lambda rng: xr.DataArray(rng.normal(size=2)),
    )
    return one_of(rng, others)


def thing_or_none(rng: np.random.Generator) -> Any:
    return None if rng.integers(5) == 0 else thing(rng)


_CLASSES = (tts.CubicStep, tts.GradientFlow, tts.ShallowNetwork, tts.Problem, tts.Params)
_SHALLOW = tts.ShallowNetwork(tts.ReLU())
_TARGET = tts.PiecewiseConstant([0.5], [0.0, 1.0])
_MODULES = (
    *(tts.ReLU(), _SHALLOW, tts.AdditiveNetwork(tts.ReLU()), _TARGET, tts.AdditiveSteps([0.5])),
    *(tts.Problem(_SHALLOW, _TARGET), tts.EmpiricalProblem(_SHALLOW, [0.1], [1.0])),
    *(tts.LimitFlow(), tts.ReducedFlow(), tts.GradientFlow(0.1), tts.SGD(0.1, 0.1)),
    *(tts.Params(np.zeros(2), np.zeros(1)), tts.Status.OK, xr.Dataset({"a": ("b", [1.0])})),
)


def not_a(*kinds: type) -> Kind:
    """Return what is wrong for an argument of these classes: classes in place of their instances,
    instances of others, and what is no object of the package."""
    others = [module for module in _MODULES if not isinstance(module, kinds)]
    return lambda rng: one_of(
        rng,
        (
            thing_or_none,
            word,
            lambda rng: others[rng.integers(len(others))],
            lambda rng: _CLASSES[rng.integers(len(_CLASSES))],
        ),
    )


def unless(kind: Kind, is_right: Callable[[Any], bool], instead: Any) -> Kind:
    """Return a kind of values with another one in place of those that happen to be right."""

    def found(rng: np.random.Generator) -> Any:
        value = kind(rng)
        return instead if (value is None or type(value) is int) and is_right(value) else value

    return found


def key(rng: np.random.Generator) -> Any:
    others = (lambda rng: KEYS, lambda rng: jax.random.key, lambda rng: OLD_KEYS)
    wrong = one_of(rng, (thing_or_none, word, *others))
    return KEYS if wrong is KEY else wrong


def flag(rng: np.random.Generator) -> Any:
    return one_of(rng, (thing_or_none, word))


def choice(rng: np.random.Generator) -> Any:
    return one_of(rng, (thing_or_none, lambda rng: word(rng) + "!"))
