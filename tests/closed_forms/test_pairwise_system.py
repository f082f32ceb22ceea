"""The system by all pairs against automatic differentiation of the quadrature's risk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from small_problems import random_problem

import tts_jax as tts
from tts_jax.closed_forms.pairwise import params_of, state_of

EPSILON, RIDGE, SHIFT = 0.03, 1e-3, 50.0


def pieces(ridge):
    """The system, its state, and the risk with the ridge's term as a function of all numbers."""
    problem, params = random_problem(3)
    form = problem.closed_form(problem.width(params))
    system = form.system(jnp.asarray(EPSILON), jnp.asarray(ridge))
    flat, whole = ravel_pytree(params)
    squares = jnp.concatenate([jnp.ones(1), system.risk.squares(params.u)])

    def risk(flat):
        # What the ridge adds is not differentiated by u.
        a = whole(flat).a.at[0].add(-jnp.asarray(problem.target.values)[0])
        return problem.risk(whole(flat)) + ridge * jnp.sum(squares * a**2)

    return system, params, flat, risk


@pytest.mark.parametrize("ridge", [0.0, RIDGE])
def test_the_vector_field_is_minus_the_gradient(ridge):
    system, params, flat, risk = pieces(ridge)
    found = ravel_pytree(params_of(system.vector_field(state_of(params))))[0]
    np.testing.assert_allclose(found, -jax.grad(risk)(flat), rtol=1e-10, atol=1e-10)


@pytest.mark.thorough
@pytest.mark.parametrize("ridge", [0.0, RIDGE])
def test_a_solve_is_that_with_the_hessian_and_the_mass(ridge):
    system, params, flat, risk = pieces(ridge)
    masses = ravel_pytree(tts.Params(jnp.full_like(params.a, EPSILON), jnp.ones_like(params.u)))[0]
    matrix = SHIFT * jnp.diag(masses) + jax.jit(jax.hessian(risk))(flat)
    right = jnp.sin(jnp.linspace(1.0, 9.0, flat.size))
    _, whole = ravel_pytree(params)
    solve = system.factorise(state_of(params), jnp.asarray(SHIFT))
    found = ravel_pytree(params_of(solve(state_of(whole(right)))))[0]
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-8, atol=1e-10)


def test_without_a_mass_the_outer_layer_has_no_velocity_of_its_own():
    problem, params = random_problem(3)
    form = problem.closed_form(problem.width(params))
    system = form.system(jnp.zeros(()), jnp.asarray(RIDGE))
    velocity = system.velocity(state_of(params))
    assert not np.any(velocity.a)
    assert velocity.bias == 0.0
    by_u = -jax.grad(lambda u: problem.risk(tts.Params(params.a, u)))(params.u)
    np.testing.assert_allclose(velocity.u, by_u, rtol=1e-10, atol=1e-10)
