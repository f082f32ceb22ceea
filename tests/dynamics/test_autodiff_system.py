"""The system of any risk: its solves are those with the Hessian and the mass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.dynamics.autodiff_system import AutodiffGradientSystem

# A quadratic risk, so that its matrices are known: by one weight, a pair of positions.
MATRIX = np.asarray([[3.0, 1.0, 0.5], [1.0, 2.0, -0.4], [0.5, -0.4, 1.5]])
PARAMS = tts.Params({"w": jnp.asarray([0.3])}, [jnp.asarray(0.1), jnp.asarray([-0.7])])
EPSILON = 0.01


class Quadratic(tts.AbstractProblem):
    """v MATRIX v, for the numbers v of any pytrees."""

    def risk(self, params):
        v = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(params)])
        return v @ jnp.asarray(MATRIX) @ v


SYSTEM = AutodiffGradientSystem(problem=Quadratic(), epsilon=jnp.asarray(EPSILON))


def numbers(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_the_vector_field_is_minus_the_gradient_and_the_velocity_divides_by_the_mass():
    expected = -2 * MATRIX @ numbers(PARAMS)
    np.testing.assert_allclose(numbers(SYSTEM.vector_field(PARAMS)), expected, rtol=1e-13)
    masses = np.asarray([EPSILON, 1.0, 1.0])
    np.testing.assert_allclose(numbers(SYSTEM.velocity(PARAMS)), expected / masses, rtol=1e-13)
    np.testing.assert_allclose(numbers(SYSTEM.apply_mass(PARAMS)), masses * numbers(PARAMS))


@pytest.mark.thorough
def test_a_solve_is_that_with_the_hessian_and_the_mass():
    shift = 7.0
    matrix = 2 * MATRIX + shift * np.diag([EPSILON, 1.0, 1.0])
    solve = SYSTEM.factorise(PARAMS, jnp.asarray(shift))
    expected = np.linalg.solve(matrix, numbers(PARAMS))
    np.testing.assert_allclose(numbers(solve(PARAMS)), expected, rtol=1e-12)


def test_an_error_is_measured_by_the_root_of_its_mean_square():
    error = jax.tree.map(lambda leaf: jnp.full_like(leaf, 2e-3), PARAMS)
    still = jax.tree.map(jnp.zeros_like, PARAMS)
    found = SYSTEM.error_norm(error, still, still, jnp.asarray(0.0), jnp.asarray(1e-3))
    np.testing.assert_allclose(found, 2.0)
