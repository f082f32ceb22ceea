"""What every system with a dense Hessian does with the damping that a ridge adds."""

import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.closed_forms.gradient_system import fast_velocity

MATRIX = np.asarray([[2.0, 0.5], [0.5, 1.0]])
PARAMS = tts.Params(jnp.asarray([0.4]), jnp.asarray([-0.3]))


class Damped(tts.AbstractGradientSystem):
    """v MATRIX v / 2, with a damping of 10 for the one outer weight."""

    epsilon: jnp.ndarray

    def gradient(self, params):
        by = jnp.asarray(MATRIX) @ jnp.concatenate(params)
        return tts.Params(by[:1], by[1:])

    def hessian(self, params):
        return jnp.asarray(MATRIX)

    def damping(self, params):
        return jnp.full_like(params.a, 10.0)


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_damping_pulls_the_outer_layer_alone_and_stands_in_the_matrix(epsilon):
    system = Damped(epsilon=jnp.asarray(epsilon))
    damped = MATRIX + np.diag([10.0, 0.0])
    field = np.concatenate(system.vector_field(PARAMS))
    np.testing.assert_allclose(field, -damped @ np.concatenate(PARAMS), rtol=1e-13)
    shift = 3.0
    solve = system.factorise(PARAMS, jnp.asarray(shift))
    expected = np.linalg.solve(damped + shift * np.diag([epsilon, 1.0]), np.concatenate(PARAMS))
    np.testing.assert_allclose(np.concatenate(solve(PARAMS)), expected, rtol=1e-12)


def test_without_a_mass_there_is_no_velocity_and_no_division_by_zero():
    field = jnp.asarray([3.0, -1.0])
    np.testing.assert_array_equal(fast_velocity(field, jnp.zeros(())), [0.0, 0.0])
    np.testing.assert_allclose(fast_velocity(field, jnp.asarray(0.5)), [6.0, -2.0])
