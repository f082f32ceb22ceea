"""Recorded risks against `problem.risk`, and against the same network without what cancels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick_programs import quickly

import tts_jax as tts
from tts_jax.batching.gathered_cond import gathered_cond
from tts_jax.closed_forms.banded_form import BandedForm
from tts_jax.closed_forms.pairwise import PairwiseRisk
from tts_jax.closed_forms.pairwise_form import PairwiseForm
from tts_jax.problems.recorded_risks import PRECISION, recorded_risks

NETWORK = tts.ShallowNetwork(tts.CubicStep(eta=0.05))
LARGE = (1e4, 1e6, 1e8)
FORMS = {"pairs": PairwiseForm, "banded": lambda risk: BandedForm(risk, 3)}


def problem_of(offset=0.0):
    return tts.Problem(NETWORK, tts.PiecewiseConstant([0.4], [offset, offset + 1.0]))


def params_of(a, u):
    return tts.Params(jnp.asarray(a), jnp.asarray(u))


def cancelling(c):
    """Problems and parameters in which weights of the size c cancel."""
    return {
        "right of 1": (problem_of(), params_of([0.0, 1.0, c, 0.0], [0.45, 1.2, 0.2])),
        "left of 0": (problem_of(), params_of([-c, 1.0, c, 0.0], [0.45, -0.3, 0.2])),
        "both": (problem_of(), params_of([c, 1.0, -c, c], [0.45, -0.3, 1.1])),
        "twins": (problem_of(), params_of([0.0, c + 1.0, -c, 0.0], [0.45, 0.45, 0.2])),
        "labels with an offset": (problem_of(c), params_of([c, 1.0, 0.0, 0.0], [0.45, 1.2, 0.2])),
    }


SAME = params_of([0.0, 1.0, 0.0, 0.0], [0.45, 1.2, 0.2])
"""What every one of them is, less the offset: one neuron."""

by_record = {
    name: jax.jit(
        lambda p, y, f=form: recorded_risks(p, y, f(PairwiseRisk(NETWORK.activation, p.target)))
    )
    for name, form in FORMS.items()
}


def one_record(way, problem, params):
    return float(by_record[way](problem, jax.tree.map(lambda leaf: leaf[None], params))[0])


@pytest.mark.parametrize("way", FORMS)
@pytest.mark.parametrize("c", LARGE)
@pytest.mark.parametrize("name", cancelling(1.0))
def test_a_recorded_risk_is_the_problems_where_large_weights_cancel(way, name, c):
    problem, params = cancelling(c)[name]
    recorded = one_record(way, problem, params)
    assert recorded == pytest.approx(float(problem.risk(params)), rel=PRECISION)
    # Up to the rounding of the network itself, a sum of numbers of the size c.
    assert recorded == pytest.approx(float(problem_of().risk(SAME)), rel=1e-9 + 4e-16 * c)


@pytest.mark.parametrize("way", FORMS)
def test_the_closed_form_alone_loses_digits(way):
    """So that the tests see something."""
    problem = problem_of()
    params = params_of([0.3, 1.1e7, -2.2e7, 1.1e7 + 1.0], [0.45, 0.45, 0.45])
    form = FORMS[way](PairwiseRisk(NETWORK.activation, problem.target))
    known = form.risks(jax.tree.map(lambda leaf: leaf[None], params))[0]
    assert abs(known / problem.risk(params) - 1) > 5 * PRECISION
    assert one_record(way, problem, params) == pytest.approx(
        float(problem.risk(params)), rel=PRECISION
    )


sizes = st.sampled_from([1e-3, 1.0, 1e2, 1e4, 1e6, 1e8])
unit = st.floats(-1, 1, allow_subnormal=False)
numbers = st.tuples(sizes, st.lists(unit, min_size=4, max_size=4))
places = st.lists(st.floats(-0.3, 1.3, allow_subnormal=False), min_size=3, max_size=3)


@given(numbers, places, sizes, unit, st.booleans())
@settings(max_examples=60, deadline=None)
def test_they_agree_wherever_hypothesis_puts_weights_and_labels(weights, u, size, value, meet):
    problem = problem_of(size * value)
    a = weights[0] * np.asarray(weights[1])
    params = params_of(a, [u[0], u[0], u[2]] if meet else u)
    exact = float(problem.risk(params))
    for way in FORMS:
        assert one_record(way, problem, params) == pytest.approx(exact, rel=PRECISION, abs=1e-300)


def test_their_derivatives_are_those_of_the_problem():
    problem, params = cancelling(1e4)["right of 1"]

    def recorded(params):
        form = PairwiseForm(PairwiseRisk(NETWORK.activation, problem.target))
        return recorded_risks(problem, jax.tree.map(lambda leaf: leaf[None], params), form)[0]

    found, expected = quickly(lambda y: (jax.grad(recorded)(y), jax.grad(problem.risk)(y)))(params)
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-9)


def test_an_ordinary_run_records_in_closed_form_alone():
    """The problem's own risk takes far longer."""
    target = tts.PiecewiseConstant([0.2, 0.35, 0.5, 0.65, 0.8], [1.0, 5.0, 1.0, 3.0, 1.0, 5.0])
    problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=4e-3)), target)
    form, u = problem.closed_form(20), tts.init_uniform(jax.random.key(0), 20).u
    best = problem.best_outer(u)
    for a in (best, best + jax.random.normal(jax.random.key(1), best.shape)):
        several = tts.Params(a[None], u[None])
        assert form.rounding(several)[0] < 0.5 * PRECISION * form.risks(several)[0]


