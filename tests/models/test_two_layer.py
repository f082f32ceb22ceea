"""The two-layer network against loops over neurons, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts

W = np.array([[1.0, -0.5, 0.2], [0.3, 0.8, -1.1]])
B = np.array([0.4, -0.7])
X = np.array([[0.1, 0.2, 0.3], [-1.0, 0.5, 2.0], [0.0, 0.0, 0.0], [3.0, -1.0, 1.0]])
SCALES = {"standard": 1.0, "mean-field": 0.5, "ntk": 2**-0.5}


def by_hand(a, x, *, bias, outer_bias, scale, eta):
    total = a[0] if outer_bias else 0.0
    for j, weight in enumerate(a[1:] if outer_bias else a):
        z = sum(W[j, k] * x[k] for k in range(3)) + (B[j] if bias else 0.0)
        total = total + scale * weight * np.tanh(z / eta)
    return total


@pytest.mark.parametrize("scaling", SCALES)
@pytest.mark.parametrize("outer_bias", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_sum_over_neurons(bias, outer_bias, scaling):
    network = tts.TwoLayerNetwork(tts.Tanh(0.6), bias=bias, outer_bias=outer_bias, scaling=scaling)
    u = {"w": jnp.asarray(W)} | ({"b": jnp.asarray(B)} if bias else {})
    a = np.array([0.5, -2.0, 1.5])[0 if outer_bias else 1 :]
    scale = SCALES[scaling]
    wanted = [by_hand(a, x, bias=bias, outer_bias=outer_bias, scale=scale, eta=0.6) for x in X]
    params = tts.Params(jnp.asarray(a), u)
    network.check(params)
    np.testing.assert_allclose(network(params, X), wanted, rtol=1e-14)
    np.testing.assert_allclose(network(params, X[1]), wanted[1], rtol=1e-14)
    features = network.features(u, jnp.asarray(X))
    assert features.shape == (4, *network.outer_shape(u))
    np.testing.assert_allclose(features @ a, wanted, rtol=1e-14)
    assert network.has_outer_bias() == outer_bias


def test_outputs_share_the_features():
    network = tts.TwoLayerNetwork(tts.Erf())
    assert network.activation.eta == 1.0
    u = {"w": jnp.asarray(W), "b": jnp.asarray(B)}
    a = jnp.asarray([[1.0, 2.0], [-1.0, 0.0], [0.5, 3.0]])
    network.check(tts.Params(a, u))
    both = network(tts.Params(a, u), X)
    for k in range(2):
        np.testing.assert_allclose(both[:, k], network(tts.Params(a[:, k], u), X), rtol=1e-14)


U = {"w": jnp.asarray(W), "b": jnp.asarray(B)}
A = jnp.ones(3)


@pytest.mark.parametrize(
    ("a", "u", "message"),
    [
        (A, jnp.asarray(W), r'`params.u` must be a dictionary with "w" and "b", but is a'),
        (A, {"w": jnp.asarray(W)}, r"`params.u` must be a dictionary .* but is with \['w'\]"),
        (A, U | {"b": jnp.ones(3)}, r'`params.u\["b"\]` must be of shape \(2,\)'),
        (A, U | {"w": jnp.ones(2)}, r'`params.u\["w"\]` must be of shape \(m, d\)'),
        (A, U | {"w": jnp.ones((2, 0))}, r'`params.u\["w"\]` must be of shape \(m, d\)'),
        (jnp.ones(2), U, r"`params.a` must be of shape \(3,\) or \(3, K\)"),
        (jnp.ones((3, 1, 1)), U, r"`params.a` must be of shape"),
        (jnp.ones(3, int), U, r"`params.a` must be of a floating dtype"),
        ([1.0, 2.0, 3.0], U, r"`params.a` must be one array"),
        (A, U | {"b": jnp.asarray([jnp.nan, 0.0])}, r"""`params.u\['b'\]` must be finite"""),
    ],
)
def test_what_does_not_fit_is_refused(a, u, message):
    with pytest.raises(ValueError, match=message):
        tts.TwoLayerNetwork(tts.Tanh()).check(tts.Params(a, u))


def test_inputs_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match=r"`x` must be of shape \(..., 3\)"):
        tts.TwoLayerNetwork(tts.Tanh())(tts.Params(A, U), jnp.ones((5, 2)))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="`scaling`"):
        tts.TwoLayerNetwork(tts.Tanh(), scaling="mup")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="`outer_bias`"):
        tts.TwoLayerNetwork(tts.Tanh(), outer_biases=True)  # pyright: ignore[reportCallIssue]


def test_its_contract_holds():
    key = jax.random.key(0)
    network = tts.TwoLayerNetwork(tts.Probit(0.5), scaling="ntk")
    params = tts.init_two_layer(key, network, 3, 4, bias_scale=1.0, outer_scale=1.0)
    assert tts.check_network(network, params) < 1e-5


def test_its_contract_holds_with_several_outputs():
    network = tts.TwoLayerNetwork(tts.Tanh())
    start = {"outputs": 2, "bias_scale": 1.0, "outer_scale": 1.0}
    params = tts.init_two_layer(jax.random.key(0), network, 3, 4, **start)
    assert tts.check_network(network, params) == 0.0
    problem = tts.EmpiricalProblem(network, X, X[:, :2])
    assert tts.check_problem(problem, params) < 1e-4
