"""Forward mode goes through, reverse mode is refused with words of its own, however it is asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.dynamics.sgd.forward_only import forward_only

TARGET = tts.PiecewiseConstant([0.3, 0.6], [1.0, 3.0, 2.0])
PROBLEM = tts.Problem(tts.ShallowNetwork(tts.CubicStep(0.1)), TARGET)
KEY = jax.random.key(0)


def power(base):
    """base^4, by a loop whose length nobody knows."""
    base = forward_only({"base": base})["base"]
    return jax.lax.fori_loop(0, jnp.asarray(3), lambda _, value: value * base, base)


def of_many(base):
    return jnp.sum(jax.vmap(power)(base * jnp.ones(3)))


def of_scan(base):
    return jax.lax.scan(lambda total, one: (total + power(one * base), None), 0.0, jnp.ones(2))[0]


@pytest.mark.parametrize("function", [power, of_many, of_scan], ids=["one", "vmap", "scan"])
def test_reverse_mode_is_refused(function):
    for derivative in (
        jax.grad(function),
        jax.grad(jax.jit(function)),
        jax.jit(jax.grad(function)),
        jax.jacrev(function),
        lambda number: jax.vmap(jax.grad(function))(number * jnp.ones(2)),
    ):
        with pytest.raises(ValueError, match="SGD has no derivatives in reverse mode"):
            derivative(2.0)


def test_forward_mode_goes_through_also_twice_and_in_batches():
    assert jax.jvp(power, (2.0,), (1.0,)) == (16.0, 32.0)
    assert jax.jacfwd(jax.jacfwd(power))(2.0) == 48.0
    np.testing.assert_array_equal(jax.vmap(jax.jacfwd(power))(jnp.array([1.0, 2.0])), [4.0, 32.0])


def test_what_is_no_floating_array_is_left_alone():
    tree = {"count": jnp.array(3), "word": "x", "number": 0.5, "key": KEY}
    assert forward_only(tree) == tree


def test_a_gradient_through_a_run_of_sgd_is_refused_and_forward_mode_is_not():
    def final(shift):
        u = jnp.asarray([0.1, 0.2, 0.4, 0.5, 0.7, 0.9]) + shift
        sgd = tts.SGD(epsilon=0.1, step_size=0.1)
        return tts.simulate(PROBLEM, sgd, tts.Params(jnp.zeros(7), u), [0.02], key=KEY).risk[-1]

    with pytest.raises(ValueError, match="SGD has no derivatives in reverse mode"):
        jax.grad(final)(0.0)
    _, slope = jax.eval_shape(lambda shift: jax.jvp(final, (shift,), (1.0,)), 0.0)
    assert slope.shape == ()


@pytest.mark.thorough
def test_all_directions_at_once_are_those_one_by_one():
    start = jnp.array([0.1, 1.0, 0.3])

    def final(a):
        sgd = tts.SGD(epsilon=0.1, step_size=0.1)
        params = tts.Params(a, jnp.array([0.2, 0.7]))
        return tts.simulate(PROBLEM, sgd, params, [0.02], key=KEY).risk[-1]

    one_by_one = [jax.jvp(final, (start,), (row,))[1] for row in jnp.eye(3)]
    assert min(map(abs, one_by_one)) > 0
    np.testing.assert_allclose(jax.jacfwd(final)(start), one_by_one, rtol=1e-12)
