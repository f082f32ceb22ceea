"""Objects of the package as plain tables, which JSON and TOML can hold, and back.

A table names the class in `type`, and has the arguments that differ from their defaults.
"""

import dataclasses
import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import numpy as np

from ..._digest import digest
from ..._numbers import as_floats
from ..._sweepable import Place
from ..._types import as_arrays
from ...dynamics.gradient_flow import GradientFlow
from ...dynamics.limit_flow import LimitFlow
from ...dynamics.reduced_flow import ReducedFlow
from ...dynamics.sgd.dynamics import SGD
from ...models.activations import CubicStep, Erf, HermiteSeries, Logistic, Probit, ReLU, Tanh
from ...models.additive import AdditiveNetwork
from ...models.network import Params
from ...models.shallow import ShallowNetwork
from ...models.targets import AdditiveSteps, PiecewiseConstant, Teacher
from ...models.two_layer import TwoLayerNetwork
from ...problems.empirical import EmpiricalProblem
from ...problems.gaussian import GaussianProblem
from ...problems.population import Problem
from .starts import OPTIONS, drawn_params

SWEPT = "grid"
"""Stands in a table where the grid has the values."""

_OBJECTS = ("solver", "adjoint", "optimiser")

KNOWN = {
    kind.__name__: kind
    for kind in (
        *(Problem, GaussianProblem, EmpiricalProblem),
        *(ShallowNetwork, AdditiveNetwork, TwoLayerNetwork, Params),
        *(CubicStep, Tanh, Erf, HermiteSeries, Logistic, Probit, ReLU),
        *(PiecewiseConstant, AdditiveSteps, Teacher),
        *(GradientFlow, ReducedFlow, LimitFlow, SGD),
    )
}
"""What can be built from a table."""

SAMPLE = ("x", "y", "weights")
"""The arguments of an `EmpiricalProblem` that are numbers by the thousand: a table has a hash of
them, and a file has the numbers."""

DRAWN = "init_two_layer"
"""The `type` of the parameters of a teacher that are drawn. Described, they are numbers."""


class TableError(ValueError):
    """A table that is wrong at `path`, a tuple of names that lead there."""

    def __init__(self, path: tuple[str, ...], message: str):
        super().__init__(message)
        self.path = path
        self.message = message

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.message), self.__dict__


def describe(thing: Any) -> Any:
    """Return a plain table, list, number or word that stands for a thing.

    A function, or an object of a class that is not of this package, stands there with a hash of
    what it does: two of them can be told apart, but not be built.
    """
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if type(thing) is dict:  # the inner half of the parameters of a two-layer network
        return {name: describe(part) for name, part in thing.items()}
    if isinstance(thing, Params) or (eqx.is_array_like(thing) and np.ndim(thing) > 0):
        return _table(thing) if isinstance(thing, Params) else np.asarray(thing).tolist()
    if eqx.is_array_like(thing):
        return np.asarray(thing).item()
    if isinstance(thing, eqx.Module) and KNOWN.get(type(thing).__name__) is type(thing):
        return _table(thing)
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    return {
        "type": f"{getattr(thing, '__module__', '')}.{name}",
        "digest": digest(as_arrays(thing)),
    }


def _table(thing: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"type": type(thing).__name__}
    if isinstance(thing, Params):
        return found | {name: describe(half) for name, half in thing._asdict().items()}
    is_sample = isinstance(thing, EmpiricalProblem)
    arguments = inspect.signature(type(thing)).parameters
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        if field.name not in arguments:  # made of the others
            continue
        if is_sample and field.name in SAMPLE and value is not None:
            found[field.name] = describe_sample(value)
            continue
        plain = value is None or isinstance(value, bool | int | float | str)
        if not (plain and value == field.default):
            found[field.name] = describe(value)
    return found


def describe_sample(values: Any) -> dict[str, Any]:
    """Return the shape of an array of numbers, and a hash of its numbers and its dtype."""
    array = np.ascontiguousarray(values)
    array = array.astype(array.dtype.newbyteorder("<"))
    hasher = hashlib.sha256(repr((array.dtype.str, array.shape)).encode())
    hasher.update(array.data.cast("B"))
    return {"shape": list(array.shape), "sha256": hasher.hexdigest()}


