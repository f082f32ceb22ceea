"""What flows choose by numbers: right inside other transformations, and tried again where wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import small_problem

import tts_jax as tts
from tts_jax.closed_forms import banded_system
from tts_jax.closed_forms.banded_form import BandedForm
from tts_jax.dynamics import flow
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
    flow._WITHOUT_CHOICE.clear()


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
        flow._WITHOUT_CHOICE.clear()  # or it would not try in vain once more
        found = simulated(**options)
        assert found.status == tts.Status.OK
        np.testing.assert_allclose(found.risk, expected.risk, rtol=1e-9)
        assert flow._WITHOUT_CHOICE
    flow._WITHOUT_CHOICE.clear()
    monkeypatch.setattr(tts.GradientFlow, "again", lambda self, given, status: None)
    assert simulated(throw=False).status == tts.Status.CROWDED


@pytest.mark.thorough
@pytest.mark.parametrize("activation", [tts.CubicStep(0.06), tts.Tanh(0.06)])
def test_inside_another_transformation_known_numbers_choose_nothing(bands, activation):
    problem = tts.Problem(tts.ShallowNetwork(activation), small_problem().target)

    def status(key):
        return tts.simulate(problem, FLOW, close(), TAUS, key=key).status

    assert jax.eval_shape(status, jax.random.key(0)).shape == ()
