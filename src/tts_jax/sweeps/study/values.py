"""Where the values of a grid stand in a problem and its dynamics."""

from collections.abc import Mapping
from typing import Any

from ..._errors import argument_error
from ..._sweepable import Place, sweepable_places, with_places
from ...dynamics.base import AbstractDynamics
from ...models.targets import AbstractLabels
from ...problems.base import AbstractProblem
from .grid import START_NAMES


def places_of(problem: AbstractProblem, dynamics: AbstractDynamics) -> dict[str, list[Place]]:
    """Return the places of everything that a grid may have values for, by name.

    A target's parts, such as the network of a `Teacher`, are not looked into: they stay as they
    are, while `eta` is that of the network that learns.
    """
    return sweepable_places({"problem": problem, "dynamics": dynamics}, closed=AbstractLabels)


def check_names(
    names: tuple[str, ...], problem: AbstractProblem, dynamics: AbstractDynamics
) -> None:
    """Raise `ValueError` unless each name of a grid stands in one place."""
    places = places_of(problem, dynamics)
    for name in names:
        if name in START_NAMES:
            continue
        what = f"a {type(problem).__name__} under {type(dynamics).__name__}"
        if name not in places:
            expected = (
                f"of names among {[*START_NAMES, *places]} for {what} (a class of your own names "
                "its numbers in `sweepable`: declare it in `sweepable`)"
            )
            raise argument_error("grid", expected, f"of `{name}`")
        if len(places[name]) > 1:
            holders = " and ".join(f"`{_dotted(place[:-1])}`" for place in places[name])
            got = f"of `{name}`, which {holders} both declare"
            raise argument_error("grid", f"of names declared in one place for {what}", got)


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


def with_values(
    problem: AbstractProblem, dynamics: AbstractDynamics, values: Mapping[str, Any]
) -> tuple[AbstractProblem, AbstractDynamics]:
    """Return the problem and the dynamics with other values, which may be traced, by the names that
    `places_of` has."""
    both = {"problem": problem, "dynamics": dynamics}
    if "target" in values:  # first, since it may declare numbers that its predecessor has not
        (place,) = places_of(problem, dynamics)["target"]
        both = with_places(both, {place: values["target"]})
    numbers = {name: value for name, value in values.items() if name != "target"}
    if numbers:
        places = places_of(both["problem"], both["dynamics"])
        both = with_places(both, {places[name][0]: value for name, value in numbers.items()})
    return both["problem"], both["dynamics"]