def mark_swept(table: Any, place: Place) -> None:
    """Write that the grid has the values at a place of a table of tables, unless a hash stands
    there for the object that holds it."""
    for name in place[:-1]:
        table = table.get(name) if isinstance(table, dict) else None
    if isinstance(table, dict) and "digest" not in table:
        table[place[-1]] = SWEPT


def build(table: Any, path: tuple[str, ...] = ()) -> Any:
    """Return the thing that a plain table stands for.

    **Raises:** `TableError` for an unknown class or argument, a missing one, and what the class
    itself complains of.
    """
    if isinstance(table, list | tuple):
        try:
            return as_floats(".".join(path), table)
        except ValueError:
            raise TableError(path, f"`{'.'.join(path)}` must be a list of numbers.") from None
    if not isinstance(table, Mapping):
        return table
    if "rates" in path and "type" not in table:  # a tree of numbers, not an object
        return {name: build(value, (*path, name)) for name, value in table.items()}
    given = dict(table)
    kind = given.pop("type", None)
    if not isinstance(kind, str) or kind not in KNOWN:
        got = "missing" if kind is None else f"`{kind}`"
        message = f"`{'.'.join((*path, 'type'))}` is {got}: it must be one of {', '.join(KNOWN)}."
        raise TableError((*path, "type") if kind is not None else path, message)
    allowed = list(inspect.signature(KNOWN[kind]).parameters)
    check_names(kind, allowed, given, path)
    for name in given:
        if name in _OBJECTS and isinstance(given[name], str | bool | int | float):
            message = f"`{name}` is an object that a table cannot hold; leave it out."
            raise TableError((*path, name), message)
        if name == "bias" and not isinstance(given[name], bool):
            message = f"`bias` must be true or false, but is {given[name]!r}."
            raise TableError((*path, name), message)
    drawn = kind == "Teacher" and _is_drawn(given.get("params"))
    params = given.pop("params") if drawn else None  # the network comes first
    made = {name: _part(kind, value, (*path, name)) for name, value in given.items()}
    if params is not None:
        made["params"] = _drawn(params, made.get("network"), (*path, "params"))
    return call(kind, KNOWN[kind], made, path)


def _part(kind: str, value: Any, path: tuple[str, ...]) -> Any:
    """An argument of a class, built. A half of parameters may be several arrays by name."""
    if kind == "Params" and isinstance(value, Mapping) and "type" not in value:
        return {name: build(part, (*path, name)) for name, part in value.items()}
    return build(value, path)


def _is_drawn(table: Any) -> bool:
    return isinstance(table, Mapping) and table.get("type") == DRAWN


def _drawn(table: Mapping[str, Any], network: Any, path: tuple[str, ...]) -> Params:
    given = {name: value for name, value in table.items() if name != "type"}
    check_names(DRAWN, ("seed", "width", *OPTIONS), given, path)
    return call(DRAWN, functools.partial(drawn_params, network), given, path)


def check_names(
    kind: str, allowed: Sequence[str], given: Mapping[str, Any], path: tuple[str, ...]
) -> None:
    """Raise `TableError` if a table for a `kind` has a name that is not allowed there."""
    for name in given:
        if name not in allowed:
            message = f"a {kind} has no `{name}`; it has {', '.join(allowed) or 'nothing'}."
            raise TableError((*path, name), message)


def call(
    kind: str, function: Callable[..., Any], given: Mapping[str, Any], path: tuple[str, ...]
) -> Any:
    """Return what a function returns for the arguments of a table, the `kind` of which is told
    where they are wrong.

    **Raises:** `TableError` at the argument that the function complains of.
    """
    try:
        return function(**given)
    except TypeError as error:
        message = re.sub(r"[\w.<>]+\(\) ", "", str(error))
        where = f"`{'.'.join(path)}` is a {kind}" if path else kind
        raise TableError(path, f"{where}: {message}.") from error
    except ValueError as error:
        named = next((name for name in given if f"`{name}`" in str(error)), None)
        raise TableError(path if named is None else (*path, named), str(error)) from error
