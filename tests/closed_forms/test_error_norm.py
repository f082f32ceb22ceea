"""How errors of weights and of positions count in a step: by rules worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.closed_forms.error_norm import position_error

ETA, RTOL, ATOL = 1e-2, 9e-7, 1e-7


def size(epsilon, weights, off, rtol=RTOL, atol=ATOL):
    """`weights` in units of what is allowed, and one position off by `off` units of eta."""
    error = jnp.asarray([0.0, -off * ETA])
    return position_error(ETA, jnp.asarray(epsilon), jnp.asarray(weights), error, rtol, atol)


@pytest.mark.parametrize(
    ("epsilon", "weight", "position"),
    [
        (0.0, 0.0, 1.0),  # weights only follow
        (1e-7, 0.1, 1.0),  # 1e-7 / (20 * 1e-4) is less than a tenth
        (1e-3, 0.5, 1.0),
        (2e-1, 10.0, 0.1),  # the ratio is 100, a square root each
        (1.0, np.sqrt(500.0), 1 / np.sqrt(500.0)),
        (1e3, np.sqrt(500.0), 1 / np.sqrt(500.0)),
    ],
)
def test_each_counts_by_its_mass(epsilon, weight, position):
    np.testing.assert_allclose(size(epsilon, 3.0, 0.0), 3.0 * weight, rtol=1e-12)
    np.testing.assert_allclose(size(epsilon, 0.0, 2e-6), 2.0 * position, rtol=1e-12)
    both = size(epsilon, 3.0, 2e-6)
    np.testing.assert_allclose(both, max(3.0 * weight, 2.0 * position), rtol=1e-12)


def test_no_step_is_wrong_by_more_than_a_tenth_of_a_transition():
    loose = size(1.0, 0.0, 0.2, rtol=1.0)
    np.testing.assert_allclose(loose, 2.0, rtol=1e-12)


def test_nan_counts():
    assert np.isnan(size(1e-3, np.nan, 0.0))
    assert np.isnan(size(1e-3, 0.0, np.nan))


@pytest.mark.thorough
def test_sharp_transitions_are_not_jumped_over():
    """At a loose tolerance a run of narrow steps ended elsewhere, and said that it was well."""
    u = np.sort(np.random.RandomState(42).uniform(size=20))
    start = tts.Params(jnp.zeros(21), jnp.asarray(u))
    target = tts.PiecewiseConstant([0.2, 0.35, 0.5, 0.65, 0.8], [1.0, 5.0, 1.0, 3.0, 1.0, 5.0])
    problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=1e-4)), target)

    @jax.jit
    def final(rtol):
        flow = tts.GradientFlow(1.0, rtol=rtol, atol=1e-2 * rtol)
        return tts.simulate(problem, flow, start, jnp.asarray([3.0])).risk[-1]

    np.testing.assert_allclose(final(1e-3), final(1e-8), rtol=1e-3)
