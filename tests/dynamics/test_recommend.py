"""Which solver is recommended."""

import diffrax
import numpy as np
import pytest

import tts_jax as tts

TARGET = tts.PiecewiseConstant([0.4], [0.0, 1.0])
STEPS = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=0.05)), TARGET)
SMOOTH = tts.Problem(tts.ShallowNetwork(tts.Tanh(eta=0.05)), TARGET)


@pytest.mark.parametrize("epsilon", [1.0, 1e-6])
@pytest.mark.parametrize("width", [3, 1000])
def test_with_a_closed_form_the_method_of_the_package(epsilon, width):
    assert tts.recommended_solver(epsilon, width, STEPS) is None


@pytest.mark.parametrize("width", [3, 1000])
def test_without_one_an_explicit_method_until_epsilon_is_small(width):
    assert isinstance(tts.recommended_solver(1e-2, width, SMOOTH), diffrax.Tsit5)
    assert tts.recommended_solver(1e-5, width, SMOOTH) is None


def test_what_is_recommended_runs():
    start = tts.Params(np.zeros(3), np.asarray([0.2, 0.6]))
    solver = tts.recommended_solver(1e-2, 2, SMOOTH)
    run = tts.simulate(SMOOTH, tts.GradientFlow(1e-2, solver=solver), start, [0.1])
    assert run.status == tts.Status.OK


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((0.0, 3, SMOOTH), "epsilon"), ((1.0, 0, SMOOTH), "width"), ((1.0, 3, TARGET), "problem")],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises((ValueError, TypeError), match=named):
        tts.recommended_solver(*arguments)
