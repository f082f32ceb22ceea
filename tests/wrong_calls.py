"""The public face as a table: calls that are right, and the kinds of values wrong for an argument.

The activation fails when it is traced: what is wrong is to be refused before.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import wrong_values as wrong
import xarray as xr
from loud import Loud
from wrong_values import KEY, Kind

import tts_jax as tts
from tts_jax import analyses, metrics, plot


class Call(NamedTuple):
    """A right call, and for each argument that may be wrong the kinds of wrong values."""

    function: Callable
    right: dict[str, Any]
    wrong: dict[str, Kind]


U = np.array([0.1, 0.2, 0.4, 0.5, 0.7, 0.9])
TARGET = tts.PiecewiseConstant([0.3, 0.6], [1.0, 3.0, 2.0])
NETWORK = tts.ShallowNetwork(Loud())
SEVERAL = tts.AdditiveNetwork(Loud())
PROBLEM = tts.Problem(NETWORK, TARGET)
# With a closed form: nothing in these calls is traced, either.
EXACT = tts.Problem(tts.ShallowNetwork(tts.CubicStep(0.01)), TARGET)
START = tts.Params(np.zeros(7), U)
FLOW = tts.GradientFlow(0.1)
TRAJECTORY = tts.Trajectory(
    np.array([0.0, 0.1]),
    tts.Params(np.zeros((2, 7)), np.stack([U, U])),
    np.array([1.0, 0.5]),
    np.array(0),
    {},
    method="made up",
)
SWEEP = xr.Dataset(
    {
        "risk": (("epsilon", "seed", "tau"), np.ones((2, 3, 2))),
        "status": (("epsilon", "seed"), np.zeros((2, 3), int)),
        "recovered_below": ((), 0.25),
    },
    coords={"epsilon": [0.1, 1.0], "seed": range(3), "tau": [0.0, 0.1]},
)
FIGURE, AXES = plot.figure(size=(3.0, 2.0))
BANDS = analyses.bands(SWEEP, ("epsilon",))
SUCCESS = analyses.success(SWEEP, ("epsilon", "seed"))


def halves(rng: np.random.Generator) -> Any:
    """Parameters of which one half is wrong, or which are none."""
    bad = wrong.array(rng)
    pairs = (tts.Params(bad, U), tts.Params(np.zeros(7), bad), tts.Params(np.zeros(5), U), bad)
    return pairs[rng.integers(4)]


def times(rng: np.random.Generator) -> Any:
    """Slow times that are no numbers, repeat, fall, or begin below 0."""
    bad = ([0.1, 0.1], [0.2, 0.1], [-0.1, 0.2], [], np.ones((2, 2)), 0.1)
    return bad[rng.integers(6)] if rng.integers(2) else wrong.array(rng)


def jumps(rng: np.random.Generator) -> Any:
    bad = ([0.3, 0.3], [0.6, 0.3], [0.0, 0.5], [0.5, 1.0], np.full((1, 2), 0.5))
    return bad[rng.integers(5)] if rng.integers(2) else wrong.array(rng)


def grid(rng: np.random.Generator) -> Any:
    bad = wrong.number(rng)
    if np.iterable(bad) and not isinstance(bad, str | bytes | dict | xr.Dataset):
        bad = -np.ones(2)  # several numbers are right there
    grids = ({"width": bad}, {wrong.word(rng): 1.0, "width": 3}, bad)
    return grids[rng.integers(3)]


def over(rng: np.random.Generator) -> Any:
    return wrong.one_of(rng, (wrong.thing_or_none, wrong.choice, lambda rng: ("seed", "seed")))


def fraction(rng: np.random.Generator) -> Any:
    return 1.0 + rng.exponential() if rng.integers(3) == 0 else wrong.number(rng)


def samples(rng: np.random.Generator) -> Any:
    bad = wrong.array(rng)
    pairs = ((bad, np.zeros(9)), (np.zeros(9), bad), (np.zeros(9),), np.zeros(3), "xy")
    return pairs[rng.integers(5)]


def rates(rng: np.random.Generator) -> Any:
    """A rate that is none: alone, in a tree, or in an array in a tree."""
    bad = (-1.0, np.nan, np.inf, "fast", True, 1j, object())[rng.integers(7)]
    return (bad, {"w": 1.0, "b": bad}, [{"w": bad}, 2.0], {"w": [bad]})[rng.integers(4)]


def not_a_function(rng: np.random.Generator) -> Any:
    functions = (
        lambda x: 1.0,
        lambda x: jnp.sum(x),
        lambda: 0.0,
        lambda x: np.sin(x),
        lambda x: (x, x),
        lambda x: None,
    )
    if rng.integers(2):
        return functions[rng.integers(6)]
    return wrong.thing_or_none(rng)


_TOLERANCES = {"rtol": wrong.number, "atol": wrong.number, "max_steps": wrong.whole}
_PARTS = {"solver": wrong.thing, "adjoint": wrong.thing, "rates": rates}
_STUDY = {"problem": EXACT, "dynamics": FLOW, "grid": {"width": 3}, "taus": [0.1]}

CALLS: dict[str, Call] = {
    **{
        kind.__name__: Call(kind, {"eta": 0.1}, {"eta": wrong.number})
        for kind in (tts.CubicStep, tts.Erf, tts.Logistic, tts.ReLU, tts.Tanh, Loud)
    },
    "ShallowNetwork": Call(
        tts.ShallowNetwork,
        {"activation": Loud(), "bias": True},
        {"activation": wrong.not_a(tts.AbstractActivation), "bias": wrong.flag},
    ),
    "AdditiveNetwork": Call(
        tts.AdditiveNetwork,
        {"activation": Loud()},
        {"activation": wrong.not_a(tts.AbstractActivation)},
    ),
    "PiecewiseConstant": Call(
        tts.PiecewiseConstant,
        {"jumps": [0.3, 0.6], "values": [1.0, 3.0, 2.0]},
        {"jumps": jumps, "values": wrong.array},
    ),
    "AdditiveSteps": Call(
        tts.AdditiveSteps,
        {"jumps": [0.3, 0.6], "weights": [1.0, 3.0]},
        {"jumps": jumps, "weights": wrong.no_number},
    ),
    "Teacher": Call(
        tts.Teacher,
        {"network": NETWORK, "params": START},
        {"network": wrong.not_a(tts.AbstractNetwork), "params": halves},
    ),
    "Function": Call(
        tts.Function,
        {"function": jnp.sin, "kinks": [0.5], "degree": 3, "cells": 8},
        {
            "function": not_a_function,
            "kinks": jumps,
            "degree": wrong.unless(wrong.whole, lambda v: v == 0, 0.5),
            "cells": wrong.whole,
        },
    ),
    "Problem": Call(
        tts.Problem,
        {"network": NETWORK, "target": TARGET},
        {"network": wrong.not_a(tts.AbstractNetwork), "target": wrong.not_a(tts.AbstractLabels)},
    ),
    "EmpiricalProblem": Call(
        tts.EmpiricalProblem,
        {"network": NETWORK, "x": np.zeros(3), "y": np.zeros(3), "loss": "norm"},
        {
            "network": wrong.not_a(tts.AbstractNetwork),
            "x": wrong.array,
            "y": wrong.array,
            "loss": wrong.choice,
        },
    ),
    "sample_problem": Call(
        tts.sample_problem,
        {
            "key": KEY,
            "network": SEVERAL,
            "target": tts.AdditiveSteps([0.5]),
            "count": 4,
            "inputs": 2,
        },
        {
            "key": wrong.key,
            "network": wrong.not_a(tts.AbstractNetwork),
            "target": wrong.not_a(tts.AbstractLabels),
            "count": wrong.whole,
            "inputs": wrong.whole,
        },
    ),
    "GradientFlow": Call(
        tts.GradientFlow, {"epsilon": 0.1}, {"epsilon": wrong.number, **_TOLERANCES, **_PARTS}
    ),
    "ReducedFlow": Call(tts.ReducedFlow, {}, {"ridge": wrong.number, **_TOLERANCES, **_PARTS}),
    "SGD": Call(
        tts.SGD,
        {"epsilon": 0.1, "step_size": 0.1},
        {
            "epsilon": wrong.number,
            "step_size": wrong.number,
            "noise": wrong.unless(wrong.number, lambda v: v == 0, -1.0),
            "batch_size": wrong.whole,
            "gradient": wrong.choice,
            "optimiser": wrong.thing,
            "rates": rates,
        },
    ),
    "init_uniform": Call(
        tts.init_uniform, {"key": KEY, "width": 3}, {"key": wrong.key, "width": wrong.whole}
    ),
    "simulate": Call(
        tts.simulate,
        {"problem": PROBLEM, "dynamics": FLOW, "params": START, "taus": [0.1]},
        {
            "problem": wrong.not_a(tts.AbstractProblem),
            "dynamics": wrong.not_a(tts.AbstractDynamics),
            "params": halves,
            "taus": times,
            "samples": samples,
            "throw": wrong.flag,
            "progress": wrong.thing,
            "checkpoint": wrong.thing,
        },
    ),
    "simulate SGD": Call(
        tts.simulate,
        {
            "problem": PROBLEM,
            "dynamics": tts.SGD(0.1, 0.1),
            "params": START,
            "taus": [0.1],
            "key": KEY,
        },
        {"key": wrong.key, "samples": samples, "params": halves, "taus": times},
    ),
    "Study": Call(
        tts.Study,
        _STUDY,
        {
            "problem": wrong.not_a(tts.AbstractProblem),
            "dynamics": wrong.not_a(tts.AbstractDynamics),
            "grid": grid,
            "taus": times,
            "start": wrong.thing_or_none,
            "keep": wrong.choice,
            "precision": wrong.choice,
        },
    ),
    "sweep": Call(
        tts.sweep,
        _STUDY,
        {"grid": grid, "taus": times, "store": wrong.thing, "progress": wrong.thing},
    ),
    "read_study": Call(tts.read_study, {"path": Path("none.toml")}, {"path": wrong.thing_or_none}),
    "hit_times": Call(
        tts.hit_times,
        {"u": U, "target": TARGET},
        {"u": wrong.array, "target": wrong.not_a(tts.AbstractLabels)},
    ),
    "arrival_times": Call(
        tts.arrival_times,
        {"problem": EXACT, "flow": FLOW, "params": START, "horizon": 0.1, "within": 0.01},
        {
            "problem": wrong.not_a(tts.AbstractProblem),
            "flow": wrong.not_a(tts.GradientFlow),
            "params": halves,
            "horizon": wrong.number,
            "within": wrong.number,
        },
    ),
    "passage_times": Call(
        tts.passage_times,
        {
            "problem": EXACT,
            "flow": FLOW,
            "params": START,
            "horizon": 0.1,
            "event": lambda params: params.u[0],
        },
        {
            "problem": wrong.not_a(tts.AbstractProblem),
            "flow": wrong.not_a(tts.GradientFlow, tts.ReducedFlow),
            "params": halves,
            "horizon": wrong.number,
            "event": wrong.thing_or_none,
        },
    ),
    "recommended_solver": Call(
        tts.recommended_solver,
        {"epsilon": 0.1, "width": 5, "problem": EXACT},
        {
            "epsilon": wrong.number,
            "width": wrong.whole,
            "problem": wrong.not_a(tts.AbstractProblem),
            "horizon": wrong.number,
        },
    ),
    "stiff_solver": Call(tts.stiff_solver, {"order": 5}, {"order": wrong.whole}),
    "map_runs": Call(tts.map_runs, {"function": jnp.sin}, {"function": wrong.thing_or_none}),
    "ProgressBar": Call(
        tts.ProgressBar,
        {"label": "x", "steps": 5},
        {
            "label": wrong.thing_or_none,
            "steps": wrong.unless(wrong.whole, lambda v: v is None or v >= 0, -1),
        },
    ),
    "configure": Call(
        tts.configure,
        {"devices": "all"},
        {
            "x64": wrong.flag,
            "devices": wrong.unless(wrong.choice, lambda v: v is not None and v > 0, 0),
        },
    ),
    "at": Call(
        TRAJECTORY.at, {"index": 1}, {"index": wrong.unless(wrong.whole, lambda v: -2 <= v < 2, 2)}
    ),
    "steps_until": Call(tts.SGD(0.1, 0.1).steps_until, {"taus": [0.1]}, {"taus": wrong.no_number}),
    "network": Call(
        NETWORK, {"params": START, "x": U}, {"params": wrong.thing_or_none, "x": wrong.no_number}
    ),
    "several": Call(
        SEVERAL,
        {"params": tts.Params(np.zeros((2, 3)), np.zeros((2, 3))), "x": np.zeros((4, 2))},
        {"params": wrong.thing_or_none, "x": wrong.no_number},
    ),
    "risk": Call(PROBLEM.risk, {"params": START}, {"params": wrong.thing_or_none}),
    "nearest_neuron": Call(
        metrics.nearest_neuron,
        {"u": U, "target": TARGET},
        {"u": wrong.no_number, "target": wrong.not_a(tts.AbstractLabels)},
    ),
    "covered": Call(
        metrics.covered,
        {"u": U, "target": TARGET, "eta": 0.1},
        {"u": wrong.no_number, "target": wrong.not_a(tts.AbstractLabels), "eta": wrong.number},
    ),
    "floor": Call(
        metrics.floor, {"problem": PROBLEM}, {"problem": wrong.not_a(tts.AbstractProblem)}
    ),
    "recovered": Call(
        metrics.recovered,
        {"risk": 0.1, "problem": PROBLEM, "multiple": 2.0},
        {
            "risk": wrong.no_number,
            "problem": wrong.not_a(tts.AbstractProblem),
            "multiple": wrong.number,
        },
    ),
    "distance": Call(
        metrics.distance,
        {"first": TRAJECTORY, "second": TRAJECTORY},
        {"first": wrong.not_a(tts.Trajectory), "second": wrong.not_a(tts.Trajectory)},
    ),
    "slaving_gap": Call(
        metrics.slaving_gap,
        {"problem": PROBLEM, "trajectory": TRAJECTORY, "ridge": 1e-8},
        {
            "problem": wrong.not_a(tts.AbstractProblem),
            "trajectory": wrong.not_a(tts.Trajectory),
            "ridge": wrong.number,
        },
    ),
    "conserved_cubes": Call(
        metrics.conserved_cubes,
        {"u": U, "target": TARGET},
        {"u": wrong.no_number, "target": wrong.not_a(tts.AbstractLabels)},
    ),
    "conserved_drift": Call(
        metrics.conserved_drift,
        {"trajectory": TRAJECTORY, "target": TARGET},
        {"trajectory": wrong.not_a(tts.Trajectory), "target": wrong.not_a(tts.AbstractLabels)},
    ),
    "threshold": Call(
        analyses.threshold,
        {"data": SWEEP, "below": 0.1},
        {
            "data": wrong.not_a(xr.Dataset),
            "below": wrong.unless(wrong.number, lambda v: v is None, -1),
        },
    ),
    "success": Call(
        analyses.success,
        {"data": SWEEP, "over": "epsilon", "confidence": 0.9},
        {"data": wrong.not_a(xr.Dataset), "over": over, "confidence": fraction},
    ),
    "bands": Call(
        analyses.bands,
        {"data": SWEEP, "over": ("epsilon",), "quantiles": [0.5]},
        {"data": wrong.not_a(xr.Dataset), "over": over, "quantiles": wrong.array},
    ),
    "convergence_time": Call(
        analyses.convergence_time, {"data": SWEEP}, {"data": wrong.not_a(xr.Dataset)}
    ),
    "figure": Call(
        plot.figure,
        {"rows": 1, "columns": 1, "size": (3.0, 2.0)},
        {"rows": wrong.whole, "columns": wrong.whole, "size": wrong.no_number},
    ),
    "staircase": Call(
        plot.staircase,
        {"axes": AXES, "jumps": [0.5], "values": [0.0, 1.0]},
        {"axes": wrong.not_a(tts.Trajectory), "jumps": wrong.no_number, "values": wrong.no_number},
    ),
    "neurons": Call(
        plot.neurons,
        {"axes": AXES, "u": U},
        {"axes": wrong.not_a(tts.Trajectory), "u": wrong.no_number},
    ),
    "risks": Call(
        plot.risks,
        {"axes": AXES, "curves": {"a": ([0.0, 1.0], [1.0, 0.5], "flow")}},
        {"axes": wrong.not_a(tts.Trajectory), "curves": wrong.not_a(dict)},
    ),
    "phase": Call(
        plot.phase,
        {"axes": AXES, "success": SUCCESS},
        {"axes": wrong.not_a(tts.Trajectory), "success": wrong.not_a(tts.Trajectory)},
    ),
    "fan": Call(
        plot.fan,
        {"axes": AXES, "bands": BANDS},
        {"axes": wrong.not_a(tts.Trajectory), "bands": wrong.not_a(xr.DataArray)},
    ),
    "tick_labels": Call(
        plot.tick_labels,
        {"data": SWEEP, "name": "epsilon"},
        {"data": wrong.word, "name": wrong.choice},
    ),
}
