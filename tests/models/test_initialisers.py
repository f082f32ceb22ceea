"""The start of the paper."""

import jax
import jax.numpy as jnp
import numpy as np

import tts_jax as tts


def test_the_start_of_the_paper_is_sorted_uniform_with_no_outer_layer():
    start = tts.init_uniform(jax.random.key(0), 5000)
    assert start.a.shape == (5001,)
    assert start.u.dtype == start.a.dtype == jnp.float64
    np.testing.assert_array_equal(start.a, 0.0)
    assert np.all(np.diff(start.u) >= 0)
    # Kolmogorov-Smirnov: 1.95 / sqrt(5000) is passed once in a thousand.
    ranks = (np.arange(5000) + 0.5) / 5000
    assert np.max(np.abs(start.u - ranks)) < 1.95 / np.sqrt(5000)
    assert not np.array_equal(start.u, tts.init_uniform(jax.random.key(1), 5000).u)
