"""Solves with symmetric banded matrices against dense ones, in value and in derivative."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.numerics.banded import banded_solver

# Size and number of diagonals beside the main one: none, few, all of them, and more than there are.
SHAPES = [(1, 0), (6, 0), (1, 2), (2, 1), (7, 1), (9, 3), (5, 4), (5, 5), (4, 9), (40, 6), (91, 19)]
shapes = pytest.mark.parametrize(("size", "width"), SHAPES)
FEW = [(6, 0), (9, 3), (4, 6)]


def positive(size, width, seed=0):
    """L D L^T with ones on the diagonal of L, banded, and a positive D over four decades."""
    rng = np.random.default_rng(seed)
    lower = np.eye(size) + np.tril(rng.uniform(-1, 1, (size, size)), -1) / (width + 1)
    lower = np.triu(lower, -width)
    return (lower * 10.0 ** rng.uniform(-2, 2, size)) @ lower.T


def indefinite(size, width, seed=0):
    """Diagonally dominant, with pivots of both signs."""
    rng = np.random.default_rng(seed)
    band = np.triu(np.tril(rng.uniform(-1, 1, (size, size)), width))
    matrix = np.triu(band, 1) + np.triu(band, 1).T
    signs = np.where(np.arange(size) % 3 == 1, -1.0, 1.0)
    return matrix + np.diag(signs * (0.5 + np.abs(matrix).sum(axis=1)))


def rows_of(matrix, width, beyond=0.0):
    """(n, width + 1), with `beyond` in the entries that the matrix does not have."""
    size = matrix.shape[0]
    rows = np.full((size, width + 1), beyond)
    for offset in range(min(width + 1, size)):
        rows[: size - offset, offset] = np.diagonal(matrix, offset)
    return jnp.asarray(rows)


def dense(rows):
    size, count = rows.shape
    matrix = jnp.diag(rows[:, 0])
    for offset in range(1, min(count, size)):
        side = jnp.diag(rows[: size - offset, offset], offset)
        matrix = matrix + side + side.T
    return matrix


@jax.jit
def solve(rows, right):
    return banded_solver(rows)(right)


@jax.jit
def lapack(rows, right):
    return jnp.linalg.solve(dense(rows), right)


def assert_close(found, expected, digits=1e-11):
    largest = np.max(np.abs(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=digits * largest)


@pytest.mark.thorough
@shapes
@pytest.mark.parametrize("kind", [positive, indefinite])
def test_solutions_are_those_of_numpy(kind, size, width):
    for seed in range(3):
        matrix = kind(size, width, seed)
        right = np.random.default_rng(10 + seed).normal(size=size)
        found = solve(rows_of(matrix, width), jnp.asarray(right))
        assert_close(found, np.linalg.solve(matrix, right))


@shapes
@pytest.mark.parametrize("beyond", [1e3, np.nan])
def test_entries_beyond_the_last_column_are_not_looked_at(size, width, beyond):
    matrix, right = positive(size, width), jnp.arange(1.0, size + 1)
    found = solve(rows_of(matrix, width, beyond), right)
    np.testing.assert_array_equal(found, solve(rows_of(matrix, width), right))


def test_one_factorisation_serves_many_right_hand_sides():
    matrix = positive(9, 3)
    solve_one = banded_solver(rows_of(matrix, 3))
    found = np.stack([solve_one(jnp.asarray(column)) for column in np.eye(9)], axis=1)
    assert_close(found, np.linalg.inv(matrix))


@functools.partial(jax.jit, static_argnums=0)
def derivatives(function, at, direction, cotangent):
    """Along a direction, and in reverse by the rows and the right-hand side."""
    forward = jax.jvp(function, at, direction)[1]
    return forward, *jax.vjp(function, *at)[1](cotangent)


@pytest.mark.parametrize(("size", "width"), FEW)
@pytest.mark.parametrize("kind", [positive, indefinite])
def test_derivatives_are_those_of_the_dense_solve(kind, size, width):
    """The entries beyond the last column have none."""
    rng = np.random.default_rng(1)
    rows = rows_of(kind(size, width), width, beyond=np.nan)
    right, tangent, cotangent = (jnp.asarray(rng.normal(size=size)) for _ in range(3))
    move = jnp.asarray(rng.normal(size=rows.shape))
    both = [derivatives(f, (rows, right), (move, tangent), cotangent) for f in (solve, lapack)]
    for found, expected in zip(*both, strict=True):
        assert_close(found, expected)


def test_derivatives_of_many_solves_with_one_factorisation():
    """A sum over right-hand sides, one of them the solution of another."""
    rows, right = rows_of(positive(9, 3), 3), jnp.linspace(-1.0, 2.0, 9)

    def by_band(rows):
        solve_one = banded_solver(rows)
        return jnp.sum(solve_one(solve_one(right) + right) ** 2)

    def by_lapack(rows):
        return jnp.sum(lapack(rows, lapack(rows, right) + right) ** 2)

    assert_close(jax.jit(jax.grad(by_band))(rows), jax.grad(by_lapack)(rows))


def test_a_batch_of_solves_equals_one_by_one():
    rows = jnp.stack([rows_of(positive(9, 3, seed), 3) for seed in range(3)])
    rights = jnp.asarray(np.random.default_rng(2).normal(size=(3, 9)))
    batch = jax.jit(jax.vmap(solve))(rows, rights)
    for i in range(3):
        assert_close(batch[i], solve(rows[i], rights[i]), 1e-14)
    slopes, expected = (
        jax.jit(jax.vmap(jax.grad(lambda m, r, f=f: jnp.sum(f(m, r) ** 2), (0, 1))))(rows, rights)
        for f in (solve, lapack)
    )
    for found, wanted in zip(slopes, expected, strict=True):
        for i in range(3):
            assert_close(found[i], wanted[i])