TAUS = np.linspace(0.0, 0.1, 4)
CASES = ("right of 1", "left of 0", "both", "labels with an offset")


@pytest.mark.parametrize("name", CASES)
def test_a_flow_does_not_depend_on_how_large_the_weights_are_that_cancel(name):
    flow = tts.GradientFlow(1e-2, rtol=1e-10, atol=1e-12)
    (problem, params), small_start = cancelling(1e7)[name], cancelling(1.0)[name]
    run, small = (
        tts.simulate(problem, flow, params, TAUS),
        tts.simulate(small_start[0], flow, small_start[1], TAUS),
    )
    np.testing.assert_allclose(run.risk, jax.vmap(problem.risk)(run.params), rtol=PRECISION)
    np.testing.assert_allclose(run.risk, small.risk, rtol=1e-7)
    np.testing.assert_allclose(run.params.u[:, 0], small.params.u[:, 0], atol=1e-8)
    assert int(run.stats["steps"]) == pytest.approx(int(small.stats["steps"]), rel=0.1)


def test_a_reduced_flow_does_not_depend_on_an_offset_of_the_labels():
    runs = [tts.simulate(problem_of(c), tts.ReducedFlow(), SAME, TAUS) for c in (0.0, 1e7)]
    np.testing.assert_allclose(runs[1].risk, runs[0].risk, rtol=1e-7)
    np.testing.assert_allclose(runs[1].params.u, runs[0].params.u, atol=1e-8)


def test_twins_of_a_flow_and_sgd_record_the_risk_of_the_problem():
    problem, params = cancelling(1e6)["twins"]
    flow, sgd = tts.GradientFlow(1e-2, rtol=1e-10, atol=1e-12), tts.SGD(1e-2, 1e-13)
    for dynamics, taus, key in (
        (flow, 1e-6 * TAUS, None),
        (sgd, 1e-13 * TAUS, jax.random.key(0)),
    ):
        run = tts.simulate(problem, dynamics, params, taus, key=key)
        expected = jax.vmap(problem.risk)(run.params)
        np.testing.assert_allclose(run.risk, expected, rtol=PRECISION)


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_a_wide_flow_does_not_depend_on_how_large_the_weights_are_that_cancel(name):
    def wide(params):
        more = np.linspace(0.02, 0.98, 46)
        return params_of(np.pad(params.a, (0, 46)), np.concatenate([params.u, more]))

    flow = tts.GradientFlow(1e-2, rtol=1e-10, atol=1e-12)
    run, small = (
        tts.simulate(problem, flow, wide(params), TAUS)
        for problem, params in (cancelling(1e7)[name], cancelling(1.0)[name])
    )
    assert run.solver == "Rodas5P, BandedForm"
    expected = jax.vmap(cancelling(1e7)[name][0].risk)(run.params)
    np.testing.assert_allclose(run.risk, expected, rtol=PRECISION)
    np.testing.assert_allclose(run.risk, small.risk, rtol=1e-7)


@pytest.mark.thorough
def test_a_flow_compiles_the_risk_of_the_problem_only_where_digits_are_lost(monkeypatch):
    seen = []

    def counted(*arguments):
        seen.append(arguments)
        return gathered_cond(*arguments)

    monkeypatch.setattr("tts_jax.problems.recorded_risks.gathered_cond", counted)
    flow, taus = tts.GradientFlow(1e-2), 1e-9 * np.linspace(0.0, 1.0, 7)
    problem, params = cancelling(1.0)["twins"]
    tts.simulate(problem, flow, params, taus)
    assert not seen
    lost = cancelling(1e7)["twins"][1]
    run = tts.simulate(problem, flow, lost, taus)
    assert seen
    np.testing.assert_allclose(run.risk, jax.vmap(problem.risk)(run.params), rtol=PRECISION)
    # Also where nothing that is given is traced, but the call is.
    inside = jax.jit(lambda: tts.simulate(problem, flow, lost, taus).risk)()
    np.testing.assert_allclose(inside, run.risk, rtol=PRECISION)
