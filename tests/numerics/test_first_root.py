"""First roots against polynomials whose roots are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_jax.numerics.first_root import bernstein_minimum, first_root

find = jax.jit(first_root)


def with_roots(*roots):
    """The coefficients of a polynomial of degree 4 with given roots, positive below the first."""
    padded = [*roots, *[5.0] * (4 - len(roots))]
    coefficients = np.polynomial.polynomial.polyfromroots(padded)
    return jnp.asarray(coefficients * np.sign(coefficients[0] or 1.0))


@pytest.mark.parametrize(
    "roots",
    [(0.3,), (0.5, 0.5001), (0.2, 0.7), (0.9999, 1.0), (0.1, 0.11, 0.9), (0.2, 0.4, 0.6, 0.8)],
)
def test_the_first_root_is_found_however_close_the_next_one_is(roots):
    assert float(find(with_roots(*roots))) == pytest.approx(roots[0], abs=1e-9)


def test_there_is_none_outside_the_interval():
    for roots in ((1.2, 3.0), (-0.5, -0.1), ()):
        assert float(find(with_roots(*roots))) == np.inf


def test_at_most_zero_at_the_start_is_a_root_there():
    assert float(find(jnp.asarray([0.0, 1.0, 0.0, 0.0, 0.0]))) == 0.0
    assert float(find(jnp.asarray([-1.0, 0.0, 0.0, 0.0, 0.0]))) == 0.0


@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=5, max_size=5))
@settings(max_examples=200, deadline=None)
def test_it_is_where_a_fine_grid_first_sees_it(coefficients):
    t = np.linspace(0.0, 1.0, 20_001)
    values = np.polynomial.polynomial.polyval(t, coefficients)
    found = float(find(jnp.asarray(coefficients)))
    below = np.flatnonzero(values <= 0)
    seen = t[below[0]] if below.size else np.inf
    assert found <= seen + 1e-12
    if np.isfinite(found):
        assert abs(np.polynomial.polynomial.polyval(found, coefficients)) < 1e-12 or found == 0.0
        assert np.all(values[t < found - 1e-9] > -1e-12)


@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=5, max_size=5))
@settings(max_examples=100, deadline=None)
def test_the_bernstein_minimum_is_a_lower_bound(coefficients):
    values = np.polynomial.polynomial.polyval(np.linspace(0, 1, 101), coefficients)
    bound = float(jax.jit(bernstein_minimum)(jnp.asarray(coefficients)))
    assert bound <= np.min(values) + 1e-14
    assert bound >= np.min(values) - 20 * np.max(np.abs(coefficients))
