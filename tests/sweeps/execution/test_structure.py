"""Runs that one program can compute have one structure, and others have another."""

import gc
import pickle
import weakref
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import CountedRamp, small_problem
from small_studies import Drift, start_of

import tts_jax as tts
from tts_jax.sweeps.execution.structure import Settings, one_run

SCALE = 0.5


def near(key, width):
    params = tts.init_uniform(key, width)
    return tts.Params(params.a, SCALE * params.u)


@dataclass
class Spread:
    """A start whose numbers may change."""

    scale: float

    def __call__(self, key, width):
        params = tts.init_uniform(key, width)
        return tts.Params(params.a, self.scale * params.u)


def settings_of(problem=None, dynamics=None, grid=None, taus=(0.0, 1.0), **options):
    study = tts.Study(
        problem or small_problem(),
        dynamics or tts.SGD(0.1, 1e-3, noise=0.2),
        {"width": 4, "seed": range(3), **(grid or {})},
        taus,
        **options,
    )
    return Settings.of(study)


def ramp_problem(eta=0.1):
    return tts.Problem(tts.ShallowNetwork(CountedRamp(eta=eta)), small_problem().target)


def structure(*arguments, width=4, label=None, **options):
    return settings_of(*arguments, **options).split(width, label)[0]


def targets(*values):
    return {"target": {"a": tts.PiecewiseConstant([0.5] * (len(values) > 1), list(values))}}


SAME = {
    "numbers of the problem": (
        {"problem": small_problem(eta=0.3, values=(1.0, 2.0, 4.0))},
        {},
    ),
    "numbers of the dynamics": ({"dynamics": tts.SGD(0.3, 2e-3, noise=0.5)}, {}),
    "arrays for numbers": ({"dynamics": tts.SGD(jnp.asarray(0.3), 2e-3, noise=0.5)}, {}),
    "values of the grid": ({"grid": {"noise": [0.1]}}, {"grid": {"noise": [0.3, 0.7]}}),
    "a swept zero": (
        {"grid": {"noise": [0.1]}},
        {"grid": {"noise": [0.1]}, "dynamics": tts.SGD(0.1, 1e-3, noise=0.0)},
    ),
    "times": ({"taus": (0.0, 3.0)}, {}),
}


@pytest.mark.parametrize("case", SAME)
def test_numbers_do_not_count(case):
    one, other = (structure(**given) for given in SAME[case])
    assert one == other
    assert hash(one) == hash(other)


def test_numbers_of_a_target_do_not_count_and_their_shape_is_that_of_the_numbers():
    one = settings_of(grid=targets(1.0, 2.0)).split(4, "a")
    other = settings_of(grid=targets(3.0, 4.0)).split(4, "a")
    longer = settings_of(grid=targets(1.0)).split(4, "a")
    assert one[0] == other[0] == longer[0]
    assert jax.tree.map(np.shape, one[1]) == jax.tree.map(np.shape, other[1])
    assert jax.tree.map(np.shape, one[1]) != jax.tree.map(np.shape, longer[1])


OTHERS = {
    "class of a part of the problem": {
        "problem": tts.Problem(tts.ShallowNetwork(tts.Tanh(eta=0.1)), small_problem().target)
    },
    "class of the dynamics": {"dynamics": Drift()},
    "static field": {"dynamics": tts.SGD(0.1, 1e-3, noise=0.2, batch_size=2)},
    "zero noise, which full batches ask for": {"dynamics": tts.SGD(0.1, 1e-3)},
    "start": {"start": near},
    "parameters kept": {"keep": "last"},
    "precision": {"precision": "float32"},
}


@pytest.mark.parametrize("case", OTHERS)
def test_all_else_counts(case):
    assert structure(**OTHERS[case]) != structure()


def test_widths_count():
    assert structure(width=4) != structure(width=5)


def test_what_a_function_reads_counts(monkeypatch):
    before = structure(start=near)
    assert structure(start=near) == before
    monkeypatch.setitem(globals(), "SCALE", 0.25)
    assert structure(start=near) != before


class Scaled(tts.AbstractActivation):
    """A ramp whose values depend on a number beside it."""

    eta: float
    knots = (-0.5, 0.5)
    degree = 1
    limits = None

    def __call__(self, z):
        return SCALE * jnp.clip(z + 0.5, 0.0, 1.0)


def test_what_the_methods_of_a_class_read_counts(monkeypatch):
    problem = tts.Problem(tts.ShallowNetwork(Scaled(eta=0.1)), small_problem().target)
    before = structure(problem)
    assert before == structure(problem)
    monkeypatch.setitem(globals(), "SCALE", 0.25)
    assert before != structure(problem)


def test_a_start_counts_by_what_it_holds_now():
    start = Spread(0.5)
    before = structure(start=start)
    assert structure(start=start) == structure(start=Spread(0.5)) == before
    assert hash(structure(start=Spread(0.5))) == hash(before)
    start.scale = 0.25
    assert structure(start=start) != before
    assert structure(start=start).start is start


def test_equal_functions_made_anew_have_one_structure():
    def made(k):
        problem = tts.Problem(small_problem().network, tts.Function(lambda x: k * x))
        return structure(problem, start=lambda key, width: tts.init_uniform(key, width))

    assert made(2.0) == made(2.0) != made(3.0)


def test_a_run_is_made_of_its_parts():
    settings = settings_of(ramp_problem(), Drift(drag=0.25), {"eta": [0.1]}, start=near)
    made, numbers = settings.split(4, None)
    taus = jnp.array([0.0, 2.0])
    found = one_run(made, numbers, {"eta": 0.2}, jnp.int64(3), jnp.uint64(1), taus)
    start = start_of(3, 4)
    wanted = 0.5 * start.u[None] + 1.25 * taus[:, None]
    axes, u = found["u"]
    assert axes == ("tau", "neuron")
    assert np.allclose(u, wanted, rtol=1e-14)
    shown = np.clip((0.5 - wanted[:, 0]) / 0.2 + 0.5, 0.0, 1.0) + np.array([1.0, 0.5])
    assert np.allclose(found["risk"][1], shown, rtol=1e-14)


def test_settings_hold_no_grid_and_structures_no_arrays():
    """What goes to a worker does not grow with the grid, nor what is kept with the data."""
    few, many = (settings_of(grid={"seed": range(n)}) for n in (3, 30_000))
    assert len(pickle.dumps(few)) == len(pickle.dumps(many))
    x = np.linspace(0.0, 1.0, 1000)
    problem = tts.EmpiricalProblem(tts.ShallowNetwork(tts.Tanh(eta=0.1)), x, x)
    held = weakref.ref(problem.x)
    kept = structure(problem, Drift())
    del problem, x
    gc.collect()
    assert held() is None
    assert kept is not None
