"""SGD as on a GPU where there is none, for the tests: traced as there, and interpreted."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import results
from small_kernels import interpreted

import tts_jax as tts
from tts_jax import simulation
from tts_jax._programs import compiled
from tts_jax.batching import devices, gpu_dispatch
from tts_jax.dynamics.sgd import gpu as sgd_gpu
from tts_jax.dynamics.sgd import many_runs
from tts_jax.dynamics.sgd.gpu import kernel_step

WIDTH, SIZE = 2, 4
EPSILON, STEP = 0.5, 0.02
CHUNK = 8
STOPS = (0, 5, 8, 21)  # inside a chunk of samples, beside one, and beyond two
LENGTH = 200  # of a stream
ROUNDING = {"float64": 1e-13, "float32": 1e-6}

TARGET = tts.PiecewiseConstant([0.4], [1.0, 2.5])
CUBIC = tts.CubicStep(0.4)
ACTIVATIONS = [CUBIC, tts.Logistic(0.1), tts.Tanh(0.2), tts.Erf(0.2), tts.ReLU()]

# Numbers of steps of their own.
FACTORS = jnp.asarray([1.0, 0.5, 1.7, 30.0])  # of epsilon: the clock goes faster by so much
CLOCK = (4, 9, 37)

each_dtype = pytest.mark.parametrize("dtype", ROUNDING)


@contextlib.contextmanager
def as_on(*, gpu: bool, kernels: bool = False):
    """Traces as on a GPU, or not, and tells for each run that is traced whether by the kernel."""
    found = []

    def watched(*arguments: Any) -> Any:
        step = kernel_step(*arguments)
        found.append(step is not None)
        return step

    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setattr(sgd_gpu, "on_gpu", lambda: gpu)
        patch.setattr(devices, "on_cpu", lambda: not gpu)
        patch.setattr(many_runs, "kernel_step", watched)
        # A function of its own: what was traced elsewhere must not be found again.
        own = compiled(lambda *given: simulation._traced(*given))
        patch.setattr(simulation, "_run_once", own)
        if kernels:
            patch.setattr(gpu_dispatch, "by_device", lambda kernel, _, *given: kernel(*given))
            stack.enter_context(interpreted())
        yield found


def by_kernel(function: Callable, *arguments: Any, kernel: bool = True) -> Any:
    """As on a GPU, where it must go by the kernel, or must not."""
    with as_on(gpu=True, kernels=kernel) as found:
        out = results(function, *arguments)
    assert set(found) == {kernel}
    return out


def plainly(function: Callable, *arguments: Any) -> Any:
    with as_on(gpu=False) as found:
        out = results(function, *arguments)
    assert set(found) == {False}
    return out


def assert_same(mine: Any, other: Any, atol: float) -> None:
    for first, second in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
        assert first.shape == second.shape
        assert first.dtype == second.dtype
        np.testing.assert_allclose(first, second, rtol=0, atol=atol)


# Runs.


def start(size: int = SIZE, dtype: str = "float64") -> tts.Params:
    rng = np.random.default_rng(0)
    a, u = rng.normal(size=(size, WIDTH + 1)), rng.uniform(0.1, 0.9, size=(size, WIDTH))
    return tts.Params(jnp.asarray(a, dtype), jnp.asarray(u, dtype))


def keys(size: int = SIZE) -> jax.Array:
    return jax.random.split(jax.random.key(1), size)


def stream(*shape: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(2)
    return jnp.asarray(rng.uniform(size=shape)), jnp.asarray(rng.uniform(-0.3, 0.3, size=shape))


def first(params: tts.Params) -> tts.Params:
    return jax.tree.map(lambda leaf: leaf[0], params)


def problem(activation: tts.AbstractActivation = CUBIC) -> tts.Problem:
    return tts.Problem(tts.ShallowNetwork(activation), TARGET)


def trained(
    params: tts.Params,
    key: jax.Array | None = None,
    *,
    of: tts.AbstractProblem | None = None,
    epsilon: Any = EPSILON,
    noise: Any = None,
    stops: tuple[float, ...] = STOPS,
    samples: Any = None,
    **options: Any,
) -> tts.Trajectory:
    if noise is None:
        noise = 0.0 if key is None else 0.3
    how = tts.SGD(epsilon, STEP, noise=noise, **options)
    taus = jnp.asarray(stops, float) * (EPSILON * STEP)
    return tts.simulate(of or problem(), how, params, taus, key=key, samples=samples)


def replay(params: tts.Params, *replayed: jax.Array, **options: Any) -> tts.Trajectory:
    return trained(params, samples=replayed, **options)
