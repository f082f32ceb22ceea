"""Sums over blocks of rows: the sum over all rows, its derivative, and its memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.numerics.products import product, summed_over_blocks

ROWS = (jnp.arange(21.0).reshape(7, 3), jnp.linspace(0.5, 1.0, 7))


def of_block(rows):
    x, weights = rows
    return {"gram": product(x.T, x * weights[:, None]), "sum": weights @ jnp.sin(x)}


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_it_is_the_sum_over_all_rows(size):
    found = summed_over_blocks(of_block, ROWS, size)
    for name, expected in of_block(ROWS).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-14)


@pytest.mark.parametrize("size", [2, 7])
def test_its_derivative_is_that_of_the_sum(size):
    def total(scale, size):
        rows = (scale * ROWS[0], ROWS[1])
        return jnp.sum(summed_over_blocks(of_block, rows, size)["sum"] ** 2)

    expected = jax.grad(total)(0.7, 7)
    assert float(jax.grad(total)(0.7, size)) == pytest.approx(float(expected), rel=1e-12)
