"""Runs under `jax.vmap`, one after the other on a CPU and together elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.batching import devices
from tts_jax.batching.sequential import in_turn, one_by_one


def halvings(x, y):
    """How often x can be halved until it is below 1, a loop of a length of its own, and x y."""
    count = jax.lax.while_loop(lambda s: s[1] >= 1.0, lambda s: (s[0] + 1.0, s[1] / 2), (0.0, x))
    return {"count": count[0], "product": x * y}


X, Y = jnp.asarray([0.5, 7.0, 100.0]), jnp.asarray(3.0)


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("wrap", [in_turn, one_by_one])
def test_a_batch_is_its_runs(monkeypatch, wrap, on_cpu):
    monkeypatch.setattr(devices, "on_cpu", lambda: on_cpu)
    found = jax.vmap(wrap(halvings), in_axes=(0, None))(X, Y)
    np.testing.assert_array_equal(found["count"], [0.0, 3.0, 7.0])
    np.testing.assert_array_equal(found["product"], 3 * X)


def test_on_a_cpu_they_are_a_loop_over_runs():
    program = str(jax.make_jaxpr(jax.vmap(in_turn(halvings), in_axes=(0, None)))(X, Y))
    assert "scan[" in program
    assert "length=3" in program


def test_derivatives_are_those_of_the_function():
    def product(x):
        return in_turn(halvings)(x, Y)["product"] * x

    np.testing.assert_allclose(jax.vmap(jax.grad(product))(X), 6 * X)
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(jax.vmap(product)(x)))(X), 6 * X)


def test_elsewhere_a_function_for_all_takes_batches_of_batches_as_one(monkeypatch):
    monkeypatch.setattr(devices, "on_cpu", lambda: False)
    sizes = []

    def together(given, leaves):
        sizes.append(leaves[0].shape[0])
        return jax.vmap(lambda each: halvings(*given(each)))(leaves)

    mapped = one_by_one(halvings, together)
    found = jax.vmap(jax.vmap(mapped, in_axes=(0, None)), in_axes=(None, 0))(X, jnp.stack([Y, Y]))
    assert sizes[-1] == 6
    np.testing.assert_array_equal(found["count"], [[0.0, 3.0, 7.0]] * 2)
