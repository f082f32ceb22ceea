"""Moments of smooth steps over Gaussian inputs: against quadrature, at any weights, and by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_quadrature import (
    ACROSS,
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
    second_moments,
)
from scipy.special import erf, ndtr

from tts_jax.closed_forms.gaussian_moments import (
    covariances,
    gaussian_kind,
    gaussian_neurons,
    joined,
    means,
)
from tts_jax.models.activations import Erf, Probit, ReLU, Tanh

CASES = {
    "erf": (Erf(0.8), Erf(0.8)),
    "probit": (Probit(0.6), Probit(0.6)),
    "both": (Erf(0.8), Probit(0.5)),
}
thorough = pytest.mark.thorough
ALL = pytest.mark.parametrize(
    ("name", "bias"),
    [
        ("both", True),
        *(pytest.param(*case, marks=thorough) for case in (("erf", True), ("probit", True))),
        *(pytest.param(*case, marks=thorough) for case in (("both", False), ("erf", False))),
    ],
)


@ALL
def test_value_gradient_and_hessian_are_those_of_quadrature(name, bias):
    rows = random_rows(1)
    found = evaluate(closed, *CASES[name], rows, bias=bias)
    wanted = evaluate(integrated, *CASES[name], rows, bias=bias)
    for got, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


@ALL
def test_derivatives_are_right_where_neurons_coincide_or_vanish(name, bias):
    for at in (*SPECIAL.values(), *KINKED.values()):
        value, _, bend = evaluate(closed, *CASES[name], [at], bias=bias)
        assert np.all(np.isfinite(value))
        np.testing.assert_allclose(bend[0], difference(*CASES[name], at, bias=bias), atol=1e-8)
        np.testing.assert_allclose(bend[0], bend[0].T, atol=1e-14)


def test_sharp_steps_keep_their_digits():
    """As sharp as eta = 1e-4, where neurons nearly coincide: the mean square is known."""
    for eta in (1e-2, 1e-4):
        w = jnp.asarray([[0.6, 0.8]])
        both = gaussian_neurons(Probit(eta), w, None), gaussian_neurons(Probit(eta), w + 0.0, None)
        angle = np.arctan(np.sqrt((eta**2 + 2) * eta**2))  # 1/(1 + eta^2) is its cosine
        np.testing.assert_allclose(second_moments(*both), 0.5 - angle / (2 * np.pi), rtol=1e-15)


def test_weights_of_any_length_have_the_moments_of_hard_steps():
    """E sign(z1) [z2 > 0] is 1/2 - t/pi for the angle t: lengths of which no square is a number."""
    angles = (1.0, 0.0, np.pi, 1e-6)
    across = ACROSS / np.linalg.norm(ACROSS) * np.linalg.norm(W)
    other = [np.cos(t) * W + np.sin(t) * across for t in angles]
    for size in (1e30, 1e50, 1e80, 1e155, 1e300):
        for second in (size, 1e30):
            rows = [row(size * W, B, second * v, -B) for v in other]
            value, slope, bend = evaluate(closed, *CASES["both"], rows, bias=True)
            np.testing.assert_allclose(value, [0.5 - t / np.pi for t in angles], atol=1e-15)
            assert np.all(np.isfinite(slope))
            assert np.all(np.isfinite(bend))


def neurons(activation, count, seed, bias=True):
    rng = np.random.default_rng(seed)
    b = jnp.asarray(rng.normal(size=count)) if bias else None
    return gaussian_neurons(activation, jnp.asarray(rng.normal(size=(count, 2))), b)


MOMENTS = jax.jit(lambda left, right: (means(left), means(right), second_moments(left, right)))


@pytest.mark.parametrize(
    ("activation", "sigma", "fine"),
    [
        pytest.param(Erf(0.7), erf, 1e-10, marks=thorough),
        # The error of the rule at a kink.
        pytest.param(ReLU(0.7), lambda z: np.maximum(z, 0.0), 2e-4, marks=thorough),
        pytest.param(Probit(0.7), ndtr, 1e-10, marks=thorough),
    ],
    ids=["erf", "relu", "probit"],
)
def test_matrices_are_those_of_a_rule_in_the_plane(activation, sigma, fine):
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    x = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2)
    weights = np.outer(weights, weights).ravel() / (2 * np.pi)
    left, right = neurons(activation, 3, 0), neurons(activation, 2, 1, bias=False)
    one = sigma((x @ np.asarray(left.w).T + np.asarray(left.b)) / 0.7)
    two = sigma((x @ np.asarray(right.w).T) / 0.7)
    first, second, found = MOMENTS(left, right)
    np.testing.assert_allclose(first, weights @ one, atol=fine)
    np.testing.assert_allclose(second, weights @ two, atol=fine)
    np.testing.assert_allclose(found, one.T @ (two * weights[:, None]), atol=fine)
    np.testing.assert_allclose(MOMENTS(right, left)[2], found.T, atol=1e-15)
    product = first[:, None] * second[None, :]
    np.testing.assert_allclose(jax.jit(covariances)(left, right), found - product, atol=1e-15)


@pytest.mark.thorough
def test_joined_neurons_stand_one_set_after_the_other():
    left, right = neurons(Erf(0.7), 3, 0), neurons(Probit(0.4), 2, 1, bias=False)
    both = joined(left, right)
    found = MOMENTS(both, both)[2]
    first, second, across = MOMENTS(left, right)
    np.testing.assert_allclose(found[:3, 3:], across, atol=1e-15)
    np.testing.assert_allclose(means(both), jnp.concatenate([first, second]))
    assert np.linalg.eigvalsh(found)[0] > 0
    assert joined(right, right).b is None


@pytest.mark.thorough
def test_a_small_covariance_and_mean_have_their_digits():
    w = jnp.asarray([[1e-9, 0.0]])
    tiny = gaussian_neurons(Erf(1.0), w, jnp.asarray([1e-9]))
    slope = 4 / np.pi
    np.testing.assert_allclose(covariances(tiny, tiny), slope * 1e-18, rtol=1e-14)
    np.testing.assert_allclose(means(tiny), np.sqrt(slope) * 1e-9, rtol=1e-14)


def test_numbers_are_differentiable_in_eta():
    w = jnp.asarray([[1.0, 0.5], [0.2, -1.0]])

    def total(eta):
        some = gaussian_neurons(Erf(eta), w, None)
        return jnp.sum(second_moments(some, some))

    total = jax.jit(total)
    found = jax.jit(jax.grad(total))(0.7)
    np.testing.assert_allclose(found, (total(0.7 + 1e-6) - total(0.7 - 1e-6)) / 2e-6, rtol=1e-8)


def test_an_unknown_activation_is_named():
    assert gaussian_kind(Tanh()) is None
    with pytest.raises(
        ValueError, match=r"`activation` must be Erf, Probit, ReLU or HermiteSeries.*a Tanh"
    ):
        gaussian_neurons(Tanh(), jnp.eye(2), None)
