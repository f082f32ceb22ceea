"""Which numbers of a tree of modules may be swept, and where they stand."""

from typing import ClassVar

import equinox as eqx
import pytest

from tts_jax._numbers import check_scalar
from tts_jax._sweepable import at_place, check_number, sweepable_places, with_places


class Leaf(eqx.Module):
    size: float
    weight: float = 1.0
    sweepable: ClassVar = ("size",)

    def __check_init__(self):
        check_scalar("size", self.size, minimum=0.0, strict=True)


class More(Leaf):
    sweepable: ClassVar = (*Leaf.sweepable, "weight")


class Holder(eqx.Module):
    """A class of somebody else, which knows nothing of sweeps."""

    parts: dict
    pinned: Leaf = eqx.field(static=True)
    plain: float = 0.0


class Closed(eqx.Module):
    inner: Leaf
    gain: float
    sweepable: ClassVar = ("gain",)


def test_names_are_found_where_they_are_declared_and_nowhere_else():
    tree = {"one": Holder({"a": (Leaf(1.0), More(2.0, 3.0))}, Leaf(4.0)), "two": [5.0, "word"]}
    first, second = ("one", "parts", "a", 0), ("one", "parts", "a", 1)
    assert sweepable_places(tree) == {
        "size": [(*first, "size"), (*second, "size")],
        "weight": [(*second, "weight")],
    }


def test_nobody_looks_into_a_closed_class_whose_names_count():
    tree = {"labels": Closed(Leaf(1.0), 2.0)}
    assert sweepable_places(tree, closed=Closed) == {"gain": [("labels", "gain")]}
    assert set(sweepable_places(tree)) == {"gain", "size"}


def test_other_values_stand_at_their_places_and_all_else_stays():
    tree = {"a": [Leaf(1.0), More(2.0)], "b": Closed(Leaf(1.0), 2.0)}
    places = sweepable_places(tree)
    changed = with_places(tree, {places["weight"][0]: 7.0, ("b", "inner"): None})
    assert at_place(changed, ("a", 1, "weight")) == 7.0
    assert changed["b"].inner is None
    assert changed["a"][0] == tree["a"][0]
    assert (changed["a"][1].size, changed["b"].gain) == (2.0, 2.0)
    # A place where nothing stands takes a value as well.
    assert with_places(changed, {("b", "inner"): 3.0})["b"].inner == 3.0
    assert with_places(tree, {}) is tree


class Drawn(Leaf):
    """Made from other arguments than its fields."""

    def __init__(self, seed: int):
        self.size = float(seed)
        self.weight = 1.0

    def __check_init__(self):
        check_scalar("size", self.size, minimum=2.0, strict=False)


def test_a_number_is_held_to_what_all_classes_of_its_module_ask():
    check_number(Drawn(5), "size", 2.0)
    with pytest.raises(ValueError, match="`size` must be >= 2"):
        check_number(Drawn(5), "size", 1.0)
    with pytest.raises(ValueError, match="`size` must be positive"):
        check_number(More(5.0), "size", -1.0)
