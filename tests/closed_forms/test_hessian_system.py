"""What a system shows of the matrix of a solver's step is what it solves with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from quick_programs import quickly
from small_problems import random_problem

import tts_jax as tts
from tts_jax.closed_forms.hessian_system import AbstractHessianSystem
from tts_jax.closed_forms.pairwise_form import PairwiseForm


def pairwise():
    return random_problem(3)


def two_layers():
    network = tts.TwoLayerNetwork(tts.Tanh())
    x = jax.random.normal(jax.random.key(0), (5, 2))
    start = tts.init_two_layer(jax.random.key(1), network, 2, 3, outer_scale=1.0)
    return tts.EmpiricalProblem(network, x, x[:, 0]), start


@pytest.mark.parametrize("made", [pairwise, two_layers])
def test_a_solve_is_that_with_the_hessian_and_the_diagonal(made):
    problem, params = made()
    form = problem.closed_form(problem.width(params)).with_hessian()
    y, _ = form.to_state(params)
    flat, whole = ravel_pytree(y)
    right, shift = jnp.sin(jnp.arange(1.0, flat.size + 1)), jnp.asarray(50.0)

    @quickly
    def matrix_and_solution(epsilon):
        system = form.system(epsilon, jnp.asarray(1e-2))
        assert isinstance(system, AbstractHessianSystem)
        matrix = system.hessian(y) + jnp.diag(system.diagonal(y, shift))
        return matrix, ravel_pytree(system.factorise(y, shift)(whole(right)))[0]

    for epsilon in (0.03, 0.0):
        matrix, found = matrix_and_solution(jnp.asarray(epsilon))
        np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found, np.linalg.solve(matrix, right), rtol=1e-9, atol=1e-11)


def test_a_banded_form_leads_to_the_one_of_all_pairs(problem):
    form = problem.closed_form(60)
    found = form.with_hessian()
    assert isinstance(found, PairwiseForm)
    assert found.risk is form.risk
