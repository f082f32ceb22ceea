"""Linear solves without LAPACK against NumPy, in value and in derivative."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.batching import devices as _device
from tts_jax.numerics.symmetric import LayeredMatrix, inverse, layered_solver, symmetric_solver

SIZES = (1, 2, 5, 41)


def positive(size, seed=0):
    """Symmetric and positive definite, with ones on the diagonal."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, 2 * size))
    root /= np.linalg.norm(root, axis=1, keepdims=True)
    return root @ root.T


def badly_scaled(size, seed=0):
    """The same with a diagonal from 1e-8 to 1e8, in random order, and its square roots."""
    roots = np.random.default_rng(seed).permutation(np.geomspace(1e-4, 1e4, size))
    return roots[:, None] * positive(size, seed) * roots[None, :], roots


@jax.jit
def solve(matrix, right):
    return symmetric_solver(matrix)(right)


@jax.jit
def lapack(matrix, right):
    return jnp.linalg.solve(matrix, right)


@pytest.mark.parametrize("size", SIZES)
def test_the_inverse_of_positive_matrices_is_that_of_numpy(size):
    eliminate = jax.jit(inverse)
    for seed in range(5):
        matrix = positive(size, seed)
        expected = np.linalg.inv(matrix)
        np.testing.assert_allclose(
            eliminate(jnp.asarray(matrix)), expected, rtol=0, atol=1e-13 * np.max(np.abs(expected))
        )


@pytest.mark.parametrize("condition", [1e4, 1e8])
def test_the_inverse_loses_the_digits_of_the_condition_and_no_more(condition):
    basis, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 20)))
    matrix = (basis * np.geomspace(1 / condition, 1.0, 20)) @ basis.T
    scale = 1 / np.sqrt(np.diag(matrix))
    matrix = scale[:, None] * matrix * scale[None, :]
    product = np.asarray(jax.jit(inverse)(jnp.asarray(matrix))) @ matrix
    np.testing.assert_allclose(product, np.eye(20), rtol=0, atol=1e-14 * condition)


@pytest.mark.parametrize("size", [5, 41, 130])
def test_badly_scaled_matrices_are_solved_to_rounding(size):
    """In the units of each unknown; from 128 on by LAPACK."""
    matrix, roots = badly_scaled(size)
    right = np.random.default_rng(2).normal(size=size)
    expected = np.linalg.solve(positive(size), right)
    found = solve(jnp.asarray(matrix), jnp.asarray(roots * right))
    np.testing.assert_allclose(roots * np.asarray(found), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", [1, 5, 41, 130])
def test_matrices_with_concave_directions_are_solved_too(size):
    """Blocks of both signs, as a saddle has them."""
    signs = np.where(np.arange(size) % 3 == 1, -1.0, 1.0)
    part = positive(size, 3)
    same = signs[:, None] == signs[None, :]
    matrix = np.where(same, signs[:, None] * part, part)
    matrix, right = jnp.asarray(matrix), jnp.asarray(np.random.default_rng(4).normal(size=size))
    np.testing.assert_allclose(solve(matrix, right), lapack(matrix, right), rtol=0, atol=1e-11)


def test_one_inverse_serves_many_right_hand_sides():
    matrix, roots = badly_scaled(5)
    solve_one = symmetric_solver(jnp.asarray(matrix))
    for column in range(5):
        right = np.eye(5)[column]
        found = solve_one(jnp.asarray(roots * right))
        expected = np.linalg.inv(positive(5))[:, column]
        np.testing.assert_allclose(roots * np.asarray(found), expected, rtol=1e-12, atol=1e-13)


@functools.partial(jax.jit, static_argnums=0)
def derivatives(function, at, direction, cotangent):
    """Along a direction, and in reverse by the matrix and the right-hand side."""
    forward = jax.jvp(function, at, direction)[1]
    return forward, *jax.vjp(function, *at)[1](cotangent)


@pytest.mark.parametrize("size", [5, 41, 130])
def test_derivatives_are_those_of_lapack(size):
    """At a badly scaled matrix, compared in the units of each unknown."""
    matrix, roots = badly_scaled(size, 5)
    rng = np.random.default_rng(6)
    move = rng.normal(size=(size, size))
    move = jnp.asarray(roots[:, None] * (move + move.T) * roots[None, :])
    right, tangent = (jnp.asarray(roots * rng.normal(size=size)) for _ in range(2))
    cotangent = jnp.asarray(rng.normal(size=size) * roots)
    both = [
        derivatives(f, (jnp.asarray(matrix), right), (move, tangent), cotangent)
        for f in (solve, lapack)
    ]
    for found, expected in zip(*both, strict=True):
        units = roots[:, None] * roots[None, :] if found.ndim == 2 else roots
        found, expected = units * np.asarray(found), units * np.asarray(expected)
        largest = np.max(np.abs(expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * largest)


@pytest.mark.parametrize("size", [5, 128])
def test_a_batch_of_solves_equals_one_by_one(size):
    matrices = jnp.asarray([positive(size, seed) for seed in range(3)])
    rights = jnp.asarray(np.random.default_rng(7).normal(size=(3, size)))
    batch = jax.jit(jax.vmap(solve))(matrices, rights)
    alone = [solve(m, r) for m, r in zip(matrices, rights, strict=True)]
    np.testing.assert_allclose(batch, alone, rtol=0, atol=1e-12)
    slopes, expected = (
        jax.jit(jax.vmap(jax.grad(lambda m, r, f=f: jnp.sum(f(m, r) ** 2))))(matrices, rights)
        for f in (solve, lapack)
    )
    largest = float(np.max(np.abs(expected)))
    np.testing.assert_allclose(slopes, expected, rtol=0, atol=1e-11 * largest)


def layered(matrix, n):
    """The blocks of a symmetric matrix for one number, n more, and all the others."""
    one, middle, last = 0, slice(1, n + 1), slice(n + 1, None)
    return LayeredMatrix(
        matrix[one, one],
        matrix[one, middle],
        matrix[one, last],
        matrix[middle, middle],
        matrix[middle, last],
        matrix[last, last],
    )


def by_layers(matrix, right, n):
    parts = (right[0], right[1 : n + 1], right[n + 1 :])
    one, middle, last = layered_solver(layered(matrix, n))(parts)
    return jnp.concatenate([one[None], middle, last])


@pytest.mark.thorough
@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 5), (20, 20), (20, 19), (5, 130), (130, 5)])
@pytest.mark.parametrize("concave", [False, True])
def test_block_by_block_is_the_same(n, m, concave):
    """At badly scaled matrices, in the units of each unknown; from 128 on by LAPACK."""
    size = 1 + n + m
    matrix, roots = badly_scaled(size, 8)
    if concave:  # in the last block, once the others are eliminated
        matrix[n + 1 :, n + 1 :] *= -1
    right = np.random.default_rng(9).normal(size=size)
    expected = np.linalg.solve(matrix / np.outer(roots, roots), right)
    found = jax.jit(by_layers, static_argnums=2)(jnp.asarray(matrix), jnp.asarray(roots * right), n)
    np.testing.assert_allclose(
        roots * np.asarray(found), expected, rtol=0, atol=1e-11 * np.max(np.abs(expected))
    )


