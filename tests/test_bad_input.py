"""Bad input is refused before anything is traced, with what was expected and what came."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loud import Loud

import tts_jax as tts

NAN, INF = float("nan"), float("inf")
JUMPS, VALUES = [0.3, 0.6], [1.0, 3.0, 2.0]
TARGET = tts.PiecewiseConstant(JUMPS, VALUES)


LOUD = tts.ShallowNetwork(Loud())
PROBLEM = tts.Problem(LOUD, TARGET)
SAMPLE = tts.EmpiricalProblem(tts.AdditiveNetwork(Loud()), np.zeros((4, 2)), np.zeros(4))
U = [0.1, 0.2, 0.4, 0.5, 0.7, 0.9]
TAUS = [0.0, 0.1]
SGD = tts.SGD(epsilon=0.1, step_size=0.1)
KEY = jax.random.key(0)


def params_of(a=None, u=U):
    return tts.Params(np.zeros(np.size(u) + 1) if a is None else np.asarray(a), np.asarray(u))


def expect(*parts):
    """A pattern of parts in this order."""
    return ".*".join(re.escape(part) for part in parts)


CONSTRUCTORS = {}


def case(name, call, *parts):
    assert name not in CONSTRUCTORS
    CONSTRUCTORS[name] = call, expect(*parts)


for value, came in ((0.0, "0.0"), (-1.0, "-1.0"), (NAN, "nan"), (INF, "inf")):
    for make in (tts.CubicStep, tts.ReLU, tts.Logistic, tts.Tanh, tts.Erf, Loud):
        case(
            f"{make.__name__} eta {came}",
            lambda make=make, value=value: make(eta=value),
            "Argument `eta` must be positive and finite, but is",
            came,
        )
    for name, make in {
        "epsilon": lambda value: tts.GradientFlow(epsilon=value),
        "rtol": lambda value: tts.GradientFlow(epsilon=0.1, rtol=value),
        "atol": lambda value: tts.ReducedFlow(atol=value),
        "ridge": lambda value: tts.ReducedFlow(ridge=value),
        "step_size": lambda value: tts.SGD(epsilon=0.1, step_size=value),
    }.items():
        case(
            f"{name} {came}",
            lambda make=make, value=value: make(value),
            f"Argument `{name}` must be positive and finite, but is",
            came,
        )
    case(
        f"SGD epsilon {came}",
        lambda value=value: tts.SGD(epsilon=jnp.asarray(value), step_size=0.1),
        "Argument `epsilon` must be positive and finite, but is",
        came,
    )

case(
    "a ridge that rounding swallows",
    lambda: tts.ReducedFlow(ridge=1e-17),
    "Argument `ridge` must be at least 2.22e-16, below which rounding swallows it, but is 1e-17",
)
case(
    "several epsilons",
    lambda: tts.GradientFlow(epsilon=jnp.ones(3)),
    "`epsilon` must be a single number, but is an array of shape (3,)",
)
case(
    "noise",
    lambda: tts.SGD(epsilon=1.0, step_size=1.0, noise=-0.5),
    "`noise` must be >= 0, but is -0.5",
)
case(
    "max_steps",
    lambda: tts.GradientFlow(1.0, max_steps=0),
    "`max_steps` must be a whole number from 1",
    "0",
)
case(
    "batch_size",
    lambda: tts.SGD(1.0, 1.0, batch_size=0),
    "`batch_size` must be a whole number from 1",
)
case(
    "gradient",
    lambda: tts.SGD(1.0, 1.0, gradient="boxed"),  # pyright: ignore
    '`gradient` must be "exact" or "box", but is \'boxed\'',
)
case("order", lambda: tts.stiff_solver(order=2), "`order` must be 3, 4 or 5, but is 2")
case(
    "width",
    lambda: tts.init_uniform(KEY, 0),
    "`width` must be a whole number of at least 1, but is 0",
)
case(
    "width a float", lambda: tts.init_uniform(KEY, 10.0), "whole number of at least 1, but is 10.0"
)
case("key a number", lambda: tts.init_uniform(1, 10), "`key` must be a jax.random.key, but is 1")
case("activation a class", lambda: tts.ShallowNetwork(tts.Tanh), "the class Tanh itself: call it")
case(
    "network an activation",
    lambda: tts.Problem(tts.Tanh(0.1), TARGET),
    "`network` must be of type Abstract",
)
case(
    "target a function",
    lambda: tts.Problem(tts.ShallowNetwork(LOUD.activation), jnp.sin),
    "tts.Function wraps a function",
)
case("epsilon a word", lambda: tts.GradientFlow("x"), "`epsilon` must be a real number, but is 'x'")

for make, levels, name in (
    (tts.PiecewiseConstant, VALUES, "values"),
    (tts.AdditiveSteps, JUMPS, "weights"),
):
    kind = make.__name__
    for what, jumps, parts in (
        ("unsorted", [0.6, 0.3], ("increasing order, each once, but is [0.6, 0.3]",)),
        ("repeated", [0.3, 0.3], ("increasing order, each once, but is [0.3, 0.3]",)),
        ("at 0", [0.0, 0.3], ("inside (0, 1), but is [0.0, 0.3]",)),
        ("at 1", [0.3, 1.0], ("inside (0, 1), but is [0.3, 1.0]",)),
        ("outside", [-0.3, 0.3], ("inside (0, 1), but is [-0.3, 0.3]",)),
        ("not finite", [0.3, NAN], ("finite, but is infinite or NaN in 1 place",)),
        ("a table", [[0.3, 0.6]], ("one-dimensional, but is of shape (1, 2)",)),
    ):
        case(
            f"{kind} jumps {what}",
            lambda make=make, jumps=jumps, levels=levels: make(jumps, levels),
            "Argument `jumps` must be",
            *parts,
        )
    case(
        f"{kind} count",
        lambda make=make: make(JUMPS, [1.0]),
        f"Argument `{name}` must be of shape",
        f"({len(levels)},)",
        "but is of shape (1,)",
    )
    case(
        f"{kind} levels not finite",
        lambda make=make, levels=levels: make(JUMPS, [INF, *levels[1:]]),
        f"Argument `{name}` must be finite, but is infinite or NaN in 1 place",
    )

case(
    "kinks",
    lambda: tts.Function(jnp.sin, kinks=[0.5, 0.2]),
    "`kinks` must be kinks in increasing order, each once, but is [0.5, 0.2]",
)
case(
    "cells",
    lambda: tts.Function(jnp.sin, cells=0),
    "`cells` must be a whole number from 1 to 100000, but is 0",
)
case(
    "teacher",
    lambda: tts.Teacher(LOUD, params_of(a=[1.0])),
    "`params.a` must be of shape (7,) for inner positions of shape (6,), but is of shape (1,)",
)
case(
    "network of d inputs",
    lambda: tts.Problem(tts.AdditiveNetwork(Loud()), TARGET),
    "`network` must be of one input (for d inputs use EmpiricalProblem), but is a AdditiveNetwork",
)
case(
    "target of d inputs",
    lambda: tts.Problem(LOUD, tts.AdditiveSteps(JUMPS)),
    "`target` must be of one input (for d inputs use EmpiricalProblem), but is a AdditiveSteps",
)
case(
    "loss",
    lambda: tts.EmpiricalProblem(LOUD, [0.1], [1.0], loss="mean"),  # pyright: ignore
    '`loss` must be "squared" or "huber" or "logistic" or "softmax" or "norm", but is \'mean\'',
)
case(
    "inputs without samples",
    lambda: tts.EmpiricalProblem(LOUD, [], []),
    "`x` must be of shape (N, ...), N > 0, but is of shape (0,)",
)
case(
    "labels that do not match",
    lambda: tts.EmpiricalProblem(LOUD, [0.1, 0.2], [1.0]),
    "`y` must be of shape (2,) or (2, K), one for each input, but is of shape (1,)",
)
case("inputs not finite", lambda: tts.EmpiricalProblem(LOUD, [NAN], [1.0]), "`x` must be finite")
case("labels not finite", lambda: tts.EmpiricalProblem(LOUD, [0.1], [INF]), "`y` must be finite")
case(
    "no samples",
    lambda: tts.sample_problem(KEY, LOUD, TARGET, 0),
    "`count` must be a whole number of at least 1, but is 0",
)


@pytest.mark.parametrize(("call", "message"), CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_a_constructor_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def run(**changes):
    arguments = {
        "problem": PROBLEM,
        "dynamics": tts.GradientFlow(0.1),
        "params": params_of(),
        "taus": TAUS,
    } | changes
    positional = [arguments.pop(name) for name in ("problem", "dynamics", "params", "taus")]
    return tts.simulate(*positional, **arguments)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("problem", TARGET, "of type AbstractProblem, but is of type PiecewiseConstant"),
        ("dynamics", tts.LimitFlow, "of type AbstractDynamics, but is the class LimitFlow itself"),
        ("params", (np.zeros(7), np.asarray(U)), "of type Params, but is of type tuple"),
        ("taus", 0.1, "of shape (T,) with T >= 1, but is of shape ()"),
        ("taus", [], "of shape (T,) with T >= 1, but is of shape (0,)"),
        ("taus", [[0.1]], "of shape (T,) with T >= 1, but is of shape (1, 1)"),
        ("taus", [-0.1, 0.2], "slow times of at least 0, but is -0.1 at position 0"),
        ("taus", [0.1, 0.3, 0.2], "strictly increasing, but is 0.3 then 0.2 at position 2"),
        ("taus", [0.1, 0.1], "strictly increasing, but is 0.1 then 0.1 at position 1"),
        (
            "taus",
            np.array([2, 1], np.uint8),
            "strictly increasing, but is 2.0 then 1.0 at position 1",
        ),
        ("taus", [0.1, NAN], "finite, but is infinite or NaN in 1 place"),
        ("taus", [0.1, INF], "finite, but is infinite or NaN in 1 place"),
    ],
)
def test_simulate_refuses(name, value, message):
    with pytest.raises(ValueError, match=expect(f"Argument `{name}` must be ", message)):
        run(**{name: value})


@pytest.mark.parametrize(
    "dynamics", [tts.GradientFlow(0.1), tts.ReducedFlow(), tts.LimitFlow(), SGD]
)
@pytest.mark.parametrize(
    ("params", "message"),
    [
        (params_of(a=np.zeros(6)), ("params.a", "(7,)", "(6,), but is of shape (6,)")),
        (params_of(u=np.zeros((2, 3))), ("params.u", "(m,), but is of shape (2, 3)")),
        (params_of(u=[0.1, 0.2, NAN, INF, 0.5, 0.6]), ("params.u", "infinite or NaN in 2 place")),
        (params_of(a=[NAN] * 7), ("params.a", "finite, but is infinite or NaN in 7 place")),
    ],
)
def test_every_dynamics_refuses_a_start_that_does_not_fit(dynamics, params, message):
    name, *rest = message
    with pytest.raises(ValueError, match=expect(f"Argument `{name}` must be", *rest)):
        run(dynamics=dynamics, params=params, key=KEY)


@pytest.mark.parametrize("inputs", [1, 3])
def test_a_sample_of_other_inputs_than_the_network_is_refused(inputs):
    params = tts.Params(np.zeros((inputs, 5)), np.zeros((inputs, 5)))
    message = expect("`params.u` must be made for inputs x of shape (4, 2)", f"({inputs},)")
    with pytest.raises(ValueError, match=message):
        run(problem=SAMPLE, params=params)


def test_a_shallow_network_on_a_sample_of_several_inputs_is_refused():
    shallow = tts.ShallowNetwork(tts.CubicStep(0.1))
    expected = "Argument `x` must be of shape (N,) for a ShallowNetwork, which has one input"
    with pytest.raises(ValueError, match=expect(expected, "but is of shape (4, 2)")):
        tts.EmpiricalProblem(shallow, np.zeros((4, 2)), np.zeros(4))
    with pytest.raises(ValueError, match=expect(expected, "`x[:, 0]` has it", "(4, 1)")):
        tts.EmpiricalProblem(shallow, np.zeros((4, 1)), np.zeros(4))


def test_a_sample_of_one_input_for_a_network_of_several_is_refused():
    problem = tts.EmpiricalProblem(tts.AdditiveNetwork(Loud()), np.zeros(4), np.zeros(4))
    params = tts.Params(np.zeros((2, 5)), np.zeros((2, 5)))
    message = "Argument `x` must be of shape (N, d) for a AdditiveNetwork, but is of shape (4,)"
    with pytest.raises(ValueError, match=expect(message)):
        run(problem=problem, params=params)


@pytest.mark.parametrize("dynamics", [tts.GradientFlow(0.1), tts.ReducedFlow(), tts.LimitFlow()])
def test_a_flow_refuses_samples_and_single_precision(dynamics):
    with pytest.raises(
        ValueError, match=expect("Argument `samples` must be None for", ", but is given")
    ):
        run(dynamics=dynamics, samples=(np.zeros(5), np.zeros(5)))
    single = jax.tree.map(lambda v: v.astype(np.float32), params_of())
    with pytest.raises(ValueError, match="float64 for a flow, but is of dtype float32"):
        run(dynamics=dynamics, params=single)


def test_sgd_without_a_key_is_refused():
    with pytest.raises(ValueError, match=expect("Argument `key` must be a jax.random.key for SGD")):
        run(dynamics=SGD)
    keys = jax.random.split(KEY, 3)
    for several in (keys, jax.random.key_data(keys)):
        with pytest.raises(ValueError, match=expect("`key` must be one single key", "shape (3,)")):
            run(dynamics=SGD, key=several)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ((np.zeros(9), np.zeros(9)), "at least 10 steps long for these taus, but is 9"),
        ((np.zeros(10), np.zeros(9)), "but is of shapes (10,) and (9,)"),
        ((np.zeros((10, 2)), np.zeros((10, 2))), "batches of 1, but is batches of 2"),
        ((np.full(10, NAN), np.zeros(10)), "finite, but is infinite or NaN in 10 place"),
    ],
)
def test_a_sample_stream_that_does_not_fit_is_refused(samples, message):
    with pytest.raises(ValueError, match=expect("Argument `samples` must be", message)):
        run(dynamics=SGD, samples=samples)


def test_noise_or_samples_in_a_full_batch_are_refused():
    full = tts.SGD(epsilon=0.1, step_size=0.1, noise=0.5, batch_size="full")
    with pytest.raises(ValueError, match=r"`batch_size` must be .* but is full"):
        run(dynamics=full)


class RiskOnly(tts.AbstractProblem):
    def risk(self, params):
        raise AssertionError("reached the risk")


@pytest.mark.parametrize(
    ("dynamics", "message"),
    [
        (tts.ReducedFlow(), "one with a `best_outer(u, ridge=...)`, but is a RiskOnly"),
        (tts.LimitFlow(), "a Problem with a PiecewiseConstant target for LimitFlow, but is"),
        (SGD, "`, but is a RiskOnly"),
    ],
)
def test_a_problem_without_what_the_dynamics_needs_is_refused(dynamics, message):
    with pytest.raises(ValueError, match=expect("Argument `problem` must be", message)):
        run(problem=RiskOnly(), dynamics=dynamics, key=KEY)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (tts.ShallowNetwork(tts.ReLU()), "a ShallowNetwork with a step-like activation"),
        (tts.ShallowNetwork(Loud(), bias=False), "one with a bias for LimitFlow"),
    ],
)
def test_the_limit_flow_refuses_networks_without_steps(network, message):
    with pytest.raises(ValueError, match=expect("Argument `network` must be", message)):
        run(
            problem=tts.Problem(network, TARGET),
            dynamics=tts.LimitFlow(),
            params=params_of(a=np.zeros(6 + network.bias)),
        )


@pytest.mark.parametrize(
    ("u", "piece", "count"),
    [
        ([0.1, 0.35, 0.4, 0.5, 0.7, 0.9], "piece 0 between 0 and 0.3", 1),
        ([0.1, 0.2, 0.25, 0.29, 0.7, 0.9], "piece 1 between 0.3 and 0.6", 0),
        ([0.1, 0.2, 0.4, 0.5, 0.55, 0.9], "piece 2 between 0.6 and 1", 1),
        ([0.1, -0.2, 0.4, 0.5, 0.7, 0.9], "piece 0 between 0 and 0.3", 1),
        ([0.1, 0.2, 0.4, 0.5, 0.7, 1.01], "piece 2 between 0.6 and 1", 1),
    ],
    ids=["first", "middle", "last", "one left of 0", "one right of 1"],
)
def test_the_limit_flow_names_the_piece_with_fewer_than_two_neurons(u, piece, count):
    parts = ("at least two neurons in every piece", piece, f", but is an array with {count} there")
    with pytest.raises(ValueError, match=expect("Argument `params.u` ", *parts)):
        run(dynamics=tts.LimitFlow(), params=params_of(u=u))
    with pytest.raises(ValueError, match=expect("Argument `u` ", *parts)):
        tts.hit_times(jnp.asarray(u), TARGET)


def test_32_bit_mode_is_refused_with_the_line_that_ends_it():
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(ValueError, match=expect("call `tts.configure()`")):
            run()
    finally:
        jax.config.update("jax_enable_x64", True)


def test_the_loud_activation_is_reached_where_nothing_is_wrong():
    """So that the refusals above are known to come before anything is traced."""
    with pytest.raises(AssertionError, match="reached the activation"):
        run()
