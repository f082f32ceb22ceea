"""Calls that people make by mistake: a class for its instance, what is another library's way."""

import re
from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from wrong_calls import KEY, NETWORK, PROBLEM, SEVERAL, START, TARGET, U

import tts_jax as tts

CASES: dict[str, tuple[Callable, str]] = {}


def case(name: str, call: Callable, *parts: str) -> None:
    """Note a call, and the parts of the message that it is to be answered with, in order."""
    assert name not in CASES
    CASES[name] = call, ".*".join(map(re.escape, parts))


case(
    "solver a class",
    lambda: tts.GradientFlow(0.1, solver=diffrax.Tsit5),  # pyright: ignore
    "`solver` must be of type AbstractSolver of diffrax, or None, but is the class Tsit5 itself",
)
case(
    "adjoint a class",
    lambda: tts.ReducedFlow(solver=diffrax.Tsit5(), adjoint=diffrax.DirectAdjoint),  # pyright: ignore
    "`adjoint` must be of type AbstractAdjoint of diffrax, or None, but is the class",
)
case(
    "optimiser not called",
    lambda: tts.SGD(0.1, 0.1, optimiser=optax.adam),  # pyright: ignore
    "`optimiser` must be an optax.GradientTransformation such as optax.adam(1e-3), or None, but is "
    "of type function",
)
for value, came in ((None, "None"), (2**31, "2147483648"), (1e5, "100000.0"), (True, "True")):
    case(
        f"max_steps {came}",
        lambda value=value: tts.GradientFlow(0.1, max_steps=value),  # pyright: ignore
        f"`max_steps` must be a whole number from 1 to 2147483647, but is {came}",
    )
case(
    "a function that returns a constant",
    lambda: tts.Function(lambda x: 1.0),
    "`function` must be a function of arrays of jax.numpy that returns a number for each input "
    "(a constant: `jnp.full_like(x, c)`), but is one that returns values of shape ()",
)
case(
    "a function that sums",
    lambda: tts.Function(jnp.sum),
    "`function` must be a function",
    "but is one that returns",
    "for inputs of shape (3,)",
)
case(
    "a function of NumPy",
    lambda: tts.Function(np.interp),
    "`function` must be a function",
    "but is one that fails with TypeError",
)
case("a degree", lambda: tts.Function(jnp.sin, degree=1.5), "`degree` must be a whole number")  # pyright: ignore
case(
    "a bias", lambda: tts.ShallowNetwork(NETWORK.activation, bias=1), "`bias` must be True or False"
)  # pyright: ignore
case(
    "inputs for one input",
    lambda: tts.sample_problem(KEY, NETWORK, TARGET, 3, inputs=2),
    "`inputs` must be None for a ShallowNetwork, which has one input, but is 2",
)
case(
    "a target without labels for the inputs",
    lambda: tts.sample_problem(KEY, SEVERAL, TARGET, 3, inputs=2),
    "`target` must be one that labels inputs of shape (3, 2), but is a PiecewiseConstant, which "
    "returns labels of shape (3, 2)",
)
case(
    "keys",
    lambda: tts.init_uniform(jax.random.split(KEY, 3), 4),
    "`key` must be one single key",
    "but is an array of keys of shape (3,)",
)
case(
    "network and inputs in the wrong order",
    lambda: NETWORK(np.zeros(3), START),  # pyright: ignore
    "`params` must be of type Params, but is of type ndarray",
)
case(
    "covered",
    lambda: tts.metrics.covered(U, TARGET, eta="x"),  # pyright: ignore
    "`eta` must be a real number, but is 'x'",
)
case(
    "solver for no network",
    lambda: tts.recommended_solver(0.1, 2.5, PROBLEM),  # pyright: ignore
    "`width` must be a whole number from 1 to 2147483647, but is 2.5",
)
case(
    "arrivals of nobody",
    lambda: tts.hit_times(None, TARGET),  # pyright: ignore
    "`u` must be real numbers, but is None",
)


@pytest.mark.parametrize(("call", "message"), CASES.values(), ids=CASES)
def test_a_mistake_is_answered_with_what_was_meant(call, message):
    with pytest.raises(ValueError, match=message):
        call()
