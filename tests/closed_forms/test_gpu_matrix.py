"""The matrix of a step as the kernel makes it, column by column, is that of the system.

There are two hand-written Hessians of one risk, in `pairwise` and in `gpu_matrix`: this holds them
to each other, and tests/closed_forms/test_pairwise.py holds the first to automatic differentiation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import small_problem

from tts_jax.closed_forms import gpu_matrix as columns
from tts_jax.closed_forms.pairwise import PairwiseRisk, PairwiseState
from tts_jax.closed_forms.pairwise_system import PairwiseGradientSystem
from tts_jax.integrators.rosenbrock import GAMMA

PROBLEM = small_problem()
H = jnp.asarray(1e-2)
# In the middle, near each other and equal, cut by 0 or by 1, outside.
PLACES = [0.3, 0.31, 0.5, 0.5, 0.01, 0.02, 0.985, 1.3]


def sums_over_others(system, function, x, weights):
    """(m,) each: what `function` returns for a pair, added up over all neurons."""
    pairs = [function(system, x, x[j], weights[j]) for j in range(x.size)]
    return [sum(parts) for parts in zip(*pairs, strict=True)]


def cut_pairs(places):
    """Pairs of neurons that one end cuts: its sign, and both places from there."""
    for sign, from_end in ((1.0, places[0]), (-1.0, places[1])):
        near = [k for k in range(from_end.size) if from_end[k] < 0.5]
        for r in near:
            for c in near:
                yield sign, r, c, from_end[r], from_end[c]


def by_columns(system, y):
    """The whole matrix, from the functions that the kernel is written with."""
    width = y.u.size
    *places, weights = columns.positions_and_weights(system, *y)
    x, rest = places
    slopes, twice = sums_over_others(system, columns.slope_and_twice, x, weights)
    by_first, bends = np.zeros(width), np.zeros(width)
    for sign, r, c, p, q in cut_pairs(places):
        first, bend = columns.cut_slope_and_twice(system, p, q, weights[c], sign)
        by_first[r] += first
        bends[r] += bend
    edge, moving, lift, single, by_a, by_a_u, by_u = columns.neuron_terms(
        system, H, *y, slopes, twice, jnp.asarray(by_first), jnp.asarray(bends)
    )
    matrix = np.zeros((2 * width + 1, 2 * width + 1))
    matrix[:, 0] = edge
    for c in range(width):
        rows = columns.column_of_weight(system, x, moving, lift, single, x[c], rest[c], single[c])
        matrix[1:, 1 + c] = np.concatenate(rows)
        matrix[1 + c, 1 + c] += by_a[c]
        matrix[1 + width + c, 1 + c] += by_a_u[c]
        (rows,) = columns.column_of_position(system, x, moving, x[c], moving[c])
        matrix[1 + width :, 1 + width + c] = rows
        matrix[1 + width + c, 1 + width + c] += by_u[c]
    for sign, r, c, p, q in cut_pairs(places):
        weight, position = columns.cut_column_of_weight(system, p, q, moving[r], sign)
        matrix[1 + r, 1 + c] += weight
        matrix[1 + width + r, 1 + c] += position
        (both,) = columns.cut_column_of_position(system, p, q, moving[r], moving[c])
        matrix[1 + width + r, 1 + width + c] += both
    return np.tril(matrix) + np.tril(matrix, -1).T


@pytest.mark.thorough
@pytest.mark.parametrize("ridge", [pytest.param(0.0, marks=pytest.mark.thorough), 1e-3])
def test_the_columns_are_those_of_the_matrix_of_the_system(ridge):
    rng = np.random.default_rng(2)
    risk = PairwiseRisk(PROBLEM.network.activation, PROBLEM.target)
    system = PairwiseGradientSystem(risk, jnp.asarray(0.02), jnp.asarray(ridge))
    u = jnp.asarray(PLACES)
    y = PairwiseState(jnp.asarray(0.3), jnp.asarray(rng.normal(size=u.size)), u)
    solve = jax.jit(system.factorise(y, 1.0 / (GAMMA * H)))
    matrix = by_columns(system, y)
    for k in range(matrix.shape[0]):
        x = solve(PairwiseState(matrix[0, k], matrix[1 : 1 + u.size, k], matrix[1 + u.size :, k]))
        unit = np.concatenate([[x.bias], x.a, x.u])
        np.testing.assert_allclose(unit, np.eye(matrix.shape[0])[k], atol=1e-8)
