"""Whether two studies are the same, but for values that one has more."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SweepError


def check_same(stored: Mapping[str, Any], asked: Mapping[str, Any], where: Any) -> None:
    """Raise `SweepError` with the differences, unless the study asked for has new values at most.

    Both studies are tables; `where` is the folder of the stored one.
    """
    # Where the data stand does not count: the hash of their numbers is in the problem.
    apart: dict[str, Any] = {"grid": None, "taus": None, "data": None}
    lines = differences({**stored, **apart}, {**asked, **apart})
    lines += _other_times(stored["taus"], asked["taus"])
    shape = [_names(table["grid"]) for table in (stored, asked)]
    if shape[0] != shape[1]:
        lines.append(f"grid: stored {shape[0]}, asked {shape[1]}")
    else:
        old, new = stored["grid"], asked["grid"]
        lines += [
            line
            for name in old
            if not isinstance(old[name], list | dict) or name == "target"
            for line in differences(
                _common(old[name], new[name]), _common(new[name], old[name]), f"grid.{name}"
            )
        ]
    if "data" in asked and any(_OTHER_NUMBERS in line for line in lines):
        lines.append(f"The numbers asked for are those in {asked['data']['file']} as it is now.")
    if lines:
        shown = "\n  ".join(lines)
        raise SweepError(
            f"{where} belongs to another study:\n  {shown}\nTake another folder, or ask for "
            "the same study; only the values on its axes may be more."
        )


def _other_times(stored: Sequence[float], asked: Sequence[float]) -> list[str]:
    if list(stored) == list(asked):
        return []
    shown = [f"{len(times)} from {times[0]} to {times[-1]}" for times in (stored, asked)]
    if len(stored) == len(asked):
        apart = [(a, b) for a, b in zip(stored, asked, strict=True) if a != b]
        shown = [str([pair[i] for pair in apart[:3]]) for i in range(2)]
    why = "recorded times are fixed with the store, as what a run needs to go on is not kept"
    return [f"taus: stored {shown[0]}, asked {shown[1]}; {why}"]


def _common(table: Any, other: Any) -> Any:
    """The part of a table of labelled targets whose labels another one has, too; anything else as
    it is."""
    if isinstance(table, dict) and isinstance(other, dict):
        return {label: value for label, value in table.items() if label in other}
    return table


def _names(grid: Mapping[str, Any]) -> list[str]:
    return [
        name if isinstance(v, list | dict) else f"{name} (one value)" for name, v in grid.items()
    ]


_NUMBERS = {"shape", "sha256"}
"""What stands in a table for the numbers of a sample."""

_OTHER_NUMBERS = "other numbers, by their shape and hash"


def differences(stored: Any, asked: Any, path: str = "") -> list[str]:
    """Return where two tables differ, a line each."""
    if isinstance(stored, Mapping) and isinstance(asked, Mapping):
        if stored.keys() == asked.keys() == _NUMBERS and stored != asked:
            shown = [f"{v['shape']} {str(v['sha256'])[:12]}" for v in (stored, asked)]
            return [f"{path}: {_OTHER_NUMBERS}, stored {shown[0]}, asked {shown[1]}"]
        names = [*stored, *(name for name in asked if name not in stored)]
        return [
            line
            for name in names
            for line in differences(
                stored.get(name), asked.get(name), f"{path}.{name}" if path else name
            )
        ]
    if _name(stored) == _name(asked):
        return []
    return [f"{path}: stored {stored!r}, asked {asked!r}"]


def _name(value: Any) -> Any:
    """The name of a class of this package without its module, which another version may have
    elsewhere; anything else as it is."""
    ours = isinstance(value, str) and value.startswith("tts_jax.")
    return value.rpartition(".")[2] if ours else value
