"""Pairs of weight vectors: the digits of small angles, and derivatives without the angle's kink."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.closed_forms import gaussian_pairs

RNG = np.random.default_rng(0)
pairs = jax.jit(gaussian_pairs.pairs)
wedge = jax.jit(lambda w, v: gaussian_pairs.pairs(w, v).wedge())
W, V = RNG.normal(size=(3, 5)), RNG.normal(size=(4, 5))


def test_the_products_and_the_angle_are_those_of_numpy():
    found = pairs(jnp.asarray(W), jnp.asarray(V))
    np.testing.assert_allclose(found.square[:, 0], np.sum(W**2, axis=1))
    np.testing.assert_allclose(found.other[0], np.sum(V**2, axis=1))
    np.testing.assert_allclose(found.product, W @ V.T, atol=1e-15)
    lengths = np.linalg.norm(W, axis=1)[:, None] * np.linalg.norm(V, axis=1)
    np.testing.assert_allclose(found.cosine, W @ V.T / lengths, atol=1e-15)
    np.testing.assert_allclose(found.sine, np.sqrt(1 - (W @ V.T / lengths) ** 2), atol=1e-15)
    np.testing.assert_allclose(found.wedge(), lengths**2 - (W @ V.T) ** 2, atol=1e-13)
    turned = found.flipped
    assert turned.square is found.other
    assert turned.other is found.square


@pytest.mark.parametrize("inputs", [2, 5, 784])
@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-10, 1e-6, 1.0, np.pi - 1e-10])
def test_small_angles_have_their_digits_in_any_number_of_inputs(inputs, angle):
    rng = np.random.default_rng(inputs)
    plane = np.linalg.qr(rng.normal(size=(inputs, 2)))[0].T if inputs > 2 else np.eye(2)
    w = np.array([[2.0, 0.0]]) @ plane
    v = 3 * np.array([[np.cos(angle), np.sin(angle)]]) @ plane
    found = pairs(jnp.asarray(w), jnp.asarray(v))
    half = [np.cos(angle / 2), np.sin(angle / 2)]
    np.testing.assert_allclose([found.near[0, 0], found.far[0, 0]], half, rtol=0, atol=5e-16)
    np.testing.assert_allclose(
        wedge(jnp.asarray(w), jnp.asarray(v)), 36 * np.sin(angle) ** 2, rtol=1e-3, atol=1e-28
    )


def test_vectors_that_are_0_are_orthogonal_to_all():
    w = jnp.asarray(np.concatenate([W, np.zeros((1, 5))]))
    found = pairs(w, w)
    np.testing.assert_allclose(found.near[3], np.sqrt(0.5))
    np.testing.assert_allclose(found.far[:, 3], np.sqrt(0.5))
    np.testing.assert_allclose(jnp.diagonal(found.far)[:3], 0.0, atol=1e-16)
    tiny = pairs(1e-25 * w, w)
    np.testing.assert_allclose(tiny.near, found.near, atol=1e-15)


def test_slopes_of_the_angle_are_those_of_arccos_away_from_its_ends():
    def angle(w):
        found = pairs(w, jnp.asarray(V))
        return 2 * jnp.arctan2(found.far, found.near)

    def wanted(w):
        lengths = jnp.linalg.norm(w, axis=1)[:, None] * jnp.linalg.norm(V, axis=1)[None, :]
        return jnp.arccos(w @ V.T / lengths)

    for derivative in (jax.jacfwd, lambda f: jax.jacfwd(jax.jacrev(f))):
        found, expected = (jax.jit(derivative(f))(jnp.asarray(W)) for f in (angle, wanted))
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_at_a_vanishing_angle_all_derivatives_are_finite():
    def sines(w):
        found = pairs(w, jnp.asarray(W))
        return jnp.sum(found.near + found.far + found.sine)

    both = [jax.jit(derivative(sines)) for derivative in (jax.grad, jax.hessian)]
    for w in (W, -W, 0 * W):
        for derivative in both:
            assert np.all(np.isfinite(derivative(jnp.asarray(w))))


@pytest.mark.parametrize("w", [W, V[:3], 0 * W], ids=["generic", "coincident", "zero"])
def test_derivatives_of_the_wedge_are_those_of_the_polynomial(w):
    def found(w):
        return pairs(w, jnp.asarray(V)).wedge()

    def wanted(w):
        squares = jnp.sum(w * w, axis=1)[:, None] * jnp.sum(V * V, axis=1)[None, :]
        return squares - (w @ V.T) ** 2

    for derivative in (jax.jacrev, lambda f: jax.jacfwd(jax.jacrev(f))):
        got, expected = (jax.jit(derivative(f))(jnp.asarray(w)) for f in (found, wanted))
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_one_set_with_itself_is_given_twice():
    w = jnp.asarray(W)
    alone = jax.jit(lambda w: gaussian_pairs.pairs(w, w))(w)
    for once, twice in zip(alone, pairs(w, w), strict=True):
        np.testing.assert_allclose(once, twice, atol=1e-15)
