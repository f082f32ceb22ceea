"""Studies as files and as the tables of a store, and what is wrong with them, with the line."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import small_problem
from small_studies import (
    DATA,
    DATA_STUDY,
    GAUSSIAN_STUDY,
    SGD_STUDY,
    write_data,
    written,
)

import tts_jax as tts
from tts_jax._digest import digest
from tts_jax.sweeps.study.comparison import check_same
from tts_jax.sweeps.study.tables import TableError
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


@pytest.mark.parametrize("text", [GAUSSIAN_STUDY, DATA_STUDY], ids=["teacher", "data"])
def test_studies_of_two_layers_are_described_and_built_again(tmp_path, text):
    write_data(tmp_path)
    study = tts.read_study(written(tmp_path, text))
    table = json.loads(json.dumps(study.description()))
    again = study_from(table)
    assert again.description() == study.description()
    assert digest(again.problem) == digest(study.problem)
    assert again.start == study.start
    assert again.with_grid({**study.axes.subgrid()[1][0], "epsilon": 1.0}).data == study.data


def test_a_study_takes_its_numbers_from_a_file(tmp_path):
    write_data(tmp_path)
    problem = tts.read_study(written(tmp_path, DATA_STUDY)).problem
    assert isinstance(problem, tts.EmpiricalProblem)
    assert problem.x.tolist() == [[0.5, 1.0], [-1.0, 0.2], [0.25, 0.0]]
    assert problem.y.tolist() == [3.0, 4.5, 1.0]
    text = DATA_STUDY.replace('y = "price"', 'y = ["price", "age"]\nweights = "price"')
    text = text.replace("[problem.network]", '[problem]\nloss = "huber"\n[problem.network]')
    study = tts.read_study(written(tmp_path, text))
    assert study.problem.y.shape == (3, 2)
    assert study.problem.weights.tolist() == [3.0, 4.5, 1.0]
    assert study.problem.loss == "huber"
    assert study.start.outputs == 2
    # One input, and the network of the paper, which is the usual one.
    text = DATA_STUDY.replace('type = "TwoLayerNetwork"', "").replace('["age", "height"]', '"age"')
    text = text.replace('[start]\ntype = "init_two_layer"\nbias_scale = 0.5', "")
    write_data(tmp_path, DATA.replace("-1", "1"))
    study = tts.read_study(written(tmp_path, text))
    assert study.problem.x.shape == (3,)
    assert study.start is tts.init_uniform


def test_changed_data_are_refused_where_a_study_goes_on(tmp_path):
    write_data(tmp_path)
    study = tts.read_study(written(tmp_path, DATA_STUDY))
    table = study.description()
    write_data(tmp_path, DATA.replace("4.5", "4.6"))
    with pytest.raises(TableError, match="is no longer that which the store was made of"):
        study_from(table)
    changed = tts.read_study(written(tmp_path, DATA_STUDY)).description()
    with pytest.raises(tts.SweepError, match=r"problem\.y: other numbers"):
        check_same(table, changed, "s.zarr")


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
        ("to = 1.0", f"to = 1{400 * '0'}", "`to` must be a number"),
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


@pytest.mark.parametrize(
    ("study", "old", "new", "complaint"),
    [
        (DATA_STUDY, '"price"', '"pryce"', "`data.csv` has no `pryce`; it has `age`, `height`"),
        (DATA_STUDY, '"price"', '"name"', "'a' in line 2 of `name`"),
        (DATA_STUDY, '"data.csv"', '"date.csv"', "there is no file `date.csv`"),
        (DATA_STUDY, "[data]", "[dota]", "a study has no `dota`"),
        (DATA_STUDY, 'y = "price"', 'z = "price"', "a table `data` has no `z`"),
        (DATA_STUDY, '["age", "height"]', '"age"', "`x` must be of shape (N, d) for a TwoLayer"),
        (DATA_STUDY, '"init_two_layer"', '"init_uniform"', "a init_uniform has no `bias_scale`"),
        (DATA_STUDY, '"init_two_layer"', '"init"', "must be init_uniform or init_two_layer"),
        (DATA_STUDY, "[start]", "[stort]", "a study has no `stort`"),
        (DATA_STUDY, "bias_scale", "bies_scale", "a init_two_layer has no `bies_scale`"),
        (DATA_STUDY, "bias_scale = 0.5", "bias_scale = -1.0", "`bias_scale` must be >= 0"),
        (DATA_STUDY, 'type = "init_two_layer"', 'inputs = 3\ntype = "init_two_layer"', "params.u"),
        (GAUSSIAN_STUDY, "seed = 7", "seed = -7", "`seed` must be a whole number"),
        (GAUSSIAN_STUDY, "[start]", '[data]\nfile = "a"\n[start]', "for an EmpiricalProblem, not"),
        (GAUSSIAN_STUDY, "inputs = 3, width", "width", "missing 1 required"),
    ],
)
def test_what_is_wrong_with_data_starts_and_teachers_is_told(tmp_path, study, old, new, complaint):
    write_data(tmp_path)
    assert old in study
    with pytest.raises(tts.StudyError) as error:
        tts.read_study(written(tmp_path, study.replace(old, new)))
    assert complaint in str(error.value)


@pytest.mark.thorough
@pytest.mark.parametrize("study", [GAUSSIAN_STUDY, DATA_STUDY], ids=["teacher", "data"])
def test_a_study_with_any_wrong_value_is_refused_or_read(tmp_path, study):
    """And ends in nothing else than a `StudyError`."""
    write_data(tmp_path)
    lines = study.splitlines()
    wrong = ['"far"', "true", "-1", "[]", "{}", "nan", "1979-05-27", "[[1.0], [1.0, 2.0]]"]
    wrong += ['"grid"', "1" + 30 * "0", '{ type = "Params" }', '{ digest = "x" }', '"\\u0000"']
    refused = 0
    for i, line in enumerate(lines):
        for value in wrong if "=" in line else ():
            changed = [*lines[:i], f"{line.split('=')[0]}= {value}", *lines[i + 1 :]]
            try:
                tts.read_study(written(tmp_path, "\n".join(changed))).description()
            except tts.StudyError:
                refused += 1
    assert refused > 100


def test_a_description_has_several_teachers_by_their_labels(tmp_path):
    text = GAUSSIAN_STUDY.replace("[problem.target]", "[grid.target.first]")
    second = text[text.index("[grid.target.first]") : text.index("[start]")]
    second = second.replace("first", "second").replace("seed = 7", "seed = 8")
    study = tts.read_study(written(tmp_path, text + second))
    first, second = (target for _, target in study.axes.targets)
    assert not np.array_equal(first.params.u["w"], second.params.u["w"])
    table = study.description()
    assert table["problem"]["target"] == "grid"
    assert study_from(json.loads(json.dumps(table))).description() == table


def test_a_value_is_wrong_where_it_stands(tmp_path):
    """Not in the grid, which has values of the same name for something else."""
    text = GAUSSIAN_STUDY.replace("seed = 7", "seed = -7")
    with pytest.raises(tts.StudyError, match=f"line {line_of(text, 'seed = -7')}: "):
        tts.read_study(written(tmp_path, text))


def test_what_a_study_of_two_layers_lacks_is_told(tmp_path):
    write_data(tmp_path)
    start = '[start]\ntype = "init_two_layer"\nbias_scale = 0.5\n'
    with pytest.raises(tts.StudyError, match="a TwoLayerNetwork needs a table `start`, such as"):
        tts.read_study(written(tmp_path, DATA_STUDY.replace(start, "")))
    data = '[data]\nfile = "data.csv"\nx = ["age", "height"]\ny = "price"\n'
    text = DATA_STUDY.replace(data, '[problem]\ntype = "EmpiricalProblem"\n')
    with pytest.raises(tts.StudyError, match="an EmpiricalProblem needs a table `data`"):
        tts.read_study(written(tmp_path, text))
    with pytest.raises(tts.StudyError, match="`x` stands in a file, which the table `data` names"):
        tts.read_study(written(tmp_path, f"[problem]\nx = [0.5]\n{DATA_STUDY}"))


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
