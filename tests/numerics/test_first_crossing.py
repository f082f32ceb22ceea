"""First crossings against functions whose roots are known, and SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from tts_jax.numerics.first_crossing import bracketed_root, first_crossings

FUNCTIONS = {
    "a line": (lambda t: 0.3 - t, 0.3),
    "a root at the end": (lambda t: 1.0 - t, 1.0),
    "a fast transient": (lambda t: 2.0 * jnp.exp(-1e3 * t) - 1.0, 1e-3 * np.log(2.0)),
    "there and back": (lambda t: (t - 0.37) ** 2 - 1e-8, 0.37 - 1e-4),
    "a kink, there and back": (lambda t: jnp.abs(t - 0.63) - 1e-3, 0.63 - 1e-3),
    "a step": (lambda t: jnp.where(t < 0.2, 1.0, -1.0), 0.2),
    "the first of many": (lambda t: jnp.cos(40.0 * t), np.pi / 80.0),
    "far away": (lambda t: 1.0 + t, np.inf),
    "nearly": (lambda t: (t - 0.37) ** 2 + 1e-10, np.inf),
    "as good as zero": (lambda t: 1e-18 * (1.0 + 0.1 * jnp.cos(1e5 * t)), np.inf),
    "not a number": (lambda t: jnp.log(0.5 - t) + 10.0, np.nan),
}


@jax.jit
def found(pending):
    return first_crossings(lambda t: jnp.stack([f(t) for f, _ in FUNCTIONS.values()]), pending)


def test_functions_side_by_side_cross_where_their_first_roots_are():
    places = found(jnp.ones(len(FUNCTIONS), bool))
    expected = [root for _, root in FUNCTIONS.values()]
    np.testing.assert_allclose(places, expected, atol=1e-12)


def test_what_is_not_asked_for_is_not_found():
    asked = np.zeros(len(FUNCTIONS), bool)
    asked[0] = True
    np.testing.assert_allclose(found(jnp.asarray(asked)), np.where(asked, 0.3, np.inf))


@pytest.mark.parametrize("power", [1, 3, 9])
def test_a_root_in_a_bracket_is_that_of_scipy(power):
    """Flat roots too, at which interpolation cannot be trusted."""

    def function(t):
        return (0.7312 - t) ** power + 0.1 * (0.7312 - t)

    seen = bracketed_root(function, jnp.asarray(0.1), jnp.asarray(1.0))
    assert float(seen) == pytest.approx(brentq(function, 0.1, 1.0, xtol=1e-15), abs=1e-14)
