"""Names of arguments: a wrong one is answered with the right one."""

import difflib
import inspect
from collections.abc import Iterable
from typing import Any, Self

import equinox as eqx

_ELSEWHERE = {
    "eps": "epsilon",
    "h": "step_size",
    "lr": "step_size",
    "learning_rate": "step_size",
    "reltol": "rtol",
    "abstol": "atol",
    "tol": "rtol",
    "optimizer": "optimiser",
    "labels": "y",
    "inputs": "x",
    "act": "activation",
    "breakpoints": "jumps",
    "levels": "values",
}
"""What other libraries and papers call an argument, and its name here."""


class NamedArguments(eqx.Module):
    """A module that answers an argument which it does not have with the one that may be meant."""

    def __new__(cls, *given: Any, **named: Any) -> Self:
        del given
        if named:
            check_names(cls, named)
        return super().__new__(cls)


def check_names(kind: type, names: Iterable[str]) -> None:
    """Raise `TypeError` for a name that no argument of a class has."""
    arguments = inspect.signature(kind.__init__).parameters
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in arguments.values()):
        return  # a user's own class, which takes any
    known = [name for name in arguments if name != "self"]
    for name in names:
        if name not in known:
            raise TypeError(
                f"{kind.__name__} has no argument `{name}`{_meant(name, known)} "
                f"It has {', '.join(known) or 'none'}."
            )


def _meant(name: str, known: list[str]) -> str:
    """Return the question whether another argument is meant, if one is like it."""
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    found = _ELSEWHERE.get(name.lower(), *near[:1] or [None])
    return f": did you mean `{found}`?" if found in known else "."
