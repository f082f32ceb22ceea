"""Networks against loops in NumPy, and the paper's start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts

RNG = np.random.default_rng(0)


def cubic(z):
    rising = 4 * (z + 0.5) ** 3 if z <= 0 else 1 - 4 * (0.5 - z) ** 3
    return 0.0 if z <= -0.5 else 1.0 if z >= 0.5 else rising


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
def test_a_shallow_network_is_its_sum(bias, shape):
    network = tts.ShallowNetwork(tts.CubicStep(0.3), bias=bias)
    u, x = RNG.uniform(size=4), RNG.uniform(size=shape)
    a = RNG.normal(size=4 + bias)
    inner = a[1:] if bias else a
    expected = np.asarray(
        [
            (a[0] if bias else 0.0)
            + sum(w * cubic((p - v) / 0.3) for w, v in zip(inner, u, strict=True))
            for p in x.ravel()
        ]
    ).reshape(shape)
    params = tts.Params(jnp.asarray(a), jnp.asarray(u))
    found = jax.jit(lambda p, x: network(p, x))(params, jnp.asarray(x))
    assert found.shape == shape
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-15)
    features = network.features(params.u, jnp.asarray(x))
    assert features.shape == (*shape, *network.outer_shape(params.u))
    np.testing.assert_allclose(features @ a, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_an_additive_network_is_its_sum_over_coordinates(lead):
    network = tts.AdditiveNetwork(tts.CubicStep(0.3))
    a, u, x = RNG.normal(size=(3, 4)), RNG.uniform(size=(3, 4)), RNG.uniform(size=(*lead, 3))
    expected = np.asarray(
        [
            sum(a[k, j] * cubic((p[k] - u[k, j]) / 0.3) for k in range(3) for j in range(4))
            for p in x.reshape(-1, 3)
        ]
    ).reshape(lead)
    params = tts.Params(jnp.asarray(a), jnp.asarray(u))
    found = jax.jit(lambda p, x: network(p, x))(params, jnp.asarray(x))
    assert found.shape == lead
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)
    features = np.asarray(network.features(params.u, jnp.asarray(x)))
    assert features.shape == (*lead, 3, 4)
    np.testing.assert_allclose(
        np.sum(features * a, axis=(-2, -1)), expected, rtol=1e-13, atol=1e-14
    )


def test_cuts_are_where_the_pieces_of_the_network_meet():
    network = tts.ShallowNetwork(tts.CubicStep(0.2))
    np.testing.assert_allclose(
        np.sort(network.cuts(jnp.asarray([0.5, -1.0]))), [-1.1, -1.0, -0.9, 0.4, 0.5, 0.6]
    )


def test_params_are_a_pytree_of_two_halves():
    params = tts.Params({"w": jnp.ones(2)}, [jnp.zeros(3), jnp.zeros(())])
    doubled = jax.tree.map(lambda v: 2 * v, params)
    assert isinstance(doubled, tts.Params)
    np.testing.assert_array_equal(doubled.a["w"], [2.0, 2.0])


def test_the_start_of_the_paper_is_sorted_uniform_with_no_outer_layer():
    start = tts.init_uniform(jax.random.key(0), 5000)
    assert start.a.shape == (5001,)
    assert start.u.dtype == start.a.dtype == jnp.float64
    np.testing.assert_array_equal(start.a, 0.0)
    assert np.all(np.diff(start.u) >= 0)
    # Kolmogorov-Smirnov: 1.95 / sqrt(5000) is passed once in a thousand.
    ranks = (np.arange(5000) + 0.5) / 5000
    assert np.max(np.abs(start.u - ranks)) < 1.95 / np.sqrt(5000)
    assert not np.array_equal(start.u, tts.init_uniform(jax.random.key(1), 5000).u)


def test_the_written_derivative_of_an_additive_network_is_the_one_of_autodiff():
    x = jnp.asarray(RNG.uniform(size=(50, 2)))
    weights = jnp.asarray(RNG.normal(size=50))
    start = tuple(jnp.asarray(RNG.uniform(size=(2, 3))) for _ in range(2))

    def written(a, u, eta, x):
        network = tts.AdditiveNetwork(tts.Tanh(eta))
        return jnp.sum(weights * network(tts.Params(a, u), x) ** 2)

    def plain(a, u, eta, x):
        sigma = jnp.tanh((x[:, :, None] - u[None]) / eta)
        return jnp.sum(weights * jnp.sum(a[None] * sigma, axis=(1, 2)) ** 2)

    arguments = (*start, jnp.asarray(0.3), x)
    everything = (0, 1, 2, 3)
    for of in ((0, 1), everything):
        for mine, true in zip(
            jax.grad(written, of)(*arguments), jax.grad(plain, of)(*arguments), strict=True
        ):
            np.testing.assert_allclose(mine, true, rtol=1e-11, atol=1e-12)
    both = [jax.hessian(f, (0, 1))(*arguments) for f in (written, plain)]
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-10, atol=1e-10), *both)
