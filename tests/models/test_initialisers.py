"""The start of the paper, and those of two-layer networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts


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


NETWORK = tts.TwoLayerNetwork(tts.Tanh())


@pytest.mark.parametrize("distribution", ["gaussian", "sphere", "uniform"])
def test_weights_have_the_stated_length_in_the_mean(distribution):
    key = jax.random.key(3)
    draw = functools.partial(tts.init_two_layer, key, NETWORK, 5, 4000, distribution=distribution)
    params = draw(scale=2.0, bias_scale=0.5, outer_scale=3.0)
    squares = jnp.sum(params.u["w"] ** 2, axis=1)
    assert params.u["w"].shape == (4000, 5)
    np.testing.assert_allclose(jnp.mean(squares), 4.0, rtol=0.05)
    if distribution == "sphere":
        np.testing.assert_allclose(squares, 4.0, rtol=1e-12)
    if distribution == "uniform":
        assert float(jnp.max(jnp.abs(params.u["w"]))) <= 2.0 * (3 / 5) ** 0.5
    np.testing.assert_allclose(jnp.std(params.u["b"]), 0.5, rtol=0.05)
    np.testing.assert_allclose(jnp.std(params.a), 3.0, rtol=0.05)
    NETWORK.check(params)
    np.testing.assert_array_equal(draw().a, np.zeros(4001))
    np.testing.assert_array_equal(draw().u["b"], np.zeros(4000))


def test_a_start_has_the_halves_of_its_network():
    network = tts.TwoLayerNetwork(tts.ReLU(), bias=False, outer_bias=False)
    params = tts.init_two_layer(jax.random.key(0), network, 3, 4, outputs=2)
    assert set(params.u) == {"w"}
    assert params.a.shape == (4, 2)
    network.check(params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "`width` must be"),
        ({"inputs": 1.5}, "`inputs` must be"),
        ({"outputs": 0}, "`outputs` must be"),
        ({"scale": 0.0}, "`scale` must be positive"),
        ({"outer_scale": -1.0}, "`outer_scale` must be"),
        ({"distribution": "normal"}, "`distribution` must be"),
        ({"network": tts.ShallowNetwork(tts.Tanh())}, "`network` must be"),
        ({"width": 10**9}, "`width` must be"),
    ],
)
def test_what_no_start_can_be_made_of_is_refused(change, message):
    given = {"key": jax.random.key(0), "network": NETWORK, "inputs": 3, "width": 4}
    with pytest.raises((ValueError, TypeError), match=message):
        tts.init_two_layer(**(given | change))
