"""What runs are expected to cost, against what they cost."""

import jax
import numpy as np
import pytest
from small_problems import small_problem
from small_studies import Drift

import tts_jax as tts
from tts_jax.sweeps.execution.cost import Costs

SGD = tts.SGD(0.05, 1e-3)


def costs(dynamics, taus=(1.0,), problem=None, **grid):
    grid = {"width": 4, "seed": 0, **grid}
    return Costs(tts.Study(problem or small_problem(), dynamics, grid, taus))


@pytest.mark.thorough
@pytest.mark.parametrize("epsilon", [0.01, 0.1])
def test_steps_of_sgd_are_known(epsilon):
    run = tts.simulate(
        small_problem(),
        tts.SGD(epsilon, 1e-3),
        tts.init_uniform(jax.random.key(0), 4),
        np.array([0.5]),
        key=jax.random.key(1),
    )
    expected = costs(SGD, [0.5], epsilon=[epsilon]).steps({"epsilon": epsilon, "width": 4})
    assert expected == int(run.stats["steps"])


@pytest.mark.thorough
def test_steps_of_a_flow_are_expected_about_right(problem):
    """A rule of thumb: on average over starts within a factor of two, at any tolerance."""
    for rtol, epsilon in ((1e-4, 1e-3), (1e-6, 1e-5), (1e-8, 1.0)):
        flow = tts.GradientFlow(epsilon, rtol=rtol, atol=1e-2 * rtol)
        data = tts.sweep(problem, flow, {"seed": range(8), "width": 20}, [1.0])
        ratio = float(data.steps.mean()) / costs(flow).steps({"width": 20})
        assert 0.5 < ratio < 2.0


def test_wider_longer_and_tighter_is_expected_to_cost_more():
    def cost(dynamics, **point):
        made = costs(dynamics, **{name: [value] for name, value in point.items()})
        return made.seconds({"width": 20, **point})

    flow = tts.GradientFlow(1.0)
    assert cost(flow, width=40) > cost(flow, width=20)
    assert cost(flow, width=2000) > cost(flow, width=200)
    assert cost(flow, rtol=1e-10) > cost(flow, rtol=1e-4)
    assert cost(SGD, epsilon=1e-3) == pytest.approx(10 * cost(SGD, epsilon=1e-2))
    assert cost(tts.LimitFlow()) < cost(tts.ReducedFlow())


def test_a_flow_costs_what_the_closed_form_of_the_problem_says():
    flow, problem = tts.GradientFlow(1.0), small_problem()

    def works(width):
        return problem.closed_form(width).relative_work(width)

    for one, other in ((10, 20), (20, 100), (100, 2000)):
        seconds = [costs(flow).seconds({"width": width}) for width in (one, other)]
        assert seconds[1] / seconds[0] == pytest.approx(works(other) / works(one))
    smooth = tts.Problem(tts.ShallowNetwork(tts.Tanh(eta=0.1)), problem.target)
    assert smooth.closed_form(20) is None
    of_both = [costs(flow, problem=p).seconds({"width": 20}) for p in (problem, smooth)]
    assert of_both[0] == pytest.approx(works(20) * of_both[1])


ASKED = []


class Counted(Drift):
    """A user's dynamics that knows what it costs, and notes whenever it is asked."""

    def expected_seconds(self, problem, width, taus):
        ASKED.append(width)
        return self.epsilon * width * len(taus)


def test_a_users_dynamics_is_asked_once_for_what_differs_in_cost():
    ASKED.clear()
    made = costs(Counted(), (1.0, 2.0), epsilon=[0.5, 2.0], seed=range(9))
    for seed in range(9):
        assert made.seconds({"epsilon": 2.0, "width": 4, "seed": seed}) == 2.0 * 4 * 2
    assert made.seconds({"epsilon": 0.5, "width": 4, "seed": 0}) == 0.5 * 4 * 2
    assert ASKED == [4, 4]


def test_the_spread_of_a_name_is_that_of_the_steps_it_changes():
    made = costs(SGD, [2.0], epsilon=[0.01, 0.08], step_size=[1e-3, 2e-3], eta=[0.1, 0.4])
    assert made.spread("epsilon") == pytest.approx(8.0)
    assert made.spread("step_size") == pytest.approx(2.0)
    assert made.spread("eta") == made.spread("seed") == made.spread("width") == 1.0
    assert costs(tts.LimitFlow(), eta=[0.1, 0.2]).spread("eta") == 1.0
