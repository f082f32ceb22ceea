"""The composite rule: exact degrees, degenerate cells, derivatives by the cuts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_jax.numerics.quadrature import SMOOTH_POINTS, cell_rule, gauss_legendre, points_per_cell


@pytest.mark.parametrize("points", [1, 2, 4, 10])
def test_gauss_legendre_is_exact_to_twice_its_order_and_no_further(points):
    nodes, weights = gauss_legendre(points)
    for degree in range(2 * points):
        np.testing.assert_allclose(weights @ nodes**degree, 1 / (degree + 1), rtol=1e-14)
    assert abs(weights @ nodes ** (2 * points) - 1 / (2 * points + 1)) > 1e-14


@pytest.mark.parametrize(("degrees", "square"), [((3, 0), 6), ((1, 0), 2), ((0,), 0), ((2, 5), 10)])
def test_points_per_cell_suffice_for_the_square_and_are_the_fewest(degrees, square):
    points = points_per_cell(*degrees)
    assert 2 * points - 1 >= square > 2 * (points - 1) - 1


def test_points_per_cell_without_a_degree():
    assert points_per_cell(3, None) == points_per_cell(None, 0) == SMOOTH_POINTS


rule = jax.jit(lambda cuts: cell_rule(cuts, 2))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(st.floats(-1, 2, allow_subnormal=False), st.sampled_from([0.0, 0.5, 1.0])),
        min_size=6,
        max_size=6,
    )
)
def test_the_cells_cover_the_interval_and_meet_at_the_cuts(cuts):
    nodes, weights, lower = map(np.asarray, rule(jnp.asarray(cuts)))
    assert nodes.shape == weights.shape == (7, 2)
    np.testing.assert_array_equal(lower, [0.0, *np.sort(np.clip(cuts, 0, 1))])
    np.testing.assert_allclose(np.sum(weights, 1), np.diff([*lower, 1.0]), atol=1e-16)
    assert np.all(nodes >= lower[:, None])
    assert np.all(nodes <= np.append(lower[1:], 1.0)[:, None])
    # |x - c| for a cut c is integrated exactly.
    for cut in np.clip(cuts, 0, 1):
        np.testing.assert_allclose(
            np.sum(weights * np.abs(nodes - cut)), (cut**2 + (1 - cut) ** 2) / 2, rtol=1e-14
        )


def test_the_derivative_by_a_cut_is_the_jump_of_the_integrand_there():
    """Of two cuts that coincide, the first ends the lower cell and sees both sides."""
    levels = jnp.asarray([2.0, 5.0])

    def integral(cuts):
        nodes, weights, lower = cell_rule(cuts, 3)
        values = jnp.where(lower >= 0.4, levels[1], levels[0])
        return jnp.sum(weights * values[:, None] * jnp.ones_like(nodes))

    for cuts in ([0.4, 0.4], [0.4, 0.7], [0.4, 0.1], [0.4, 1.5]):
        np.testing.assert_allclose(jax.grad(integral)(jnp.asarray(cuts)), [-3.0, 0.0], atol=1e-15)
