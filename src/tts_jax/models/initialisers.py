"""Initialisers: the parameters from which training starts."""

import numbers

import jax
import jax.numpy as jnp

from .._errors import argument_error, check_type
from .._types import Key
from .network import Params


def init_uniform(key: Key, width: int) -> Params:
    """Return the start of the paper for a `ShallowNetwork`: u sorted i.i.d. U[0, 1], a = 0.

    **Returns:** Params(a=(width+1,), u=(width,)).
    """
    check_type("key", key, jax.Array, hint=", a jax.random.key")
    if not isinstance(width, numbers.Integral) or width < 1:
        raise argument_error("width", "a whole number of at least 1", width)
    return Params(a=jnp.zeros(width + 1), u=jnp.sort(jax.random.uniform(key, (width,))))
