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
