"""What flows choose by numbers: right inside other transformations, and tried again where wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import small_problem

import tts_jax as tts
from tts_jax.closed_forms import banded_system
from tts_jax.closed_forms.banded_form import BandedForm
from tts_jax.closed_forms.pairwise_form import PairwiseForm
from tts_jax.dynamics import first_try
from tts_jax.problems import population

WIDTH = 12
TAUS = np.asarray([0.0, 0.02])
FLOW = tts.GradientFlow(0.1, rtol=1e-6)


def close():
    """Neurons six of which overlap."""
    u = np.concatenate([np.linspace(0.4, 0.44, 6), np.linspace(0.7, 0.95, 6)])
    return tts.Params(jnp.full(WIDTH + 1, 0.1), jnp.asarray(u))


def forget():
    """What was compiled, and what was remembered, for the widths as they are."""
    jax.clear_caches()
    first_try._LIMITS.clear()


@pytest.fixture
def bands(monkeypatch):
    """Bands at a small width, and narrow ones."""
    monkeypatch.setattr(population, "_BANDED_FROM", WIDTH)
    monkeypatch.setattr(banded_system, "_BANDWIDTHS", (1, 2, 4, 8))
    forget()
    yield
    forget()


def simulated(**options):
    return tts.simulate(small_problem(eta=0.06), FLOW, close(), TAUS, **options)


@pytest.mark.thorough
def test_a_run_that_its_limit_cannot_hold_is_tried_again(bands, monkeypatch):
    whole = jax.jit(lambda params: tts.simulate(small_problem(eta=0.06), FLOW, params, TAUS))
    expected = whole(close())  # traced: without a limit
    assert expected.status == tts.Status.OK
    # As if the start were thought to need far less than it does.
    monkeypatch.setattr(BandedForm, "limit_for", lambda self, params: 0)
    for options in ({}, {"progress": lambda fraction: None}):
        first_try._LIMITS.clear()  # or it would not try in vain once more
        found = simulated(**options)
        assert found.status == tts.Status.OK
        np.testing.assert_allclose(found.risk, expected.risk, rtol=1e-9)
        assert first_try._LIMITS
    first_try._LIMITS.clear()
    monkeypatch.setattr(tts.GradientFlow, "again", lambda self, given, run: None)
    assert simulated(throw=False).status == tts.Status.CROWDED


ENDS = tts.Params(jnp.asarray([0.2, 1.0, 0.5, -0.4]), jnp.asarray([0.06, 0.5, 0.99]))
"""The last neuron is cut from the start on."""


@pytest.mark.thorough
def test_a_run_whose_steps_are_cut_against_expectation_is_tried_again(monkeypatch):
    problem, taus = small_problem(eta=0.05), np.linspace(0.0, 0.02, 5)
    expected = jax.jit(lambda params: tts.simulate(problem, FLOW, params, taus))(ENDS)
    first_try._LIMITS.clear()
    limits = []
    monkeypatch.setattr(PairwiseForm, "limit_for", lambda *_: limits.append(True) or True)
    for _ in range(2):
        found = tts.simulate(problem, FLOW, ENDS, taus)
        np.testing.assert_allclose(found.risk, expected.risk, rtol=1e-12)
        # That it was in vain is known for the next run of these shapes.
        assert list(first_try._LIMITS.values()) == [None]
    assert limits == [True]


def test_a_run_without_cut_steps_leaves_out_what_they_need():
    problem, taus = small_problem(eta=0.05), np.linspace(0.0, 0.02, 5)
    inside = ENDS._replace(u=jnp.asarray([0.06, 0.5, 0.9]))
    expected = jax.jit(lambda params: tts.simulate(problem, FLOW, params, taus))(inside)
    first_try._LIMITS.clear()
    found = tts.simulate(problem, FLOW, inside, taus)
    assert list(first_try._LIMITS.values()) == [True]
    np.testing.assert_allclose(found.risk, expected.risk, rtol=1e-12)
    assert found.stats["steps"] == expected.stats["steps"]
    # A start that is cut, of the same shapes, is noticed by the run.
    cut = jax.jit(lambda params: tts.simulate(problem, FLOW, params, taus))(ENDS)
    np.testing.assert_allclose(tts.simulate(problem, FLOW, ENDS, taus).risk, cut.risk, rtol=1e-12)
    assert list(first_try._LIMITS.values()) == [None]


@pytest.mark.thorough
@pytest.mark.parametrize("activation", [tts.CubicStep(0.06), tts.Tanh(0.06)])
def test_inside_another_transformation_known_numbers_choose_nothing(bands, activation):
    problem = tts.Problem(tts.ShallowNetwork(activation), small_problem().target)

    def status(key):
        return tts.simulate(problem, FLOW, close(), TAUS, key=key).status

    assert jax.eval_shape(status, jax.random.key(0)).shape == ()
