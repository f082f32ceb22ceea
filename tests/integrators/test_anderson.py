"""Accelerated fixed-point iterations against their solutions, where plain ones diverge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.integrators.anderson import accelerated, no_history

WANTED = jnp.asarray([1.0, -2.0, 0.5, 3.0, 1.5])
AXES = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (5, 5)))[0]


def image_of(x, factors):
    """The image under an iteration that multiplies errors by factors along some axes."""
    flat = jnp.concatenate([x["a"], x["b"].reshape(-1)])
    new = WANTED + AXES @ (factors * (AXES.T @ (flat - WANTED)))
    return {"a": new[:1], "b": new[1:].reshape(2, 2)}


@jax.jit
def iterates(factors):
    """The first seven iterates, as vectors."""
    x = {"a": jnp.zeros(1), "b": jnp.zeros((2, 2))}
    history, found = no_history(x), []
    for _ in range(7):
        x, history = accelerated(history, x, image_of(x, factors))
        found.append(jnp.concatenate([x["a"], x["b"].reshape(-1)]))
    return jnp.stack(found)


@pytest.mark.parametrize("outlying", [[0.9], [3.0], [-4.0, 0.9], [2.0, -2.0, 0.7]])
def test_each_outlying_direction_costs_an_iteration(outlying):
    factors = jnp.zeros(5).at[: len(outlying)].set(jnp.asarray(outlying))
    errors = jnp.linalg.norm(iterates(factors) - WANTED[None], axis=1)
    # The first image, one for each direction, and one for rounding and the small diagonal.
    assert errors[len(outlying) + 1] < 1e-5
    assert errors[-1] < 1e-9
    plain = np.linalg.norm(WANTED) * np.max(np.abs(outlying)) ** (len(outlying) + 2)
    assert errors[len(outlying) + 1] < 1e-4 * plain


def test_the_first_iterate_is_the_image_and_a_fixed_point_stays():
    factors = jnp.asarray([0.5, 0.1, 0.3, -0.2, 0.7])
    found = iterates(factors)
    x = {"a": jnp.zeros(1), "b": jnp.zeros((2, 2))}
    image = image_of(x, factors)
    np.testing.assert_allclose(found[0, :1], image["a"], atol=1e-15)
    solution = {"a": WANTED[:1], "b": WANTED[1:].reshape(2, 2)}
    history = no_history(solution)
    for _ in range(3):
        after, history = accelerated(history, solution, solution)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), after, solution)


def test_its_derivative_is_that_of_the_solution():
    """x = c x + b has the solution b / (1 - c), whatever the coefficients are."""

    @jax.jit
    def solution(c):
        x = jnp.zeros(2)
        history = no_history(x)
        for _ in range(8):
            x, history = accelerated(history, x, c * jnp.asarray([1.0, -0.5]) * x + 1.0)
        return x

    c = jnp.asarray(0.8)
    wanted = [1 / (1 - 0.8) ** 2, -0.5 / (1 + 0.4) ** 2]
    np.testing.assert_allclose(jax.jit(jax.jacfwd(solution))(c), wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.jacrev(solution))(c), wanted, rtol=1e-6)
