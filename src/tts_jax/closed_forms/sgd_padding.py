"""Neurons filled up to a round number, as a run of SGD on a CPU wants them.

A training step of one run has the neurons in the vector lanes. With as many outer weights as
neurons, a multiple of the lanes, the loop over them needs no case for the bias and for the rest.
"""

from collections.abc import Callable

import jax.numpy as jnp

from ..models.network import AbstractNetwork, Params
from ..models.shallow import ShallowNetwork


def padded_neurons(
    network: AbstractNetwork, params: Params, multiple: int
) -> tuple[ShallowNetwork, Params, Callable[[Params], Params]] | None:
    """Return a network and parameters of the same function and gradients, and how to go back.

    The network has no bias, and a number of neurons that is a multiple of `multiple`. The last
    function makes parameters of `network` of parameters of it, with any leading axes. For a
    `ShallowNetwork` of steps from 0 to 1, else None. The bias becomes the weight of a neuron far
    left, and neurons far right, with weight 0, fill up: their derivatives are zero.
    """
    if type(network) is not ShallowNetwork or network.activation.limits != (0.0, 1.0):
        return None
    far = 2.0 + 1e3 * jnp.asarray(network.activation.eta, params.u.dtype)
    width, count = params.u.shape[0], params.a.shape[0]
    more = -count % multiple
    left = jnp.full(count - width, -far)
    u = jnp.concatenate([left, params.u, jnp.full(more, far)])

    def undo(padded: Params) -> Params:
        return Params(padded.a[..., :count], padded.u[..., count - width : count])

    return (
        ShallowNetwork(network.activation, bias=False),
        Params(jnp.pad(params.a, (0, more)), u),
        undo,
    )
