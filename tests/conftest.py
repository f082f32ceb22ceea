"""Strictness for every test, and the problem of the paper."""

import os
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts

# For the processes that tests start, many of which compile the same. Here, after its import, JAX
# does not see it: it would write more than it would read.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# XLA compiles what tests compile in three quarters of the time with its older emitters and fewer
# passes. Long runs would be slower, so that users do not get this from `configure`.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1"
)

# As a user does. Also for the pages of the documentation, which are run here and call it again.
tts.configure()
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def target() -> tts.PiecewiseConstant:
    return tts.PiecewiseConstant([0.2, 0.35, 0.5, 0.65, 0.8], [1.0, 5.0, 1.0, 3.0, 1.0, 5.0])


@pytest.fixture(scope="session")
def problem(target: tts.PiecewiseConstant) -> tts.Problem:
    return tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=4e-3)), target)


@pytest.fixture(scope="session")
def start() -> tts.Params:
    """u(0) from NumPy's legacy generator at seed 42, a = 0."""
    u = np.sort(np.random.RandomState(42).uniform(size=20))
    return tts.Params(a=jnp.zeros(21), u=jnp.asarray(u))
