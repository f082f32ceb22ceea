"""The network of several inputs against loops in NumPy, and its written derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts

RNG = np.random.default_rng(0)


def cubic(z):
    rising = 4 * (z + 0.5) ** 3 if z <= 0 else 1 - 4 * (0.5 - z) ** 3
    return 0.0 if z <= -0.5 else 1.0 if z >= 0.5 else rising


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


@pytest.mark.thorough
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
