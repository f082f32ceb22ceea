"""One network of 3 inputs and 4 neurons, by hand and in each library that users write models in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts

INPUTS, WIDTH, COUNT = 3, 4, 30

_random = np.random.default_rng(3)
X = _random.normal(size=(COUNT, INPUTS))
Y = 2.0 + np.sin(X[:, 0]) + X[:, 1] * X[:, 2]


class ByHand(NamedTuple):
    """What the others are compared to."""

    problem: tts.EmpiricalProblem
    start: tts.Params


class Own(NamedTuple):
    """A problem of a model in some library, its start, and the numbers of `ByHand` in a model."""

    problem: Any
    start: tts.Params
    numbers: Callable[[Any], tts.Params]


def by_hand() -> ByHand:
    network = tts.TwoLayerNetwork(tts.Tanh(eta=1.0))
    start = tts.init_two_layer(
        jax.random.key(0), network, INPUTS, WIDTH, outer_scale=0.3, bias_scale=0.2
    )
    return ByHand(tts.EmpiricalProblem(network, X, Y), start)


class Mlp(eqx.Module):
    """A module of Equinox with one hidden layer."""

    layers: list
    activation: Callable

    def __init__(
        self, key, inputs=INPUTS, width=WIDTH, outputs: Any = "scalar", activation=jnp.tanh
    ):
        one, two = jax.random.split(key)
        self.layers = [
            eqx.nn.Linear(inputs, width, key=one),
            eqx.nn.Linear(width, outputs, key=two),
        ]
        self.activation = activation

    def __call__(self, x):
        return self.layers[-1](self.activation(self.layers[0](x)))


def _equinox() -> Own:
    a, u = by_hand().start
    model = eqx.tree_at(
        lambda m: [v for layer in m.layers for v in (layer.weight, layer.bias)],
        Mlp(jax.random.key(0)),
        [u["w"], u["b"], a[None, 1:], a[:1]],
    )

    def numbers(model):
        inner, outer = model.layers
        a = jnp.concatenate([outer.bias, outer.weight[..., 0, :]], axis=-1)
        return tts.Params(a, {"w": inner.weight, "b": inner.bias})

    return Own(*tts.from_module(model, X, Y), numbers)


def _linen() -> Own:
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = jnp.tanh(linen.Dense(WIDTH)(x))
            return linen.Dense(1)(x)

    net = Net()
    wanted = jax.tree.map(jnp.shape, net.init(jax.random.key(0), X))
    params = {"params": _dense("kernel", "bias", "Dense_0", "Dense_1")}
    assert jax.tree.map(jnp.shape, params) == wanted
    numbers = _numbers_of_dense("kernel", "bias", "Dense_0", "Dense_1")
    own = tts.from_apply(net.apply, params, X, Y, fast="Dense_1")
    return Own(*own, lambda model: numbers(model["params"]))


def _nnx() -> Own:
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.Linear(INPUTS, WIDTH, rngs=rngs)
            self.outer = nnx.Linear(WIDTH, 1, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)  # its key and its counter are never trained

        def __call__(self, x):
            return self.outer(self.dropout(jnp.tanh(self.inner(x))))

    net = Net(nnx.Rngs(0))
    net.eval()
    for layer, values in _dense("kernel", "bias", "inner", "outer").items():
        for name, value in values.items():
            setattr(getattr(net, layer), name, nnx.Param(value))
    graph, state = nnx.split(net)
    numbers = _numbers_of_dense("kernel", "bias", "inner", "outer")
    own = tts.from_apply(lambda s, x: nnx.merge(graph, s)(x), state, X, Y, fast="outer")
    return Own(*own, lambda model: numbers(nnx.to_pure_dict(model)))


def _haiku() -> Own:
    haiku = pytest.importorskip("haiku")

    class Net(haiku.Module):
        def __call__(self, x):
            x = jnp.tanh(haiku.Linear(WIDTH)(x))
            return haiku.Linear(1)(x)

    net = haiku.without_apply_rng(haiku.transform(lambda x: Net()(x)))
    params = _dense("w", "b", "net/linear", "net/linear_1")
    wanted = jax.tree.map(jnp.shape, net.init(jax.random.key(0), jnp.asarray(X)))
    assert jax.tree.map(jnp.shape, params) == wanted
    numbers = _numbers_of_dense("w", "b", "net/linear", "net/linear_1")
    return Own(*tts.from_apply(net.apply, params, X, Y, fast="linear_1"), numbers)


def _function() -> Own:
    a, u = by_hand().start

    def apply(params, x):
        inner, a = params
        return a[0] + jnp.tanh(x @ inner["w"].T + inner["b"]) @ a[1:]

    own = tts.from_apply(apply, (u, a), X, Y, fast=(False, True))
    return Own(*own, lambda model: tts.Params(model[1], model[0]))


def _dense(weight: str, bias: str, inner: str, outer: str) -> dict[str, dict[str, jax.Array]]:
    a, u = by_hand().start
    return {
        inner: {weight: u["w"].T, bias: u["b"]},
        outer: {weight: a[1:, None], bias: a[:1]},
    }


def _numbers_of_dense(weight: str, bias: str, inner: str, outer: str):
    def numbers(model):
        last, first = model[outer], model[inner]
        a = jnp.concatenate([last[bias], last[weight][..., 0]], axis=-1)
        return tts.Params(a, {"w": jnp.swapaxes(first[weight], -1, -2), "b": first[bias]})

    return numbers


LIBRARIES = {
    "equinox": _equinox,
    "linen": _linen,
    "nnx": _nnx,
    "haiku": _haiku,
    "function": _function,
}
