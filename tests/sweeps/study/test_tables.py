"""Objects as plain tables, and back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import CountedRamp, small_problem

import tts_jax as tts
from tts_jax._digest import digest
from tts_jax.sweeps.study.tables import (
    KNOWN,
    TableError,
    build,
    describe,
    describe_sample,
    mark_swept,
)

NETWORK = tts.ShallowNetwork(tts.Tanh(eta=0.1), bias=False)
PARAMS = tts.Params(jnp.ones(2), jnp.array([0.2, 0.6]))
TWO_LAYER = tts.TwoLayerNetwork(tts.Probit(eta=0.3), bias=False, scaling="ntk")
TEACHER = tts.Teacher(TWO_LAYER, tts.Params(jnp.ones(3), {"w": jnp.eye(2)}))
COVARIANCE = np.array([[2.0, 0.3], [0.3, 1.1]])
THINGS = [
    small_problem(),
    NETWORK,
    tts.AdditiveNetwork(tts.Erf(eta=0.2)),
    *(TWO_LAYER, tts.Probit(), tts.HermiteSeries([0.5, 0.0, 2.0]), TEACHER),
    tts.GaussianProblem(TWO_LAYER, TEACHER),
    tts.GaussianProblem(TWO_LAYER, TEACHER, COVARIANCE, noise=0.1, penalty=1e-3),
    PARAMS,
    *(tts.CubicStep(eta=0.1), tts.Tanh(eta=0.1), tts.Erf(eta=0.1), tts.Logistic(eta=0.1)),
    *(tts.ReLU(), tts.ReLU(eta=2.0)),
    tts.PiecewiseConstant([0.5], [0.0, 1.0]),
    tts.AdditiveSteps([0.5], [2.0]),
    tts.Teacher(NETWORK, PARAMS),
    *(tts.GradientFlow(0.1, rtol=1e-5), tts.ReducedFlow(ridge=1e-7), tts.LimitFlow()),
    *(tts.SGD(0.1, 1e-3, noise=0.5), tts.SGD(0.1, 1e-3, batch_size="full")),
]


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: type(thing).__name__)
def test_a_table_builds_what_it_describes(thing):
    table = json.loads(json.dumps(describe(thing)))
    again = build(table)
    assert type(again) is type(thing)
    assert digest(again) == digest(thing)


def test_defaults_are_left_out():
    assert describe(tts.ReLU()) == {"type": "ReLU"}
    assert describe(tts.ReLU(eta=2.0)) == {"type": "ReLU", "eta": 2.0}


def test_rates_are_a_table_of_numbers():
    rates = {"w": [[1.0, 2.0]], "b": {"c": 0.1}}
    table = {"type": "GradientFlow", "epsilon": 0.1, "rates": rates}
    assert describe(build(table)) == table
    assert digest(build(table)) != digest(build(table | {"rates": {"w": 1.0, "b": 0.1}}))
    with pytest.raises(TableError, match=r"Argument `rates\['b'\]` must be finite"):
        build(table | {"rates": {"w": 1.0, "b": -0.1}})


def test_every_class_that_can_be_built_is_among_them():
    # The numbers of a sample are in a file: see `test_toml`.
    assert {type(thing) for thing in THINGS} == set(KNOWN.values()) - {tts.EmpiricalProblem}


def test_a_sample_stands_there_by_a_hash_of_its_numbers():
    def problem(x, y=(1.0, 1.0, 1.0), **options):
        return describe(tts.EmpiricalProblem(TWO_LAYER, x, np.asarray(y), **options))

    x = np.arange(6.0).reshape(3, 2)
    table = problem(x)
    assert set(table) == {"type", "network", "x", "y"}
    assert table["x"]["shape"] == [3, 2]
    assert problem(jnp.asarray(x)) == problem(x.tolist()) == problem(np.asfortranarray(x)) == table
    assert problem(x, np.arange(3))["y"]["sha256"] != table["y"]["sha256"]
    assert problem(x, loss="huber") == table | {"loss": "huber"}
    assert problem(x, weights=np.ones(3))["weights"] == table["y"]
    # Numbers of other shapes, or of single precision, are others.
    hashes = {describe_sample(v)["sha256"] for v in (x, x.T, x.ravel(), x.astype(np.float32))}
    assert len(hashes) == 4


def test_the_parameters_of_a_teacher_may_be_drawn():
    params = {"type": "init_two_layer", "seed": 3, "inputs": 2, "width": 2, "scale": 2}
    table = {"type": "Teacher", "network": describe(TWO_LAYER), "params": params}
    found = build(table)
    expected = tts.init_two_layer(jax.random.key(3), TWO_LAYER, 2, 2, scale=2.0)
    assert digest(found.params) == digest(tts.Teacher(TWO_LAYER, expected).params)
    assert digest(build(describe(found))) == digest(found)
    for changes, path, complaint in (
        ({"seeds": 3}, ("params", "seeds"), "has no `seeds`; it has seed, width, inputs"),
        ({"width": 0}, ("params", "width"), "`width` must be a whole number"),
    ):
        with pytest.raises(TableError) as error:
            build(table | {"params": params | changes})
        assert error.value.path == path
        assert complaint in error.value.message
    with pytest.raises(TableError, match=r"init_two_layer: missing 1 required .* 'seed'"):
        build(table | {"params": {k: v for k, v in params.items() if k != "seed"}})


def test_what_is_not_of_the_package_stands_with_a_hash_and_is_not_built():
    def near(key, width):
        return tts.Params(jnp.zeros(width + 1), jax.random.uniform(key, (width,)))

    def far(key, width):
        return tts.Params(jnp.ones(width + 1), jax.random.uniform(key, (width,)))

    first, second = describe(near), describe(far)
    assert first["digest"] != second["digest"]
    assert first["type"].endswith("near")
    assert describe(CountedRamp(eta=0.1))["digest"] != describe(CountedRamp(eta=0.2))["digest"]
    with pytest.raises(TableError, match="it must be one of Problem"):
        build(describe(CountedRamp(eta=0.1)))


def test_swept_values_are_marked_but_in_hashes():
    table = {"a": {"b": {"eta": 1.0}}, "c": {"type": "x", "digest": "y"}, "d": 3.0}
    for place in (("a", "b", "eta"), ("c", "eta"), ("c", "e", "eta"), ("d", "eta")):
        mark_swept(table, place)
    assert table == {
        "a": {"b": {"eta": "grid"}},
        "c": {"type": "x", "digest": "y"},
        "d": 3.0,
    }
