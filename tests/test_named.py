"""A wrong name of an argument is answered with the right one."""

import re

import pytest

import tts_jax as tts


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tts.GradientFlow(eps=0.1), "`eps`: did you mean `epsilon`?"),  # pyright: ignore
        (lambda: tts.SGD(0.1, lr=0.1), "`lr`: did you mean `step_size`?"),  # pyright: ignore
        (lambda: tts.SGD(0.1, 0.1, optimizer=None), "did you mean `optimiser`?"),  # pyright: ignore
        (lambda: tts.SGD(0.1, 0.1, batchsize=2), "did you mean `batch_size`?"),  # pyright: ignore
        (lambda: tts.ReducedFlow(reltol=1e-6), "did you mean `rtol`?"),  # pyright: ignore
        (lambda: tts.ReducedFlow(eps=1e-6), "no argument `eps`. It has rtol"),  # pyright: ignore
        (lambda: tts.CubicStep(Eta=0.1), "did you mean `eta`?"),  # pyright: ignore
        (lambda: tts.LimitFlow(epsilon=0.1), "no argument `epsilon`. It has none"),  # pyright: ignore
        (lambda: tts.PiecewiseConstant(jump=[], values=[1]), "did you mean `jumps`?"),  # pyright: ignore
        (lambda: tts.ShallowNetwork(tts.ReLU(), biases=True), "did you mean `bias`?"),  # pyright: ignore
    ],
)
def test_the_right_name_is_said(make, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        make()


class AnyOptions(tts.AbstractDynamics):
    """A user's own, whose constructor takes any names."""

    options: dict

    def __init__(self, **options):
        self.options = options

    def check(self, given):
        pass

    def run(self, given):
        raise NotImplementedError


def test_a_class_that_takes_any_names_is_left_alone():
    assert AnyOptions(eps=1.0).options == {"eps": 1.0}


def test_right_names_and_places_go_through():
    flow = tts.GradientFlow(epsilon=0.1, rtol=1e-6)
    assert (flow.epsilon, flow.rtol) == (0.1, 1e-6)
    assert tts.SGD(0.1, 0.2).step_size == 0.2
