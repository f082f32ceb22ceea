"""Starts and teachers that files ask for."""

import functools

import jax
import numpy as np
import pytest
from small_studies import compilations

import tts_jax as tts
from tts_jax.sweeps.study.starts import TwoLayerStart, drawn_params, like, seed_key, two_layer_start

NETWORK = tts.TwoLayerNetwork(tts.Erf(eta=0.5), bias=False)


def sample(network=NETWORK, y=(0.0, 2.0, 1.0, 0.0), **options) -> tts.EmpiricalProblem:
    return tts.EmpiricalProblem(network, np.ones((4, 3)), np.asarray(y), **options)


def equal(first: tts.Params, second: tts.Params) -> bool:
    halves = zip((first.a, *first.u.values()), (second.a, *second.u.values()), strict=True)
    return all(np.array_equal(one, other) for one, other in halves)


@pytest.mark.parametrize("network", [NETWORK, tts.TwoLayerNetwork(tts.Tanh())])
def test_a_start_is_that_of_init_two_layer(network):
    options = {"distribution": "sphere", "scale": 2.0, "bias_scale": 0.5, "outer_scale": 0.1}
    start = two_layer_start(sample(network), **options)
    key = seed_key(5)
    assert equal(start(key, 6), tts.init_two_layer(key, network, 3, 6, **options))


def test_what_a_problem_says_of_inputs_and_outputs_need_not_be_said():
    assert two_layer_start(sample()) == TwoLayerStart(inputs=3, bias=False)
    several = two_layer_start(sample(y=np.ones((4, 2))))
    assert (several.inputs, several.outputs) == (3, 2)
    classes = two_layer_start(sample(loss="softmax"))
    assert classes.outputs == 3
    assert two_layer_start(sample(loss="softmax"), outputs=5).outputs == 5
    teacher = tts.Teacher(NETWORK, tts.Params(np.ones((3, 2)), {"w": np.ones((2, 7))}))
    population = two_layer_start(tts.GaussianProblem(NETWORK, teacher))
    assert (population.inputs, population.outputs) == (7, 2)


def test_what_a_start_is_like_is_known_without_drawing_it():
    for problem in (sample(), sample(y=np.ones((4, 2))), sample(tts.TwoLayerNetwork(tts.Tanh()))):
        start = two_layer_start(problem)
        drawn = jax.eval_shape(functools.partial(start, width=5), seed_key(0))
        with compilations() as found:
            params = like(start, 5)
            assert params is not None
            problem.check(params)
        assert found == []
        assert np.shape(params.a) == np.shape(drawn.a)
        assert {n: np.shape(v) for n, v in params.u.items()} == {
            n: np.shape(v) for n, v in drawn.u.items()
        }
    assert like(tts.init_uniform, 5).u.shape == (5,)
    assert like(lambda key, width: None, 5) is None


def test_a_description_says_what_is_not_by_default():
    assert two_layer_start(sample()).description() == {"type": "init_two_layer", "inputs": 3}
    start = two_layer_start(sample(y=np.ones((4, 2))), scale=2, distribution="uniform")
    assert start.description() == {
        "type": "init_two_layer",
        "inputs": 3,
        "outputs": 2,
        "distribution": "uniform",
        "scale": 2.0,
    }


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"inputs": 0}, "`inputs` must be a whole number of at least 1, but is 0"),
        ({"inputs": 2, "outputs": 1.5}, "`outputs` must be a whole number"),
        ({"inputs": 2, "scale": 0}, "`scale` must be positive"),
        ({"inputs": 2, "bias_scale": -1}, "`bias_scale` must be >= 0"),
        ({"inputs": 2, "outer_scale": "big"}, "`outer_scale` must be a real number"),
        ({"inputs": 2, "distribution": "cauchy"}, "`distribution` must be"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_drawn(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        TwoLayerStart(**options)


def test_another_network_is_told_which_start_it_has():
    problem = tts.EmpiricalProblem(tts.ShallowNetwork(tts.Tanh()), np.ones(4), np.ones(4))
    with pytest.raises(ValueError, match="`init_uniform` for a ShallowNetwork"):
        two_layer_start(problem)
    with pytest.raises(ValueError, match="`network` must be of type TwoLayerNetwork"):
        drawn_params(tts.ShallowNetwork(tts.Tanh()), seed=0, inputs=1, width=1)  # pyright: ignore


def test_a_teacher_is_drawn_by_its_seed():
    first, second = (drawn_params(NETWORK, seed=s, inputs=3, width=2, scale=2.0) for s in (1, 2))
    assert equal(first, drawn_params(NETWORK, seed=1, inputs=3, width=2, scale=2.0))
    assert equal(first, tts.init_two_layer(seed_key(1), NETWORK, 3, 2, scale=2.0))
    assert not np.array_equal(first.u["w"], second.u["w"])
    with pytest.raises(ValueError, match="`seed` must be a whole number"):
        drawn_params(NETWORK, seed=0.5, inputs=3, width=2)  # pyright: ignore
