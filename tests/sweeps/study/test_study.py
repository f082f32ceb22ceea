"""Studies: as files, as tables, and what is wrong with them, with the line."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_studies import SGD_STUDY, small_problem, written

import tts_jax as tts
from tts_jax.sweeps.study.comparison import check_same
from tts_jax.sweeps.study.toml import study_from

STUDIES = sorted((Path(__file__).parents[3] / "experiments" / "studies").glob("*.toml"))


def test_a_file_is_the_study_that_it_describes(tmp_path):
    study = tts.read_study(written(tmp_path))
    assert study.dynamics == tts.SGD(0.01, 1e-3, noise=0.5)
    assert study.problem.target.jumps.tolist() == [0.3, 0.65]
    assert study.taus == (0.0, 0.5, 1.0)
    assert np.allclose(study.axes.values("epsilon"), np.geomspace(1e-2, 2e-2, 12), rtol=1e-15)
    assert study.axes.values("seed") == (0, 1, 2, 3)


@pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
def test_the_studies_of_the_project_can_be_read_and_described(path):
    study = tts.read_study(path)
    again = study_from(study.description())
    assert again.description() == study.description()


def test_a_description_builds_every_part_again():
    targets = {
        "stairs": tts.PiecewiseConstant([0.5], [0.0, 1.0]),
        "teacher": tts.Teacher(
            tts.ShallowNetwork(tts.Tanh(eta=0.1)), tts.Params(jnp.ones(3), jnp.array([0.2, 0.6]))
        ),
    }
    grid = {
        "target": targets,
        ("width", "eta"): [(4, 0.1), (6, 0.05)],
        "epsilon": [0.1, 1],
        "seed": [3, 5],
        "noise": 0.2,
    }
    dynamics = tts.SGD(1.0, 0.1, batch_size=2)
    study = tts.Study(small_problem(), dynamics, grid, [0.0, 1.0], keep="last")
    again = study_from(study.description())
    assert again.description() == study.description()
    assert again.axes.axes == study.axes.axes
    assert again.dynamics.batch_size == 2


def test_what_the_grid_has_values_for_tells_no_studies_apart():
    grid = {"epsilon": [0.1], "eta": [0.1], "seed": range(2), "width": 4}
    one = tts.Study(small_problem(), tts.GradientFlow(1.0), grid, [1.0])
    other = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=0.5)), small_problem().target)
    two = tts.Study(other, tts.GradientFlow(0.5), grid, [1.0])
    assert one.description() == two.description()


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


def line_of(text: str, part: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if part in line)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("eta = 0.08", "etta = 0.08", "a CubicStep has no `etta`; it has eta"),
        ("eta = 0.08", 'eta = "wide"', "`eta` must be a number"),
        ("jumps = [0.3, 0.65]", "jumps = [0.65, 0.3]", "jumps in increasing order"),
        ("jumps = [0.3, 0.65]", 'jumps = ["a", "b"]', "must be a list of numbers"),
        ('type = "CubicStep"', 'type = "Cubic"', "`problem.network.activation.type` is `Cubic`"),
        ("step_size = 1e-3", "step_size = -1.0", "`step_size` must be positive"),
        ("noise = 0.5", "noize = 0.5", "a SGD has no `noize`"),
        ("count = 3", "count = 0", "`count` must be a whole number of at least 1"),
        ("to = 1.0", 'to = "far"', "`to` must be a number"),
        ("to = 1.0", "tau = 1.0", "not `tau`"),
        ("width = 6", "width = 0", "whole numbers of at least 1"),
        ("width = 6", "widht = 6", "there is no `widht` to sweep"),
        ("epsilon = { from = 1e-2", "epsilon = { from = -1", '"log" between positive numbers'),
        ("epsilon = {", "epsilon = [-1.0] #", "`epsilon` must be positive and finite, but is -1"),
        ("epsilon = {", "epsilon = [1.0, -2.0] #", "positive and finite, but is -2"),
        ("[dynamics]", "[dynamic]", "a study has no `dynamic`"),
        ("epsilon = {", "epsilon = [] #", "`epsilon` must be a list of numbers with one at least"),
        ("epsilon = {", "epsilon = [1.0, [2.0]] #", "`epsilon` must be a list of numbers"),
        ("width = 6", "width = 6\npair = { noise = 1.0, seed = [1] }", "`pair` must zip lists"),
        ("noise = 0.5", 'noise = "grid"', '`noise` is "grid", but the grid has no `noise`'),
        ("noise = 0.5", 'optimiser = "adam"', "`optimiser` is an object that a table cannot hold"),
        ('type = "SGD"', 'type = ["SGD"]', "`dynamics.type` is `['SGD']`"),
        ("seed = { count", "seed = { from = 1.5, count", "`from` must be a whole number"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, old, new, complaint):
    assert old in SGD_STUDY
    text = SGD_STUDY.replace(old, new, 1)
    path = written(tmp_path, text)
    with pytest.raises(tts.StudyError) as error:
        tts.read_study(path)
    assert complaint in str(error.value)
    last = new.splitlines()[-1]
    assert f"{path}, line {line_of(text, last)}: " in str(error.value)


def test_what_is_no_toml_or_no_file_is_told(tmp_path):
    with pytest.raises(tts.StudyError, match="line 2"):
        tts.read_study(written(tmp_path, "a = 1\nb = = 2\n"))
    with pytest.raises(tts.StudyError, match="No such file"):
        tts.read_study(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"grid": {"epsilon": [1.0]}}, "with a `width`"),
        ({"grid": {"width": 4, "step_size": [1.0]}}, "of `step_size`"),
        ({"grid": {"width": 4, "epsilon": [1.0, -1.0]}}, "`epsilon` must be positive"),
        ({"grid": {"width": 4, "eta": [0.0]}}, "`eta` must be positive"),
        ({"taus": [1.0, 0.5]}, "strictly increasing"),
        ({"keep": "some"}, "`keep`"),
        ({"precision": "float16"}, "`precision`"),
        ({"precision": "float32"}, '"float64" for a flow'),
        ({"start": 3}, "`start`"),
        ({"problem": 3}, "`problem`"),
        ({"dynamics": tts.GradientFlow}, "`dynamics`"),
    ],
)
def test_bad_arguments_are_told_before_anything_runs(changes, complaint):
    given = {
        "problem": small_problem(),
        "dynamics": tts.GradientFlow(1.0),
        "grid": {"width": 4},
        "taus": [1.0],
        **changes,
    }
    with pytest.raises(ValueError, match="Argument") as error:
        tts.Study(**given)
    assert complaint in str(error.value)


def test_a_study_with_a_function_can_be_told_from_others_but_not_be_built():
    def near(key, width):
        return tts.Params(jnp.zeros(width + 1), jax.random.uniform(key, (width,)))

    def far(key, width):
        return tts.Params(jnp.ones(width + 1), jax.random.uniform(key, (width,)))

    tables = [
        tts.Study(
            small_problem(), tts.GradientFlow(1.0), {"width": 4}, [1.0], start=start
        ).description()
        for start in (near, far)
    ]
    assert tables[0]["start"]["digest"] != tables[1]["start"]["digest"]
    with pytest.raises(ValueError, match="`start` is a function"):
        study_from(tables[0])
