"""Studies as files and as the tables of a store, and what is wrong with them, with the line."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import small_problem
from small_studies import SGD_STUDY, written

import tts_jax as tts
from tts_jax.sweeps.study.toml import study_from

STUDIES = sorted((Path(__file__).parents[3] / "experiments" / "studies").glob("*.toml"))


def test_a_file_is_the_study_that_it_describes(tmp_path):
    study = tts.read_study(written(tmp_path))
    assert study.dynamics == tts.SGD(0.01, 1e-3, noise=0.5)
    assert study.problem.target.jumps.tolist() == [0.3, 0.65]
    assert study.taus == (0.0, 0.5, 1.0)
    assert np.allclose(study.axes.values("epsilon"), np.geomspace(1e-2, 2e-2, 12), rtol=1e-15)
    assert study.axes.values("seed") == (0, 1, 2, 3)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    path = written(tmp_path)
    plain = tts.read_study(path).description()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert tts.read_study(path).description() == plain


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


def line_of(text: str, part: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if part in line)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("eta = 0.08", "etta = 0.08", "a CubicStep has no `etta`; it has eta"),
        ("eta = 0.08", 'eta = "wide"', "`eta` must be a real number"),
        ("jumps = [0.3, 0.65]", "jumps = [0.65, 0.3]", "jumps in increasing order"),
        ("jumps = [0.3, 0.65]", 'jumps = ["a", "b"]', "must be a list of numbers"),
        ('type = "CubicStep"', 'type = "Cubic"', "`problem.network.activation.type` is `Cubic`"),
        ("step_size = 1e-3", "step_size = -1.0", "`step_size` must be positive"),
        ("noise = 0.5", "noize = 0.5", "a SGD has no `noize`"),
        ("count = 3", "count = 0", "`count` must be a whole number from 1"),
        ("count = 3", "count = 1000000000000", "`count` must be a whole number from 1"),
        ("jumps = [0.3, 0.65]", 'jumps = ["0.3", "0.65"]', "must be a list of numbers"),
        ("jumps = [0.3, 0.65]", "jumps = [0.3, true]", "must be a list of numbers"),
        ("eta = 0.08", "eta = 1979-05-27", "`eta` must be a real number"),
        ("to = 1.0", 'to = "far"', "`to` must be a number"),
        ("to = 1.0", "to = nan", "`to` must be a number"),
        ("seed = { count", "seed = { from = inf, count", "`from` must be a number"),
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


def test_a_table_with_a_function_is_refused():
    study = tts.Study(
        small_problem(), tts.GradientFlow(1.0), {"width": 4}, [1.0], start=lambda key, width: None
    )
    with pytest.raises(ValueError, match="`start` is a function"):
        study_from(study.description())
