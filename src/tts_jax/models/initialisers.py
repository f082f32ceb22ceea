"""Initialisers: the parameters from which training starts."""

import jax
import jax.numpy as jnp

from .._memory import check_memory
from .._numbers import as_whole, check_key
from .._types import Key
from .network import Params

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
