"""Whether a store belongs to a study, and how the two differ if it does not."""

import pytest
from small_problems import small_problem

import tts_jax as tts
from tts_jax.sweeps.study.comparison import check_same, differences


def test_differences_are_told_and_more_values_are_none():
    grid = {"epsilon": [0.1], "seed": range(2), "width": 4}

    def table(dynamics, grid=grid, taus=(1.0,)):
        return tts.Study(small_problem(), dynamics, grid, taus).description()

    one = table(tts.GradientFlow(1.0))
    check_same(one, table(tts.GradientFlow(1.0), {**grid, "epsilon": [0.2], "seed": [9]}), "x")
    for other, told in (
        (table(tts.GradientFlow(1.0, rtol=1e-3)), "dynamics.rtol: stored None, asked 0.001"),
        (table(tts.GradientFlow(1.0), taus=(2.0,)), "taus: stored [1.0], asked [2.0]"),
        (table(tts.GradientFlow(1.0), {**grid, "width": 5}), "grid.width: stored 4, asked 5"),
        (table(tts.GradientFlow(1.0), {**grid, "width": [4]}), "grid: stored"),
        (table(tts.ReducedFlow(), {"seed": range(2), "width": 4}), "dynamics.type"),
    ):
        with pytest.raises(tts.SweepError, match="belongs to another study") as error:
            check_same(one, other, "x")
        assert told in str(error.value)


def test_data_count_by_their_numbers_wherever_they_stand():
    def table(y, file):
        y = {"shape": [len(y)], "sha256": f"{y}"}
        return {"problem": {"y": y}, "data": {"file": file}, "taus": [1.0], "grid": {}}

    check_same(table("abc", "here.csv"), table("abc", "there.npz"), "x")
    with pytest.raises(tts.SweepError, match=r"problem\.y: other numbers") as error:
        check_same(table("abc", "here.csv"), table("abd", "here.csv"), "x")
    assert "The numbers asked for are those in here.csv as it is now." in str(error.value)


def test_a_class_of_the_package_is_known_by_its_name():
    """Its module may have moved since the store was made; a user's class is known by both."""
    old, new = "tts_jax.empirical.EmpiricalProblem", "tts_jax.problems.empirical.EmpiricalProblem"
    assert differences({"type": old}, {"type": new}) == []
    assert differences({"type": old}, {"type": "tts_jax.problems.population.Problem"})
    assert differences({"type": "mine.old.Fit"}, {"type": "mine.new.Fit"})
