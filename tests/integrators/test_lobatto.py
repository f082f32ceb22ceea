"""The Lobatto nodes and their integrals against those of NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.integrators import lobatto


def test_the_nodes_are_those_of_lobatto():
    """The ends, and the zeros of the derivative of the Legendre polynomial of degree 4."""
    zeros = np.polynomial.legendre.Legendre.basis(4).deriv().roots()
    np.testing.assert_allclose(2 * lobatto.NODES - 1, [-1, *np.sort(zeros), 1], atol=1e-14)


@pytest.mark.parametrize("degree", range(5))
def test_a_polynomial_of_degree_4_is_known_by_its_values_at_the_nodes(degree):
    values = lobatto.NODES**degree
    at = np.asarray([-0.3, 0.0, 0.2, 1.0, 1.7])
    found = np.asarray(lobatto.lagrange_at(jnp.asarray(at))) @ values
    np.testing.assert_allclose(found, at**degree, atol=1e-12)
    ends = lobatto.NODES ** (degree + 1) / (degree + 1)
    np.testing.assert_allclose(lobatto.INTEGRALS @ values, ends, atol=1e-14)
    middle = 0.5 ** (degree + 1) / (degree + 1)
    np.testing.assert_allclose(lobatto.TO_MIDDLE @ values, middle, atol=1e-14)
    found = lobatto.integrals_to(jnp.asarray(0.3)) @ values
    np.testing.assert_allclose(found, 0.3 ** (degree + 1) / (degree + 1), atol=1e-14)


def test_the_quadrature_is_exact_to_degree_7_and_without_the_first_node_to_degree_3():
    for degree in range(8):
        found = lobatto.INTEGRALS[-1] @ lobatto.NODES**degree
        np.testing.assert_allclose(found, 1 / (degree + 1), atol=1e-14)
    assert lobatto.WITHOUT_FIRST[0] == 0
    for degree in range(4):
        found = lobatto.WITHOUT_FIRST @ lobatto.NODES**degree
        np.testing.assert_allclose(found, 1 / (degree + 1), atol=1e-14)


def test_a_cubic_is_known_at_the_first_node_by_the_other_four():
    for degree in range(4):
        found = lobatto.BEFORE_OTHERS @ lobatto.NODES[1:] ** degree
        np.testing.assert_allclose(found, 0.0**degree, atol=1e-13)
