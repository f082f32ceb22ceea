"""Sums over the first axis, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.batching import summation

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("rows", [1, 2, 9, 10, 11, 37])
def test_a_sum_of_rows_is_the_sum(rows):
    values = jnp.asarray(RNG.normal(size=(rows, 5)))
    found = jax.jit(summation.sum_rows)(values)
    np.testing.assert_allclose(found, np.sum(values, axis=0), rtol=1e-13, atol=1e-14)
    pairs = summation.pairwise_sum(list(values))
    np.testing.assert_allclose(pairs, np.sum(values, axis=0), rtol=1e-13, atol=1e-14)


def test_its_derivative_is_one_for_every_row():
    values = jnp.asarray(RNG.normal(size=(23, 4)))
    weights = jnp.asarray(RNG.normal(size=4))
    slope = jax.grad(lambda v: weights @ summation.sum_rows(v))(values)
    np.testing.assert_array_equal(slope, np.broadcast_to(weights, (23, 4)))
