"""The system of a flow with rates: its solves, also where rates are 0 and epsilon is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import tts_jax as tts
from tts_jax.closed_forms.gradient_system import AbstractGradientSystem
from tts_jax.dynamics.rated_system import RatedSystem, takes_rates

# A quadratic risk, whose matrices are known: of one weight, and of a pair of positions.
HESSIAN = np.asarray([[3.0, 1.0, 0.5], [1.0, 2.0, -0.4], [0.5, -0.4, 1.5]])
Y = tts.Params(jnp.asarray([0.3]), {"b": jnp.asarray(0.1), "w": jnp.asarray([-0.7])})
RATES = {"b": jnp.asarray(0.0), "w": jnp.asarray([0.2])}
FLAT_RATES = np.asarray([1.0, 0.0, 0.2])


class Quadratic(AbstractGradientSystem):
    epsilon: jax.Array
    ridge: float = 0.0

    def gradient(self, params):
        flat, unravel = ravel_pytree(params)
        return unravel(jnp.asarray(HESSIAN) @ flat)

    def hessian(self, params):
        return jnp.asarray(HESSIAN)

    def damping(self, params):
        return jnp.full_like(params.a, self.ridge)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def test_rates_multiply_the_vector_field_of_u_and_leave_the_mass():
    system = RatedSystem(Quadratic(jnp.asarray(0.01)), RATES)
    expected = -FLAT_RATES * (HESSIAN @ flat(Y))
    np.testing.assert_allclose(flat(system.vector_field(Y)), expected, rtol=1e-14)
    masses = np.asarray([0.01, 1.0, 1.0])
    np.testing.assert_allclose(flat(system.velocity(Y)), expected / masses, rtol=1e-14)
    np.testing.assert_allclose(flat(system.apply_mass(Y)), masses * flat(Y))


@pytest.mark.parametrize(("epsilon", "ridge"), [(0.01, 0.0), (0.0, 0.3)])
def test_a_solve_is_that_with_the_hessian_times_the_rates(epsilon, ridge):
    """And so are its derivatives, forward and in reverse, also by a rate of 0."""
    shift = 7.0
    added = np.asarray([shift * epsilon + ridge, shift, shift])

    def solution(right, rates):
        system = RatedSystem(Quadratic(jnp.asarray(epsilon), ridge), rates)
        return system.factorise(Y, jnp.asarray(shift))(right)

    def by_lapack(right, rates):
        flat_rates = ravel_pytree(tts.Params(jnp.ones(1), rates))[0]
        matrix = flat_rates[:, None] * jnp.asarray(HESSIAN) + jnp.diag(jnp.asarray(added))
        return ravel_pytree(right)[1](jnp.linalg.solve(matrix, ravel_pytree(right)[0]))

    at, towards = (Y, RATES), (jax.tree.map(jnp.cos, Y), {"b": jnp.asarray(0.7), "w": -jnp.ones(1)})
    for found, expected in zip(
        (*jax.jvp(solution, at, towards), jax.vjp(solution, *at)[1](towards[0])),
        (*jax.jvp(by_lapack, at, towards), jax.vjp(by_lapack, *at)[1](towards[0])),
        strict=True,
    ):
        np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-11)


def test_errors_are_those_of_u():
    plain = Quadratic(jnp.asarray(0.01))
    error = jax.tree.map(lambda leaf: jnp.full_like(leaf, 2e-3), Y)
    given = (error, Y, Y, jnp.asarray(1e-3), jnp.asarray(1e-6))
    assert RatedSystem(plain, RATES).error_norm(*given) == plain.error_norm(*given)


def test_forms_with_a_hessian_in_the_open_take_rates(problem):
    network = tts.TwoLayerNetwork(tts.Tanh())
    sample = tts.EmpiricalProblem(network, np.ones((4, 2)), np.ones(4))
    assert takes_rates(sample.closed_form(3))
    assert not takes_rates(problem.closed_form(60))
    assert takes_rates(problem.closed_form(60).with_hessian())
