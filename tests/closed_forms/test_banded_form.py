"""What the banded form alone knows: that a run stopped because its neurons were too many at once.

What it shares with the form by pairs is held in test_pairwise_form.py.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import small_problem

import tts_jax as tts
from tts_jax.closed_forms.banded_form import BandedForm
from tts_jax.closed_forms.pairwise import PairwiseRisk

PROBLEM = small_problem()
FORM = BandedForm(PairwiseRisk(PROBLEM.network.activation, PROBLEM.target), 8)


@pytest.mark.parametrize(
    ("status", "spread", "expected"),
    [
        ("STAGNATION", 1e-4, "CROWDED"),
        ("NON_FINITE", 1e-4, "CROWDED"),
        ("STAGNATION", 0.1, "STAGNATION"),
        ("MAX_STEPS", 1e-4, "MAX_STEPS"),
        ("OK", 1e-4, "OK"),
    ],
)
def test_a_run_that_stopped_in_a_crowd_is_told_so(monkeypatch, status, spread, expected):
    monkeypatch.setattr("tts_jax.closed_forms.banded_system._BANDWIDTHS", (2,))
    u = jnp.asarray(0.1 + spread * np.arange(8))
    end, _ = FORM.to_state(tts.Params(jnp.ones(9), u))
    found = FORM.failure(jnp.asarray(tts.Status[status], jnp.int32), end)
    assert found.dtype == jnp.int32
    assert tts.Status(int(found)).name == expected


def limit_of(u, eta=0.08, width=None):
    form = BandedForm(PairwiseRisk(tts.CubicStep(eta), PROBLEM.target), width or len(u))
    return form.limit_for(tts.Params(jnp.zeros(len(u) + 1), jnp.asarray(u)))


def test_a_limit_holds_what_the_start_needs_and_neurons_outside_need_nothing():
    apart = np.linspace(0.0, 1.0, 100)  # 8 others are closer than eta, 10 than eta and a quarter
    assert limit_of(apart, eta=0.079) == 1  # 8 is too few: 16 is the next one
    assert limit_of(apart, eta=0.05) == 0
    assert limit_of(apart[::-1], eta=0.05) == 0  # in any order
    outside = np.concatenate([np.linspace(-3.0, -1.0, 300), apart, np.full(100, 2.0)])
    assert limit_of(outside, eta=0.05) == 0
    assert limit_of(np.full(40, 5.0)) == 0
    assert limit_of(np.full(100, 0.5)) == 3


def test_a_limited_form_compiles_one_bandwidth_and_ends_in_a_crowd_that_it_cannot_hold():
    form = BandedForm(PairwiseRisk(PROBLEM.network.activation, PROBLEM.target), 100)
    assert form.bandwidths == (8, 16, 32, 99)
    assert form.limited(1).bandwidths == (16,)
    assert form.limited(3).bandwidths == (99,)
    assert form.limited(1).limited(None) == form
    end, _ = form.to_state(tts.Params(jnp.ones(101), jnp.full(100, 0.5)))
    for limit, expected in ((0, "CROWDED"), (None, "MAX_STEPS")):
        status = jnp.asarray(tts.Status.MAX_STEPS, jnp.int32)
        found = form.limited(limit).failure(status, end)
        assert tts.Status(int(found)).name == expected
