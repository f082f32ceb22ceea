"""The kernel of SGD is made for a GPU where there is none, or SGD is left to XLA."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import results
from small_sgd_kernels import (
    ACTIVATIONS,
    CLOCK,
    EPSILON,
    FACTORS,
    LENGTH,
    ROUNDING,
    SIZE,
    as_on,
    assert_same,
    each_dtype,
    first,
    keys,
    plainly,
    problem,
    replay,
    start,
    stream,
    trained,
)

import tts_jax as tts

pytestmark = pytest.mark.usefixtures("bare", "short_chunks")

each_activation = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)


def lowered(function: Callable, *arguments: Any) -> tuple[str, bool]:
    """The program for a GPU, and whether by the kernel."""
    with as_on(gpu=True) as found:
        text = (
            jax.jit(lambda *a: function(*a)).trace(*arguments).lower(lowering_platforms=("cuda",))
        )
    return text.as_text(), all(found)


def assert_lowers(function: Callable, *arguments: Any) -> None:
    text, kernel = lowered(function, *arguments)
    assert kernel
    assert "mosaic_gpu" in text


@pytest.mark.thorough
@each_dtype
@each_activation
def test_activations_lower(activation, dtype):
    run = functools.partial(trained, of=problem(activation))
    assert_lowers(jax.vmap(run), start(dtype=dtype), keys())


@pytest.mark.thorough
@each_dtype
@pytest.mark.parametrize("options", [{"batch_size": 7}, {"gradient": "box"}], ids=str)
def test_settings_lower(options, dtype):
    assert_lowers(jax.vmap(functools.partial(trained, **options)), start(dtype=dtype), keys())


@each_dtype
def test_epsilons_of_their_own_lower(dtype):
    def run(params, key, epsilon):
        return trained(params, key, epsilon=epsilon)

    assert_lowers(jax.vmap(run), start(dtype=dtype), keys(), FACTORS)


@each_dtype
@pytest.mark.parametrize("own", [True, False])
def test_streams_lower(own, dtype):
    axis, shape = (0, (SIZE, LENGTH)) if own else (None, (LENGTH,))
    assert_lowers(jax.vmap(replay, (0, axis, axis)), start(dtype=dtype), *stream(*shape))


def test_derivatives_and_other_devices_go_by_loops():
    """By the program that there is beside the kernel, of runs with epsilons of their own."""

    def run(params, key, factor):
        return trained(params, key, epsilon=EPSILON * factor, stops=CLOCK)

    given = (start(), keys(), FACTORS)
    moved = (jax.tree.map(jnp.ones_like, given[0]),)

    def slope(*given):
        return jax.jvp(lambda params: jax.vmap(run)(params, *given[1:]).params, given[:1], moved)

    with as_on(gpu=True) as found:  # a kernel would not run here
        mine = results(slope, *given)
    assert set(found) == {True}
    assert_same(mine, plainly(slope, *given), 1e-11)


def test_a_stream_with_epsilons_of_their_own_goes_by_a_loop():
    def run(params, factor, *replayed):
        return trained(params, epsilon=EPSILON * factor, stops=CLOCK, samples=replayed)

    given = (jax.vmap(run, (0, 0, None, None)), start(), FACTORS, *stream(LENGTH))
    with as_on(gpu=True):  # a kernel would not run here
        found = results(*given)
    assert_same(found, plainly(*given), ROUNDING["float64"])


def test_one_run_and_a_grid_lower():
    assert_lowers(trained, first(start()), jax.random.key(0))
    assert_lowers(jax.vmap(jax.vmap(trained, (None, 0)), (0, None)), start(2), keys(3))


class Through(tts.AbstractProblem):
    """Its loss is made of one function of x and u."""

    function: Callable = eqx.field(static=True)

    def risk(self, params):
        return jnp.sum(params.a)

    def from_uniform(self, v):
        return v, v

    def sample_loss(self, params, x, y):
        return jnp.sum(params.a * self.function(x, params.u).astype(x.dtype))


def word(x):
    return (1000.0 * jax.lax.stop_gradient(x)).astype(jnp.int32).astype(jnp.uint32)


OPERATIONS = {
    "abs": lambda x, u: jnp.abs(x - u),
    "clip": lambda x, u: jnp.clip(x - u, -0.5, 0.5),
    "compare": lambda x, u: (x > u) & ~(x >= u) | (x < u) ^ (x <= u) & (x == u) & (x != u),
    "compare words": lambda x, u: word(x) < word(u),
    "div": lambda x, u: x / u,
    "erf": lambda x, u: jax.lax.erf(x * u),
    "exp": lambda x, u: jnp.exp(x * u),
    "log": lambda x, u: jnp.log(x * u),
    "power": lambda x, u: (x * u) ** 5 + u**3 + x**2,
    "inverse power": lambda x, u: x * u**-3,
    "power 0": lambda x, u: jax.lax.integer_pow(x * u, 0),
    "rsqrt": lambda x, u: jax.lax.rsqrt(x * u),
    "select": lambda x, u: jnp.where(x > u, x, u),
    "select of 3": lambda x, u: jax.lax.select_n(word(x).astype(jnp.int32), x, u, x * u),
    "sign": lambda x, u: jnp.sign(x - u),
    "softplus": lambda x, u: jax.nn.softplus(x * u),
    "sin": lambda x, u: jnp.sin(x * u),
    "sqrt": lambda x, u: jnp.sqrt(x * u),
    "square": lambda x, u: jnp.square(x - u),
    "words": lambda x, u: ~((word(x) << np.uint32(3)) ^ (word(u) >> np.uint32(2)) | word(x)),
    "words' sums": lambda x, u: word(x) + word(u) - word(x) * word(u),
    "words' ends": lambda x, u: jnp.minimum(jnp.maximum(word(x), word(u)), np.uint32(7)),
    "to bool": lambda x, u: word(x).astype(bool),
    "to float16": lambda x, u: x.astype(jnp.float16),
    "to int64": lambda x, u: (100.0 * x).astype(jnp.int64),
    "norm": lambda x, u: jnp.linalg.norm(jnp.concatenate([x, u]))[None],
}


LEFT_TO_XLA = {"softplus", "sin"}
"""What surely is. Others may be, or not."""


@pytest.mark.thorough
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_lower_or_are_left_to_xla(name):
    """A problem of a user's own never fails on a GPU for what its loss is made of."""
    one = jnp.ones(1, jnp.float32)

    def run(key):
        return trained(tts.Params(one, one), key, of=Through(OPERATIONS[name]), stops=(1,))

    text, kernel = lowered(jax.vmap(run), keys())
    assert ("mosaic_gpu" in text) == kernel
    assert not kernel or name not in LEFT_TO_XLA