@pytest.mark.thorough
@pytest.mark.parametrize(("n", "m"), [(3, 5), (20, 20)])
def test_derivatives_block_by_block_are_those_of_lapack(n, m):
    size = 1 + n + m
    matrix, rng = positive(size, 5), np.random.default_rng(10)
    move = rng.normal(size=(size, size))
    move, tangent = jnp.asarray(move + move.T), jnp.asarray(rng.normal(size=size))
    at, right = jnp.asarray(matrix), jnp.asarray(rng.normal(size=size))
    forward, expected = (
        jax.jit(functools.partial(jax.jvp, f))((at, right), (move, tangent))[1]
        for f in (lambda a, r: by_layers(a, r, n), jnp.linalg.solve)
    )
    np.testing.assert_allclose(forward, expected, rtol=0, atol=1e-11 * jnp.max(jnp.abs(expected)))
    # In reverse along one direction: what the blocks do not hold has no derivative.
    slopes = [
        jax.jit(jax.grad(lambda s, f=f: jnp.sum(f(at + s * move, right + s * tangent) ** 2)))(0.0)
        for f in (lambda a, r: by_layers(a, r, n), jnp.linalg.solve)
    ]
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-10)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [1, 2, 5, 6, 9, 20, 41])
def test_off_the_cpu_two_pivots_at_a_time_lead_to_the_same(size, monkeypatch):
    monkeypatch.setattr(_device, "on_cpu", lambda: False)
    signs = np.where(np.arange(size) % 3 == 1, -1.0, 1.0)
    same = signs[:, None] == signs[None, :]
    parts = [positive(size, seed) for seed in range(3)]
    matrices = np.stack([np.where(same, signs[:, None] * part, part) for part in parts])
    for found in (jax.jit(jax.vmap(lambda m: inverse(m)))(matrices), map(inverse, matrices)):
        for one, matrix in zip(found, matrices, strict=True):
            expected = np.linalg.inv(matrix)
            np.testing.assert_allclose(one, expected, rtol=0, atol=1e-13 * np.max(np.abs(expected)))


@pytest.mark.thorough
def test_off_the_cpu_blocks_are_solved_too(monkeypatch):
    monkeypatch.setattr(_device, "on_cpu", lambda: False)
    matrix = jnp.asarray(positive(12))
    right = jnp.asarray(np.random.default_rng(8).normal(size=12))
    found = layered_solver(layered(matrix, 4))((right[0], right[1:5], right[5:]))
    expected = np.linalg.solve(matrix, right)
    np.testing.assert_allclose(jnp.concatenate([found[0][None], *found[1:]]), expected, atol=1e-12)
