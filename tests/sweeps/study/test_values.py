"""What a grid may have values for is declared where it is defined: there, and nowhere else."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import small_problem
from small_studies import Drift, start_of

import tts_jax as tts
from tts_jax.sweeps.study.values import places_of, with_values


class Leaky(tts.AbstractActivation):
    """A ramp whose sides may leak, which a sweep may vary; its floor is nobody's business."""

    eta: float
    slope: float = 0.1
    floor: float = 0.0
    knots: ClassVar = (-0.5, 0.5)
    degree: ClassVar = 1
    limits: ClassVar = None
    sweepable: ClassVar = (*tts.AbstractActivation.sweepable, "slope")

    def __call__(self, z):
        return jnp.clip(z + 0.5, 0.0, 1.0) + self.slope * z + self.floor


class Level(tts.AbstractTarget):
    """A constant, which a sweep may vary."""

    level: float
    degree: ClassVar = 0
    sweepable: ClassVar = ("level",)

    def cuts(self):
        return jnp.zeros(0)

    def __call__(self, x):
        return jnp.full_like(x, self.level)

    def on_cells(self, x, lower):
        return self(x)


class Sum(tts.AbstractProblem):
    """Two networks, whose activations both have an eta."""

    first: tts.ShallowNetwork
    second: tts.ShallowNetwork

    def risk(self, params):
        x = jnp.linspace(0.0, 1.0, 5)
        return jnp.sum((self.first(params, x) - self.second(params, x)) ** 2)


def leaky(target=None) -> tts.Problem:
    return tts.Problem(tts.ShallowNetwork(Leaky(eta=0.1)), target or Level(1.0))


def names(problem, dynamics):
    return set(places_of(problem, dynamics))


def test_every_class_names_what_may_vary():
    common = {"target", "eta"}
    assert names(small_problem(), tts.GradientFlow(1.0)) == common | {"epsilon", "rtol", "atol"}
    assert names(small_problem(), tts.ReducedFlow()) == common | {"ridge", "rtol", "atol"}
    assert names(small_problem(), tts.LimitFlow()) == common
    assert names(small_problem(), tts.SGD(1.0, 1.0)) == common | {"epsilon", "step_size", "noise"}
    sample = tts.EmpiricalProblem(tts.ShallowNetwork(tts.Tanh(eta=0.1)), [0.0, 1.0], [0.0, 1.0])
    assert names(sample, tts.LimitFlow()) == {"eta", "penalty"}
    assert names(leaky(), Drift()) == common | {"slope", "level", "epsilon"}


def test_values_stand_where_they_were_declared():
    values = {"epsilon": 3.0, "eta": 0.3, "slope": 0.7, "level": 5.0}
    problem, dynamics = with_values(leaky(), Drift(drag=2.0), values)
    assert (dynamics.epsilon, dynamics.drag) == (3.0, 2.0)
    assert problem == tts.Problem(tts.ShallowNetwork(Leaky(eta=0.3, slope=0.7)), Level(5.0))


def test_a_target_comes_before_its_numbers():
    problem, _ = with_values(leaky(small_problem().target), Drift(), {"target": Level(1.0)})
    assert problem.target == Level(1.0)
    both = {"level": 5.0, "target": Level(1.0)}
    problem, _ = with_values(leaky(small_problem().target), Drift(), both)
    assert problem.target == Level(5.0)


def test_a_teacher_keeps_its_eta():
    network = tts.ShallowNetwork(tts.Tanh(eta=0.1))
    teacher = tts.Teacher(network, tts.Params(jnp.ones(3), jnp.array([0.2, 0.6])))
    problem, _ = with_values(tts.Problem(network, teacher), Drift(), {"eta": 0.5})
    assert problem.network.activation.eta == 0.5
    assert problem.target == teacher


def study(problem, dynamics=None, **grid):
    return tts.Study(problem, dynamics or Drift(), {"width": 3, **grid}, [1.0])


@pytest.mark.parametrize(
    ("problem", "name"),
    [(leaky(), "floor"), (leaky(), "drag"), (small_problem(), "slope"), (leaky(), "step_size")],
)
def test_what_nobody_declares_is_refused_with_the_way_out(problem, name):
    with pytest.raises(ValueError, match=rf"declare it in `sweepable`\), but is of `{name}`"):
        study(problem, **{name: [1.0]})


def test_what_two_places_declare_is_refused_with_both():
    network = tts.ShallowNetwork(tts.Tanh(eta=0.1))
    where = "`problem.first.activation` and `problem.second.activation` both declare"
    with pytest.raises(ValueError, match=f"of `eta`, which {where}"):
        study(Sum(network, network), eta=[0.1])
    study(Sum(network, network))  # what nobody sweeps is in nobody's way


def test_labels_need_a_problem_that_has_a_target():
    sample = tts.EmpiricalProblem(tts.ShallowNetwork(tts.Tanh(eta=0.1)), [0.0, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="of `target`"):
        study(sample, target={"one": Level(1.0)})


def test_every_target_must_have_the_numbers_of_the_grid():
    study(leaky(), target={"one": Level(1.0), "two": Level(2.0)}, level=[3.0])
    with pytest.raises(ValueError, match="of `level`"):
        study(leaky(), target={"one": Level(1.0), "steps": small_problem().target}, level=[3.0])


def test_a_sweep_varies_what_a_user_declared():
    taus = jnp.array([0.0, 0.5])
    grid = {"slope": [0.0, 0.5], "level": [1.0, 2.0], "epsilon": [0.1], "width": 3}
    data = tts.sweep(leaky(), Drift(), grid, taus)
    assert data.risk.dims == ("slope", "level", "epsilon", "tau")
    problem = tts.Problem(tts.ShallowNetwork(Leaky(eta=0.1, slope=0.5)), Level(2.0))
    run = tts.simulate(problem, Drift(0.1), start_of(0, 3), taus)
    ours = data.sel(slope=0.5, level=2.0, epsilon=0.1)
    assert np.allclose(ours.risk, run.risk, rtol=1e-14)
    assert np.allclose(ours.u, run.params.u, rtol=1e-14)
    assert np.allclose(data.risk.sel(level=2.0) - data.risk.sel(level=1.0), 1.0, rtol=1e-14)
    assert np.all(data.risk.sel(slope=0.0) != data.risk.sel(slope=0.5))
