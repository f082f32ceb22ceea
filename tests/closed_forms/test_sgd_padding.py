"""Neurons filled up for SGD: the same function and gradients, and the way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import quickly
from small_problems import small_problem

import tts_jax as tts
from tts_jax.closed_forms.sgd_padding import padded_neurons


def random_params(width, bias):
    rng = np.random.default_rng(width)
    a, u = rng.normal(size=width + bias), rng.uniform(size=width)
    return tts.Params(jnp.asarray(a), jnp.asarray(u))


def assert_same(first, second, atol):
    for mine, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert mine.shape == other.shape
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=0, atol=atol)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 7, 8])
@pytest.mark.parametrize("activation", [tts.CubicStep(0.3), tts.Logistic(0.02)], ids=repr)
def test_filling_up_keeps_the_function_and_its_gradient(activation, width, bias):
    network = tts.ShallowNetwork(activation, bias=bias)
    params = random_params(width, bias)
    x = np.linspace(0.0, 1.0, 33)
    wide, filled, undo = padded_neurons(network, params, 8)

    @quickly
    def both(filled, params):
        def loss(network, params):
            values = network(params, x)
            return jnp.mean(jnp.sin(3.0 * x) * values**2), values

        slopes = jax.grad(loss, 1, has_aux=True)
        return slopes(wide, filled), slopes(network, params)

    (gradient, values), (expected, plain) = both(filled, params)
    assert filled.a.shape == filled.u.shape == (8 * -(-(width + bias) // 8),)
    np.testing.assert_allclose(values, plain, rtol=0, atol=1e-13)
    assert_same(undo(gradient), expected, 1e-12)
    used = width + bias
    for leaf in (gradient.a[used:], gradient.u[used:], gradient.u[:bias]):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_filling_up_is_undone(bias, dtype):
    network = tts.ShallowNetwork(tts.CubicStep(0.3), bias=bias)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), random_params(7, bias))
    _, filled, undo = padded_neurons(network, params, 4)
    assert_same(undo(filled), params, 0)
    recorded, twice = (
        jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), p) for p in (filled, params)
    )
    assert_same(undo(recorded), twice, 0)


class Special(tts.Problem):
    """A class of the user's own, whose loss may look at the parameters."""


def test_who_is_filled_up():
    """Steps from 0 to 1 of one input, in a problem that is the package's own."""
    target, params = small_problem().target, random_params(6, bias=True)
    step = tts.ShallowNetwork(tts.CubicStep(0.1))
    problem, filled, undo = tts.Problem(step, target).padded(params, 8)
    assert type(problem) is tts.Problem
    assert filled.u.shape == (8,)
    assert_same(undo(filled), params, 0)
    for other in (
        Special(step, target),
        tts.Problem(tts.ShallowNetwork(tts.ReLU()), target),
        tts.Problem(tts.ShallowNetwork(tts.Tanh(0.1)), target),
        tts.EmpiricalProblem(step, np.linspace(0.1, 0.9, 5), np.ones(5)),
    ):
        assert other.padded(params, 8) is None
