"""The hook to kernels, with functions in the place of kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.batching import gpu_dispatch


def plain(numbers, x):
    return numbers["scale"] * jnp.sin(x)


def kernel(is_batched, numbers, x):
    """What `plain` does, for runs on the last axis, and a sign that tells that it was here."""
    assert x.ndim == 1
    assert numbers["scale"].ndim == int(is_batched["scale"])
    return -numbers["scale"] * jnp.sin(x)


X = jnp.asarray([0.1, 0.7, 1.3])


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(gpu_dispatch, "by_device", lambda kernel, _, *given: kernel(*given))


def mapped(scale, axis):
    run = gpu_dispatch.vmap_to_kernel(plain, kernel)
    return jax.vmap(lambda s, x: run({"scale": s}, x), in_axes=(axis, 0))(scale, X)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("scale", "axis"), [(jnp.asarray(2.0), None), (2 * jnp.ones(3), 0)])
def test_a_batch_goes_to_the_kernel_and_a_run_alone_does_not(scale, axis):
    np.testing.assert_allclose(mapped(scale, axis), -2 * np.sin(X))
    alone = gpu_dispatch.vmap_to_kernel(plain, kernel)({"scale": jnp.asarray(2.0)}, X[0])
    np.testing.assert_allclose(alone, 2 * np.sin(X[0]))


def test_off_a_gpu_a_batch_is_its_runs():
    np.testing.assert_allclose(mapped(jnp.asarray(2.0), None), 2 * np.sin(X))


@pytest.mark.usefixtures("gpu")
def test_derivatives_are_those_of_the_run_alone():
    run = gpu_dispatch.vmap_to_kernel(plain, kernel)
    numbers = {"scale": jnp.asarray(2.0)}
    slopes = jax.grad(lambda x: jnp.sum(jax.vmap(lambda x: run(numbers, x))(x)))(X)
    np.testing.assert_allclose(slopes, 2 * np.cos(X))


@pytest.mark.usefixtures("gpu")
def test_a_kernel_for_all_has_the_derivative_of_what_stands_in_for_it():
    run = gpu_dispatch.kernel_or_plain(lambda x: -jnp.sin(x), jnp.sin)
    value, slope = jax.jvp(run, (X,), (jnp.ones(3),))
    np.testing.assert_allclose(value, -np.sin(X))
    np.testing.assert_allclose(slope, np.cos(X))
