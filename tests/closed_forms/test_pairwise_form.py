"""Both closed forms of steps against steps answer what a flow asks, as the problem itself would."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import small_problem

import tts_jax as tts
from tts_jax.closed_forms.banded_form import BandedForm
from tts_jax.closed_forms.pairwise import PairwiseRisk
from tts_jax.closed_forms.pairwise_form import PairwiseForm

WIDTH, TIMES = 7, 3
PROBLEM = small_problem()
RISK = PairwiseRisk(PROBLEM.network.activation, PROBLEM.target)
FORMS = {"pairs": PairwiseForm(RISK), "bands": BandedForm(RISK, WIDTH)}


def several():
    """Parameters at some times, neurons in no order, cut and outside too."""
    rng = np.random.default_rng(1)
    u = rng.uniform(-0.2, 1.2, (TIMES, WIDTH))
    return tts.Params(jnp.asarray(rng.normal(size=(TIMES, WIDTH + 1))), jnp.asarray(u))


@pytest.mark.parametrize("name", FORMS)
def test_a_state_goes_back_to_its_parameters(name):
    form, params = FORMS[name], jax.tree.map(lambda leaf: leaf[0], several())
    state, kept = form.to_state(params)
    back = form.to_params(state, kept)
    np.testing.assert_allclose(back.a, params.a, atol=1e-14)
    np.testing.assert_array_equal(back.u, params.u)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    assert form.to_params(stacked, kept).u.shape == (2, WIDTH)


@pytest.mark.parametrize("name", FORMS)
def test_risks_are_those_of_the_problem(name):
    expected = jax.vmap(PROBLEM.risk)(several())
    np.testing.assert_allclose(FORMS[name].risks(several()), expected, rtol=1e-11)


def test_the_risk_of_a_crowd_is_that_by_all_pairs(monkeypatch):
    """More neurons overlap than the largest bandwidth holds."""
    monkeypatch.setattr("tts_jax.closed_forms.banded_system._BANDWIDTHS", (2,))
    crowd = np.full((TIMES, WIDTH), 0.4) + 1e-3 * np.arange(WIDTH)
    together = several()._replace(u=jnp.asarray(crowd))
    expected = jax.vmap(PROBLEM.risk)(together)
    np.testing.assert_allclose(FORMS["bands"].risks(together), expected, rtol=1e-11)


def test_the_problem_chooses_once_by_width():
    kinds = [type(PROBLEM.closed_form(width)) for width in (1, 20, 47, 48, 5000)]
    assert kinds == [PairwiseForm] * 3 + [BandedForm] * 2
    works = [PROBLEM.closed_form(width).relative_work(width) for width in (20, 40, 80, 160)]
    assert works[0] == 1.0
    assert np.all(np.diff(works) > 0)


@pytest.mark.parametrize(
    "problem",
    [
        tts.Problem(tts.ShallowNetwork(tts.Tanh(0.1)), PROBLEM.target),
        tts.Problem(tts.ShallowNetwork(tts.CubicStep(0.1), bias=False), PROBLEM.target),
        tts.Problem(tts.ShallowNetwork(tts.CubicStep(0.1)), tts.Function(jnp.sin)),
        small_problem(jumps=np.linspace(0.01, 0.99, 65), values=np.arange(66.0)),
    ],
)
def test_where_nothing_is_known_there_is_no_form(problem):
    assert problem.closed_form(20) is None


def test_a_problem_that_may_have_another_risk_has_no_form():
    class Other(tts.Problem):
        def risk(self, params):
            return 2 * super().risk(params)

    assert Other(PROBLEM.network, PROBLEM.target).closed_form(20) is None


def test_a_network_or_a_target_that_may_have_other_values_has_no_form():
    class Doubled(tts.ShallowNetwork):
        def __call__(self, params, x):
            return 2 * super().__call__(params, x)

    class Lifted(tts.PiecewiseConstant):
        def __call__(self, x):
            return 1 + super().__call__(x)

    doubled = tts.Problem(Doubled(tts.CubicStep(0.1)), PROBLEM.target)
    lifted = tts.Problem(PROBLEM.network, Lifted([0.5], [0.0, 1.0]))
    assert doubled.closed_form(20) is None
    assert lifted.closed_form(20) is None


@pytest.mark.parametrize(
    ("u", "expected"),
    [([0.5, 0.07], True), ([0.93, 0.5], True), ([0.05, 0.5], None), ([0.5, 1.3], None)],
)
def test_a_limit_is_for_starts_whose_steps_0_and_1_do_not_cut(u, expected):
    form = PairwiseForm(PairwiseRisk(tts.CubicStep(0.08), PROBLEM.target))
    assert form.limit_for(tts.Params(jnp.zeros(3), jnp.asarray(u))) is expected
    assert form.limited(expected).risk.uncut is bool(expected)


def test_a_limited_form_knows_no_risk_of_what_is_cut_and_says_where_a_run_left_it():
    form = FORMS["pairs"].limited(True)
    risks, inside = form.risks(several()), several()._replace(u=jnp.full((TIMES, WIDTH), 0.5))
    assert np.isnan(risks).all()
    np.testing.assert_allclose(form.risks(inside), FORMS["pairs"].risks(inside), rtol=1e-14)
    for u, status, expected in (
        (1.0 - 0.5 * float(RISK.eta), "STAGNATION", "CROWDED"),
        (1.0 - 0.5 * float(RISK.eta), "OK", "OK"),
        (0.5, "MAX_STEPS", "MAX_STEPS"),
    ):
        end, _ = form.to_state(tts.Params(jnp.ones(WIDTH + 1), jnp.full(WIDTH, u)))
        found = form.failure(jnp.asarray(tts.Status[status], jnp.int32), end)
        assert tts.Status(int(found)).name == expected
