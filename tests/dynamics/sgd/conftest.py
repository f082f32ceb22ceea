"""What the tests of SGD share."""

import jax
import jax.numpy as jnp
import pytest
import small_sgd_kernels

from tts_jax import simulation
from tts_jax._programs import compiled
from tts_jax.dynamics.sgd import dynamics, samples

# Functions of their own: what is traced with other records must not be found again.
run_once = compiled(lambda *given: simulation._traced(*given))
run_outputs = compiled(lambda *given: dynamics.run_outputs(*given))


def sum_of_parameters(problem, params):
    return sum(jnp.sum(jnp.reshape(v, (v.shape[0], -1)), axis=1) for v in jax.tree.leaves(params))


@pytest.fixture
def bare(monkeypatch):
    """Records with the sum of the parameters as their risk and without scales: for tests of where a
    run goes, most of whose time would be the compilation of these."""
    monkeypatch.setattr(dynamics, "recorded_risks", sum_of_parameters)
    monkeypatch.setattr(dynamics, "sgd_scales", lambda *_, **__: {})
    monkeypatch.setattr(dynamics, "_run_outputs", run_outputs)
    monkeypatch.setattr(simulation, "_run_once", run_once)


@pytest.fixture
def standard_promotion():
    """optax's Adam multiplies floats with integers, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def short_chunks(monkeypatch):
    """Chunks of a few samples, so that runs of a few steps go through several."""
    monkeypatch.setattr(samples, "CHUNK", small_sgd_kernels.CHUNK)
