"""What a run leaves is known before it is made, for every width and target, and traced once."""

import numpy as np
import pytest
from small_problems import TRACED, CountedRamp, small_problem
from small_studies import Drift

import tts_jax as tts
from tts_jax.sweeps.execution.layout import make_layout
from tts_jax.sweeps.execution.runner import Runner
from tts_jax.sweeps.execution.variables import variables_of

TAUS = (0.0, 0.1, 0.3)


def study(taus=TAUS, eta=0.1, dynamics=None, **options):
    problem = tts.Problem(tts.ShallowNetwork(CountedRamp(eta=eta)), small_problem().target)
    grid = {"epsilon": [0.1 * eta], "seed": range(2), "width": [3, 5]}
    return tts.Study(problem, dynamics or Drift(), grid, taus, **options)


@pytest.mark.parametrize(
    ("keep", "dynamics", "precision"),
    [
        ("all", Drift(), "float64"),
        ("last", Drift(), "float64"),
        ("last", tts.SGD(0.1, 1e-2), "float32"),
    ],
)
def test_they_are_those_of_a_run(keep, dynamics, precision):
    asked = study(dynamics=dynamics, keep=keep, precision=precision)
    layout = make_layout(asked, variables_of(asked))
    found = Runner.of(layout)([{"epsilon": 0.1, "seed": 0, "width": 5}])
    expected = layout.variables[5, None]
    assert set(found) == set(expected)
    for name, values in found.items():
        assert values.shape == (1, *expected[name].shape)
        assert values.dtype == expected[name].dtype
        assert len(expected[name].axes) == len(expected[name].shape)
    assert expected["risk"].axes == ("tau",)
    assert expected["u"].axes == (("tau", "neuron") if keep == "all" else ("neuron",))
    assert expected["u"].dtype == np.dtype(precision)


def test_they_are_there_for_every_width_and_target():
    targets = {"one": small_problem().target, "two": tts.PiecewiseConstant([0.5], [0.0, 1.0])}
    grid = {"target": targets, ("width", "eta"): [(3, 0.1), (5, 0.1), (3, 0.2)]}
    found = variables_of(tts.Study(small_problem(), Drift(), grid, TAUS))
    assert set(found) == {(3, "one"), (3, "two"), (5, "one"), (5, "two")}
    assert found[3, "one"]["a"].shape == found[3, "two"]["a"].shape == (3, 4)
    assert found[5, "one"]["a"].shape == (3, 6)


def test_only_what_is_new_is_traced():
    variables_of(study())
    TRACED.clear()
    assert variables_of(study(taus=(0.0, 0.5, 2.0), eta=0.2)) == variables_of(study())
    assert TRACED == []
    more = variables_of(study(taus=(0.0, 0.5)))
    assert TRACED
    assert more[3, None]["risk"].shape == (2,)
