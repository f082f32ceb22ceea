"""What holds for parameters and networks of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts


def test_params_are_a_pytree_of_two_halves():
    params = tts.Params({"w": jnp.ones(2)}, [jnp.zeros(3), jnp.zeros(())])
    doubled = jax.tree.map(lambda v: 2 * v, params)
    assert isinstance(doubled, tts.Params)
    np.testing.assert_array_equal(doubled.a["w"], [2.0, 2.0])


@pytest.mark.parametrize(
    ("network", "u", "inputs", "outer"),
    [
        (tts.ShallowNetwork(tts.ReLU()), np.zeros(3), (), (4,)),
        (tts.ShallowNetwork(tts.ReLU(), bias=False), np.zeros(3), (), (3,)),
        (tts.AdditiveNetwork(tts.ReLU()), np.zeros((2, 3)), (2,), (2, 3)),
    ],
)
def test_a_network_knows_the_shapes_of_its_inputs_and_of_its_outer_layer(network, u, inputs, outer):
    assert network.input_shape(u) == inputs
    assert network.outer_shape(u) == outer
    x = jnp.zeros((5, *inputs))
    assert network.features(jnp.asarray(u), x).shape == (5, *outer)


def test_only_a_network_of_one_input_has_cuts():
    assert isinstance(tts.ShallowNetwork(tts.ReLU()), tts.AbstractOneInputNetwork)
    assert not hasattr(tts.AdditiveNetwork(tts.ReLU()), "cuts")
    with pytest.raises(ValueError, match="`network` must be of one input"):
        tts.Problem(tts.AdditiveNetwork(tts.ReLU()), tts.PiecewiseConstant([0.5], [0.0, 1.0]))
