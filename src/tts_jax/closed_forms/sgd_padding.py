"""Networks padded to a multiple of neurons, with which a single run of SGD is faster on a CPU.

A training step of one run has the neurons in the vector lanes. With as many outer weights as
neurons, and a multiple of the lanes, its loop over neurons needs no case for the bias, nor for
neurons that are left over.
"""

from collections.abc import Callable

import jax.numpy as jnp

from ..models.network import AbstractNetwork, Params
from ..models.shallow import ShallowNetwork


def padded_neurons(
    network: AbstractNetwork, params: Params, multiple: int
) -> tuple[ShallowNetwork, Params, Callable[[Params], Params]] | None:
    """Return an equivalent network, its parameters, and a function that takes them back.

    The network has no bias, and its width is a multiple of `multiple`. Its values, and its
    gradients by the parameters of `network`, are those of `network`. The last function takes
    parameters of the padded network, with any leading axes, to those of `network`. None unless
    `network` is a `ShallowNetwork` with the limits 0 and 1.

    The bias becomes the weight of a neuron far left, and the width is filled up by neurons far
    right of weight 0, whose derivatives are zero.
    """
    if type(network) is not ShallowNetwork or network.activation.limits != (0.0, 1.0):
        return None
    far = 2.0 + 1e3 * jnp.asarray(network.activation.eta, params.u.dtype)
    width, count = params.u.shape[0], params.a.shape[0]
    missing = -count % multiple
    bias_position = jnp.full(count - width, -far)
    u = jnp.concatenate([bias_position, params.u, jnp.full(missing, far)])

    def undo(padded: Params) -> Params:
        return Params(padded.a[..., :count], padded.u[..., count - width : count])

    return (
        ShallowNetwork(network.activation, bias=False),
        Params(jnp.pad(params.a, (0, missing)), u),
        undo,
    )
