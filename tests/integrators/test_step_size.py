"""The size of the next step, by rules worked out by hand, and the first one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_systems import any_system

from tts_jax.integrators.step_size import all_finite, resized

H = jnp.asarray(0.5)


def next_size(error, last=1.0, accepted=True):
    return float(resized(H, jnp.asarray(error), jnp.asarray(last), jnp.asarray(accepted)))


def test_an_error_as_large_as_allowed_keeps_the_size_but_for_the_safety_factor():
    assert next_size(1.0) == 0.5 * 0.85


def test_an_error_of_the_fifth_power_shrinks_or_grows_by_its_root():
    np.testing.assert_allclose(next_size(0.5**5), 0.5 * 0.85 / 0.5, rtol=1e-12)
    np.testing.assert_allclose(next_size(2.0**5, accepted=False), 0.5 * 0.85 / 2, rtol=1e-12)


def test_after_a_small_error_a_step_grows_more_carefully_but_not_after_a_rejection():
    assert next_size(0.1, last=1e-3) < next_size(0.1, last=1.0)
    assert next_size(10.0, last=1e-3, accepted=False) == next_size(10.0, accepted=False)


@pytest.mark.parametrize(
    ("error", "accepted", "factor"),
    [(1e-6, True, 6.0), (1e6, False, 0.1), (1.0 + 1e-12, False, 0.85)],
)
def test_a_step_neither_explodes_nor_vanishes(error, accepted, factor):
    np.testing.assert_allclose(next_size(error, accepted=accepted), 0.5 * factor, rtol=1e-9)


@pytest.mark.parametrize("rate", [1.0, 1e4])
def test_the_first_step_is_no_longer_than_the_time_scale_of_the_start(rate):
    rtol, atol = jnp.asarray(1e-6), jnp.asarray(1e-9)
    system = any_system(lambda y, rate: -rate * y, rate, masses=np.ones(2))
    h, velocity = jax.jit(lambda s: s.first_step(jnp.ones(2), rtol, atol))(system)
    np.testing.assert_allclose(velocity, -rate * np.ones(2))
    assert 1e-2 / rate < h <= 1.0 / rate


def test_a_number_that_is_none_is_found_anywhere_in_a_tree():
    assert all_finite({"a": jnp.ones(3), "b": (jnp.zeros(()),)})
    assert not all_finite({"a": jnp.ones(3), "b": (jnp.asarray(jnp.inf),)})
    assert not all_finite({"a": jnp.asarray([0.0, jnp.nan]), "b": (jnp.zeros(()),)})
