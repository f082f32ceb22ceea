"""What few runs need: only they get it, and nobody else is changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.batching import devices as _device
from tts_jax.batching.gathered_cond import gathered_cond


@pytest.fixture(autouse=True, params=[True, False], ids=["on a CPU", "elsewhere"])
def on_cpu(request, monkeypatch):
    monkeypatch.setattr(_device, "on_cpu", lambda: request.param)
    return request.param


def one(needed, scale, x):
    """x, or if it is needed a function of it, of a number, and of one that all runs share."""
    shared = jnp.asarray(0.5)
    return gathered_cond(needed, lambda x: jnp.sin(scale * x) + shared, x)


@pytest.mark.parametrize("size", [1, 5, 16, 37])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_those_that_need_it_are_changed_and_no_others(size, share):
    rng = np.random.default_rng(size)
    needed = rng.uniform(size=size) < share
    scale, x = rng.normal(size=size), rng.normal(size=(size, 3))
    found = jax.jit(jax.vmap(lambda *own: one(*own)))(needed, scale, x)
    both = np.where(needed[:, None], np.sin(scale[:, None] * x) + 0.5, x)
    np.testing.assert_allclose(found, both, rtol=0, atol=1e-15)


@pytest.mark.parametrize("own", range(3))
def test_any_of_them_may_be_shared(own):
    given = [jnp.asarray(True), jnp.asarray(0.3), jnp.asarray([1.0, -2.0, 0.4])]
    rows = [jnp.asarray([True, False, True]), jnp.asarray([0.3, 0.1, 2.0]), jnp.ones((3, 3))][own]
    axes = [0 if place == own else None for place in range(3)]
    each = [[*given[:own], row, *given[own + 1 :]] for row in rows]
    given[own] = rows
    found = jax.jit(jax.vmap(lambda *all_: one(*all_), axes))(*given)
    for row, arguments in zip(found, each, strict=True):
        np.testing.assert_allclose(row, one(*arguments), rtol=0, atol=1e-15)


def test_vmap_of_vmap_is_one_by_one():
    rng = np.random.default_rng(0)
    needed, scale = jnp.asarray([True, False]), jnp.asarray(rng.normal(size=3))
    x = jnp.asarray(rng.normal(size=(2, 3)))
    found = jax.jit(jax.vmap(jax.vmap(one, (None, 0, None)), (0, None, 0)))(needed, scale, x)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(found[i, j], one(needed[i], scale[j], x[i]), atol=1e-15)


@pytest.mark.thorough
def test_derivatives_are_those_of_the_branch_that_is_taken():
    rng = np.random.default_rng(1)
    needed = jnp.asarray([True, False, True, False, False])
    scale, x = jnp.asarray(rng.normal(size=5)), jnp.asarray(rng.normal(size=(5, 3)))

    def total(scale, x):
        return jnp.sum(jax.vmap(one)(needed, scale, x) ** 2)

    def plain(scale, x):
        return jnp.sum(jnp.where(needed[:, None], jnp.sin(scale[:, None] * x) + 0.5, x) ** 2)

    for how in (jax.grad, jax.jacfwd):
        found, wanted = (jax.jit(how(f, (0, 1)))(scale, x) for f in (total, plain))
        for f, w in zip(found, wanted, strict=True):
            np.testing.assert_allclose(f, w, rtol=0, atol=1e-14)
    alone = jax.jit(jax.grad(lambda s: jnp.sum(one(needed[0], s, x[0]) ** 2)))(scale[0])
    np.testing.assert_allclose(alone, jax.grad(total)(scale, x)[0], rtol=1e-12)
