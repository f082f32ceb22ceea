"""Initialisers: the parameters from which training starts."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from .._errors import check_type
from .._memory import check_memory
from .._numbers import as_real, as_whole, as_word, check_key, check_scalar
from .._types import Array, Key, Real
from .network import Params
from .two_layer import TwoLayerNetwork

_AT_ONCE = 4
"""Copies of the positions, about, while they are drawn and sorted."""


def init_uniform(key: Key, width: int) -> Params:
    """Return the start of the paper for a `ShallowNetwork`: u sorted i.i.d. U[0, 1], a = 0.

    **Returns:** Params(a=(width+1,), u=(width,)).
    """
    check_key("key", key)
    width = as_whole("width", width)
    check_memory("width", width, at_once=_AT_ONCE)
    return Params(a=jnp.zeros(width + 1), u=jnp.sort(jax.random.uniform(key, (width,))))


def init_two_layer(
    key: Key,
    network: TwoLayerNetwork,
    inputs: int,
    width: int,
    *,
    outputs: int | None = None,
    distribution: Literal["gaussian", "sphere", "uniform"] = "gaussian",
    scale: Real = 1.0,
    bias_scale: Real = 0.0,
    outer_scale: Real = 0.0,
) -> Params:
    """Return a random start of a `TwoLayerNetwork` of d = `inputs` inputs and m = `width` neurons.

    **Arguments:**

    - `outputs`: K for an outer layer (p, K), or None for one output and (p,).
    - `distribution` of the weights w_j (d,), in all of which E |w_j|^2 = `scale`^2: "gaussian" with
      entries N(0, scale^2/d), "sphere" uniform with |w_j| = scale, "uniform" with entries
      uniform on [-c, c], c = scale sqrt(3/d).
    - `bias_scale`: the standard deviation of the biases b_j, which are Gaussian; 0 by default.
    - `outer_scale`: the standard deviation of the outer weights, which are Gaussian; a = 0 by
      default.

    **Returns:** `Params`, with the halves as the network has them.

    **Raises:** `ValueError` for bad arguments, before anything is drawn.
    """
    check_key("key", key)
    check_type("network", network, TwoLayerNetwork)
    inputs, width = as_whole("inputs", inputs), as_whole("width", width)
    as_word("distribution", distribution, DISTRIBUTIONS)
    p = width + int(network.outer_bias)
    shape = (p,) if outputs is None else (p, as_whole("outputs", outputs))
    scale, bias_scale = as_real("scale", scale), as_real("bias_scale", bias_scale)
    outer_scale = as_real("outer_scale", outer_scale)
    check_scales(scale, bias_scale, outer_scale)
    larger = "width" if width >= inputs else "inputs"
    check_memory(larger, width * inputs + math.prod(shape), at_once=_AT_ONCE)
    of_w, of_b, of_a = jax.random.split(key, 3)
    u = {"w": scale * _DRAWS[distribution](of_w, (width, inputs))}
    if network.bias:
        u["b"] = bias_scale * jax.random.normal(of_b, (width,))
    return Params(outer_scale * jax.random.normal(of_a, shape), u)


def check_scales(scale: Real, bias_scale: Real, outer_scale: Real) -> None:
    """Raise `ValueError` unless `init_two_layer` takes these scales."""
    check_scalar("scale", scale, minimum=0.0, strict=True)
    check_scalar("bias_scale", bias_scale, minimum=0.0, strict=False)
    check_scalar("outer_scale", outer_scale, minimum=0.0, strict=False)


def _gaussian(key: Key, shape: tuple[int, int]) -> Array:
    return jax.random.normal(key, shape) / math.sqrt(shape[1])


def _sphere(key: Key, shape: tuple[int, int]) -> Array:
    w = jax.random.normal(key, shape)
    return w / jnp.linalg.norm(w, axis=1, keepdims=True)


def _uniform(key: Key, shape: tuple[int, int]) -> Array:
    end = math.sqrt(3.0 / shape[1])
    return jax.random.uniform(key, shape, minval=-end, maxval=end)


_DRAWS = {"gaussian": _gaussian, "sphere": _sphere, "uniform": _uniform}
"""Weights (m, d) with E |w_j|^2 = 1, by the name of their distribution."""

DISTRIBUTIONS = tuple(_DRAWS)
"""The names of the distributions that `init_two_layer` has."""
