"""Rectifiers of Gaussian inputs: against quadrature, and at the pairs where angles have kinks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_quadrature import (
    ACROSS,
    INPUTS,
    KINKED,
    SPECIAL,
    B,
    W,
    closed,
    difference,
    evaluate,
    integrated,
    random_rows,
    row,
)
from scipy.special import ndtr

from tts_jax.closed_forms.gaussian_relu import relu_means
from tts_jax.models.activations import ReLU

ONE = ReLU()
H = B / np.linalg.norm(W)
BIAS = pytest.mark.parametrize(
    "bias", [pytest.param(True, marks=pytest.mark.thorough), False], ids=["bias", "no bias"]
)


def density(h):
    return np.exp(-h * h / 2) / np.sqrt(2 * np.pi)


@BIAS
def test_value_gradient_and_hessian_are_those_of_quadrature(bias):
    rows = random_rows(0)
    found = evaluate(closed, ONE, ONE, rows, bias=bias)
    wanted = evaluate(integrated, ONE, ONE, rows, bias=bias)
    for got, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


@BIAS
def test_derivatives_are_finite_and_symmetric_everywhere(bias):
    cases = {**SPECIAL, **KINKED}
    value, slope, bend = evaluate(closed, ONE, ONE, list(cases.values()), bias=bias)
    for name, *parts in zip(cases, value, slope, bend, strict=True):
        assert all(np.all(np.isfinite(part)) for part in parts), name
        assert np.max(np.abs(parts[1])) < 10, name
        np.testing.assert_allclose(parts[2], parts[2].T, atol=1e-14, err_msg=name)
        assert np.max(np.abs(parts[2])) < 10, name


@BIAS
@pytest.mark.parametrize("name", list(SPECIAL))
def test_the_hessian_exists_where_neurons_coincide_or_vanish(name, bias):
    if not bias and "vanish" in name:
        pytest.skip("without a bias a neuron that vanishes has a kink")
    at = SPECIAL[name]
    bend = evaluate(closed, ONE, ONE, [at], bias=bias)[2][0]
    np.testing.assert_allclose(bend, difference(ONE, ONE, at, bias=bias), atol=2e-6)


def test_the_hessian_of_two_neurons_that_coincide_is_known():
    """By w and v it is E [z > 0] x x^T, by w twice E delta(z) z+ x x^T = 0."""
    bend = evaluate(closed, ONE, ONE, [SPECIAL["coincident"]], bias=True)[2][0]
    unit = W / np.linalg.norm(W)
    across = ndtr(H) * np.eye(INPUTS) - H * density(H) * np.outer(unit, unit)
    np.testing.assert_allclose(bend[:INPUTS, INPUTS + 1 : -1], across, atol=1e-15)
    np.testing.assert_allclose(bend[:INPUTS, :INPUTS], 0.0, atol=1e-15)
    bend = evaluate(closed, ONE, ONE, [SPECIAL["coincident"]], bias=False)[2][0]
    np.testing.assert_allclose(bend[:INPUTS, INPUTS + 1 : -1], np.eye(INPUTS) / 2, atol=1e-15)


def test_value_of_coincident_and_opposite_neurons():
    value = evaluate(closed, ONE, ONE, list(SPECIAL.values()), bias=True)[0]
    found = dict(zip(SPECIAL, value, strict=True))
    square = (W @ W + B * B) * ndtr(H) + B * np.linalg.norm(W) * density(H)
    np.testing.assert_allclose(found["coincident"], square, rtol=1e-15)
    np.testing.assert_allclose(found["parallel"], 2 * square, rtol=1e-15)
    np.testing.assert_allclose(found["opposite"], 0.0, atol=1e-16)
    np.testing.assert_allclose(found["both vanish"], B * B, rtol=1e-15)
    assert found["one vanishes, off"] == 0.0


def test_a_small_angle_changes_the_value_as_it_should():
    """Without biases M is |w||v|/2 (cos t + (sin t - t cos t)/pi)."""
    angles = [0.0, 1e-8, 1e-5, 1e-3]
    across = ACROSS / np.linalg.norm(ACROSS) * np.linalg.norm(W)
    rows = [row(W, 0.0, np.cos(t) * W + np.sin(t) * across, 0.0) for t in angles]
    value = evaluate(closed, ONE, ONE, rows, bias=False)[0]
    wanted = [(np.cos(t) + (np.sin(t) - t * np.cos(t)) / np.pi) / 2 for t in angles]
    np.testing.assert_allclose(value / (W @ W), wanted, rtol=0, atol=3e-16)


def test_at_a_kink_the_derivative_is_the_mean_of_both_sides():
    bend = evaluate(closed, ONE, ONE, [KINKED["one is 0"]], bias=True)
    np.testing.assert_allclose(bend[0], 0.0, atol=0)
    np.testing.assert_allclose(bend[1][0][:INPUTS], 0.5 * ndtr(H) * W, atol=1e-15)
    np.testing.assert_allclose(bend[2][0][:INPUTS, :INPUTS], 0.0, atol=1e-15)


def test_means_and_their_derivatives():
    square, b = jnp.array([2.0, 0.3, 0.0, 0.0, 0.0]), jnp.array([0.4, -1.0, 0.7, -0.7, 0.0])
    length = np.sqrt(np.asarray(square))
    h = np.divide(b, length, where=length > 0, out=np.sign(np.asarray(b)) * 40.0)
    found, (by_square, by_b) = jax.jit(
        lambda *x: (relu_means(*x), jax.grad(lambda *x: jnp.sum(relu_means(*x)), (0, 1))(*x))
    )(square, b)
    np.testing.assert_allclose(found, b * ndtr(h) + length * density(h))
    np.testing.assert_allclose(relu_means(square, None), length / np.sqrt(2 * np.pi))
    np.testing.assert_allclose(by_b, ndtr(h))
    wanted = np.divide(density(h), 2 * length, where=length > 0, out=np.zeros(5))
    np.testing.assert_allclose(by_square, wanted)
    bend = jax.jit(jax.hessian(lambda w: jnp.sum(relu_means(jnp.sum(w * w, axis=1), None))))
    assert np.all(np.isfinite(bend(jnp.asarray([[0.0, 0.0], [1.0, 2.0]]))))


def test_a_subnormal_or_far_neuron_is_finite():
    rows = [row(1e-20 * W, B, W, B), row(W, 1e3, -W, -1e3), row(1e8 * W, 1.0, 1e-8 * W, 1.0)]
    for part in evaluate(closed, ONE, ONE, rows, bias=True):
        assert np.all(np.isfinite(part))
