"""A study: what it refuses, and its description, by which stores know it."""

import re

import numpy as np
import pytest
from small_problems import small_problem
from small_studies import DATA_STUDY, GAUSSIAN_STUDY, compilations, write_data, written

import tts_jax as tts
from tts_jax.sweeps.study.starts import two_layer_start
from tts_jax.sweeps.study.toml import study_from


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
        ({"precision": "float32"}, '"float64" for a GradientFlow'),
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


def from_numpy(key, width):
    return tts.Params(np.zeros(width + 1), np.random.uniform(size=width))


class Counting:
    """A start that depends on how often it has been called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, key, width):
        self.calls += 1
        params = tts.init_uniform(key, width)
        return tts.Params(params.a + self.calls, params.u)


def fixed(key, width):
    return tts.Params(np.zeros(width + 1), np.linspace(0.1, 0.9, width))


@pytest.mark.parametrize("start", [from_numpy, Counting()], ids=["NumPy", "count"])
def test_a_start_that_draws_from_elsewhere_is_refused(start):
    """Traced once, it would give every seed one start."""
    given = (small_problem(), tts.GradientFlow(1.0), {"width": [4], "seed": range(3)}, [1.0])
    with pytest.raises(ValueError, match="Argument `start` must be a function of its key and wid"):
        tts.Study(*given, start=start)
    tts.Study(*given, start=fixed)  # one for all seeds, which is meant


def test_what_the_grid_has_values_for_tells_no_studies_apart():
    grid = {"epsilon": [0.1], "eta": [0.1], "seed": range(2), "width": 4}
    one = tts.Study(small_problem(), tts.GradientFlow(1.0), grid, [1.0])
    other = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=0.5)), small_problem().target)
    two = tts.Study(other, tts.GradientFlow(0.5), grid, [1.0])
    assert one.description() == two.description()


def test_the_description_is_that_of_earlier_versions():
    """What a store holds that was made before: word for word, or nobody could go on with it."""
    grid = {
        "target": {"up": tts.PiecewiseConstant([0.5], [0.0, 1.0])},
        ("width", "eta"): [(4, 0.1), (5, 0.05)],
        "epsilon": [1.0, 0.5],
        "noise": 0.25,
        "seed": [3, 4, 5],
    }
    dynamics = tts.SGD(1.0, 1e-3, noise=0.3, batch_size=2)
    study = tts.Study(small_problem(), dynamics, grid, np.linspace(0.0, 1.0, 3), keep="last")
    activation = {"type": "CubicStep", "eta": "grid"}
    assert study.description() == {
        "problem": {
            "type": "Problem",
            "network": {"type": "ShallowNetwork", "activation": activation},
            "target": "grid",
        },
        "dynamics": {
            "type": "SGD",
            "epsilon": "grid",
            "step_size": 1e-3,
            "noise": "grid",
            "batch_size": 2,
        },
        "keep": "last",
        "precision": "float64",
        "taus": [0.0, 0.5, 1.0],
        "grid": {
            "target": {"up": {"type": "PiecewiseConstant", "jumps": [0.5], "values": [0.0, 1.0]}},
            "width_eta": {"width": [4, 5], "eta": [0.1, 0.05]},
            "epsilon": [1.0, 0.5],
            "seed": {"from": 3, "count": 3},
            "noise": 0.25,
        },
    }


@pytest.mark.parametrize("text", [GAUSSIAN_STUDY, DATA_STUDY])
def test_to_make_a_study_traces_nothing(tmp_path, text):
    write_data(tmp_path)
    study = tts.read_study(written(tmp_path, text))
    with compilations() as found:
        made = tts.Study(study.problem, study.dynamics, study.grid, study.taus, start=study.start)
        made.description()
    assert found == []


def test_every_target_must_fit_the_problem_and_the_start():
    network = tts.TwoLayerNetwork(tts.Erf(), bias=False, outer_bias=False)

    def teacher(activation, inputs):
        taught = tts.TwoLayerNetwork(activation, bias=False, outer_bias=False)
        return tts.Teacher(taught, tts.Params(np.ones(2), {"w": np.ones((2, inputs))}))

    right = teacher(tts.Erf(), 3)
    problem = tts.GaussianProblem(network, right)
    start = two_layer_start(problem)
    tables = []
    for wrong, complaint in (
        (teacher(tts.Erf(eta=0.5), 3), None),
        (teacher(tts.ReLU(), 3), "`target` must be one of a network with the activation Erf"),
        (teacher(tts.Erf(), 4), "of shape (m, 4), as the inputs of the teacher"),
    ):
        grid = {"target": {"right": right, "other": wrong}, "width": 4}
        given = (problem, tts.GradientFlow(1.0), grid, [1.0])
        if complaint is None:
            tables.append(tts.Study(*given, start=start).description())
            continue
        with pytest.raises(ValueError, match=re.escape(complaint)):
            tts.Study(*given, start=start)
    (table,) = tables
    assert table["problem"]["target"] == "grid"
    assert study_from(table).description() == table


def test_a_network_of_several_inputs_asks_for_a_start():
    network = tts.TwoLayerNetwork(tts.Tanh())
    problem = tts.EmpiricalProblem(network, np.ones((4, 2)), np.zeros(4))
    with pytest.raises(ValueError, match="`start` must be a function of a key and a width for"):
        tts.sweep(problem, tts.GradientFlow(1.0), {"seed": [0], "width": 3}, [0.0, 1.0])
