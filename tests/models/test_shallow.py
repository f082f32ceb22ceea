"""The network of one input against loops in NumPy."""

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


def test_cuts_are_where_the_pieces_of_the_network_meet():
    network = tts.ShallowNetwork(tts.CubicStep(0.2))
    np.testing.assert_allclose(
        np.sort(network.cuts(jnp.asarray([0.5, -1.0]))), [-1.1, -1.0, -0.9, 0.4, 0.5, 0.6]
    )
