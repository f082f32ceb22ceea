"""Which models are found to be affine in their fast leaves, and what their features are like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.problems.affine import SAMPLES, head_of, not_affine_in, spread

RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(12, 3)))


def hidden(u, x):
    return jnp.tanh(x @ u)


def params(**leaves):
    a = {name: jnp.asarray(RANDOM.normal(size=shape)) for name, shape in leaves.items()}
    return tts.Params(a, jnp.asarray(RANDOM.normal(size=(3, 4))))


@pytest.mark.parametrize(
    ("predict", "leaves", "wrong"),
    [
        (lambda p, x: hidden(p.u, x) @ p.a["w"] + p.a["b"], {"b": (), "w": (4,)}, []),
        (lambda p, x: 1e7 + hidden(p.u, x) @ p.a["w"], {"w": (4,)}, []),
        (lambda p, x: jnp.sum(p.u) + jnp.sum(hidden(p.u, x), 1) * p.a["w"], {"w": ()}, []),
        (lambda p, x: hidden(p.u, x) @ p.a["w"] * p.a["b"], {"b": (), "w": (4,)}, [0, 1]),
        (lambda p, x: p.a["b"] + hidden(p.u, x) @ p.a["w"] ** 2, {"b": (), "w": (4,)}, [1]),
        (lambda p, x: jax.nn.relu(hidden(p.u, x) @ p.a["w"]), {"w": (4,)}, [0]),
        (lambda p, x: jnp.clip(hidden(p.u, x) @ p.a["w"], -20, 20), {"w": (4,)}, [0]),
        (lambda p, x: 1e7 + jnp.tanh(hidden(p.u, x) @ p.a["w"]), {"w": (4,)}, [0]),
        (lambda p, x: jnp.exp(hidden(p.u, x) @ p.a["w"] * 100.0), {"w": (4,)}, [0]),
    ],
)  # fmt: skip
def test_what_is_affine(predict, leaves, wrong):
    at = params(**leaves)
    assert not_affine_in(predict, at, X) == wrong


def test_a_start_where_all_features_vanish_hides_nothing():
    at = params(w=(4,))._replace(u=jnp.zeros((3, 4)))
    assert not_affine_in(lambda p, x: jnp.tanh(hidden(p.u, x) @ p.a["w"]), at, X) == [0]


def test_slow_leaves_that_are_not_defined_everywhere():
    at = params(w=(4,))._replace(u=jnp.full((3, 4), 0.2))

    def predict(p, x):
        return jnp.sqrt(p.u[0, 0] - 0.1) * hidden(p.u, x) @ p.a["w"]

    assert not_affine_in(predict, at, X) == []


def test_heads():
    at = params(b=(), w=(4,))
    head = head_of(lambda p, x: hidden(p.u, x) @ p.a["w"] + p.a["b"], at, X)
    assert head == (None, False, 0, False)
    head = head_of(lambda p, x: hidden(p.u, x) @ p.a["w"] + 2.0 * p.a["b"] + jnp.sum(p.u), at, X)
    assert head == (None, True, None, False)


@pytest.mark.parametrize("outputs", [2, 4])
def test_heads_of_several_outputs(outputs):
    at = params(b=(outputs,), w=(4, outputs), z=(outputs, 4))

    def shared(p, x):
        rows = hidden(p.u, x)
        return rows @ p.a["w"] + (rows**2) @ p.a["z"].T + p.a["b"][None]

    assert head_of(shared, at, X) == ((0, 1, 0), False, 0, False)

    def apart(p, x):
        return hidden(p.u, x) @ p.a["w"] * jnp.arange(1.0, outputs + 1.0)[None]

    assert head_of(apart, params(w=(4, outputs)), X) == (None, False, None, False)


def test_some_inputs_stand_for_all():
    assert spread(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    some = spread(np.arange(1000.0))
    assert some.shape == (SAMPLES,)
    assert some[0] == 0
    assert some[-1] == 999


@pytest.mark.parametrize(
    ("activation", "has_kinks"),
    [
        *((jax.nn.relu, True), (jax.nn.leaky_relu, True), (jnp.abs, True)),
        *((jnp.tanh, False), (jax.nn.gelu, False), (jax.nn.softplus, False)),
        # Its second derivative jumps, which costs a method of steps hardly anything.
        (jax.nn.elu, False),
    ],
)
def test_kinks_are_seen(activation, has_kinks):
    at = params(w=(4,))
    head = head_of(lambda p, x: activation(x @ p.u) @ p.a["w"], at, X)
    assert head.has_kinks == has_kinks


def test_without_slow_leaves_there_are_no_kinks():
    at = params(w=(3,))._replace(u={})
    assert not head_of(lambda p, x: jax.nn.relu(x) @ p.a["w"], at, X).has_kinks
