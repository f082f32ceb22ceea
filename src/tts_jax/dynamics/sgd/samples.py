"""The samples that SGD trains on.

What a training step sees depends on the key and the number of the step alone. Samples come in
chunks of some thousand steps, on the first axis: few enough for the cache, many enough for the cost
of a chunk to vanish. Chunk c begins with step c times its length, whatever is recorded and however
many runs there are.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._types import Array, Count, Float, Int, Key
from ...problems.base import AbstractProblem
from ..base import RunInputs, Samples

CHUNK = 4096
"""Samples in a chunk."""

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


class AbstractSource(eqx.Module):
    """Where samples come from, `size` of them a training step."""

    size: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def chunk_length(self) -> int:
        """Training steps in a chunk."""

    @abc.abstractmethod
    def chunk(self, problem: AbstractProblem, number: Count) -> tuple[Array, ...]:
        """Return what the loss is given at each step of a chunk, (chunk_length, batch, ...)."""


class Whole(AbstractSource):
    """No samples: every training step goes down the whole risk."""

    size: int = eqx.field(static=True, default=0)

    @property
    def chunk_length(self) -> int:
        return CHUNK  # what float32 loses in a chunk comes back after it

    def chunk(self, problem: AbstractProblem, number: Count) -> tuple[Array, ...]:
        return ()


class Replayed(AbstractSource):
    """Samples of a given stream, which is filled up to whole chunks."""

    x: Array
    noise: Float[Array, "steps batch"]
    size: int = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    def __init__(self, samples: Samples, dtype: np.dtype):
        self.dtype = dtype
        x, noise = (v[:, None] if samples[1].ndim == 1 else v for v in samples)
        self.size = noise.shape[1]
        more = -noise.shape[0] % CHUNK
        self.x, self.noise = (
            jnp.pad(v, [(0, more), *[(0, 0)] * (v.ndim - 1)], mode="edge") for v in (x, noise)
        )

    @property
    def chunk_length(self) -> int:
        return CHUNK

    def chunk(self, problem: AbstractProblem, number: Count) -> tuple[Array, ...]:
        x, noise = (
            jax.lax.dynamic_slice_in_dim(v, number * CHUNK, CHUNK) for v in (self.x, self.noise)
        )
        x, y = problem.replayed(x)
        noise = noise.reshape(*noise.shape, *(1 for _ in y.shape[2:]))  # of a sample, not an output
        return x.astype(self.dtype), (y + noise).astype(self.dtype)


class Drawn(AbstractSource):
    """Samples that the problem's `draw` makes, with a key for each chunk."""

    key: Key
    noise: Float[Array, ""]
    size: int = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    @property
    def chunk_length(self) -> int:
        return max(1, CHUNK // self.size)

    def chunk(self, problem: AbstractProblem, number: Count) -> tuple[Array, ...]:
        x_key, noise_key = jax.random.split(jax.random.fold_in(self.key, number))
        x, y = problem.draw(x_key, self.chunk_length * self.size)
        noise = jax.random.uniform(noise_key, y.shape, y.dtype, -1.0, 1.0)
        y = y + self.noise.astype(y.dtype) * noise
        x = x.reshape(self.chunk_length, self.size, *x.shape[1:])
        return x.astype(self.dtype), y.reshape(self.chunk_length, self.size, *y.shape[1:]).astype(
            self.dtype
        )


class Hashed(AbstractSource):
    """Samples made of 64 random bits each, a function of the sample's number alone.

    For problems with `from_uniform`. 40 of the bits make x (24 in float32) and 24 the noise;
    `jax.random.bits` of the key made of `seed` has the same bits. For runs side by side `seed` is
    (2, R), and the last axis of a chunk is (R,).
    """

    seed: Int[Array, "2 *R"]
    noise: Float[Array, ""]
    size: int = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    @property
    def chunk_length(self) -> int:
        return max(1, CHUNK // self.size)

    def chunk(self, problem: AbstractProblem, number: Count) -> tuple[Array, ...]:
        count, runs = self.chunk_length * self.size, self.seed.shape[1:]
        place = number.astype(jnp.uint64) * np.uint64(count) + jnp.arange(count, dtype=jnp.uint64)
        x, y = self.at(problem, *words(place.reshape(count, *(1 for _ in runs))))
        shape = (self.chunk_length, self.size, *runs)
        return x.reshape(shape), y.reshape(shape)

    def at(self, problem: AbstractProblem, high: Array, low: Array) -> tuple[Array, Array]:
        """Return samples (n, *R) by their numbers (n, *R or 1), given as two words each."""
        high, low = threefry(self.seed[0][None], self.seed[1][None], high, low)
        x, y = of_dtype(problem, self.dtype).from_uniform(_fraction(high, low, self.dtype))
        unit = self.dtype.type(2.0**-23)
        # The middle of each of 2^24 intervals: the mean is zero.
        noise = _small(low, 24, self.dtype) * unit + (unit / 2 - 1)
        return x, y + self.noise.astype(self.dtype) * noise


def words(number: Array) -> tuple[Array, Array]:
    """Return the high and the low half of unsigned 64-bit numbers."""
    return (number >> np.uint64(32)).astype(jnp.uint32), number.astype(jnp.uint32)


def source_of(given: RunInputs, noise: Float[Array, ""], size: Any) -> AbstractSource:
    """Return the source that SGD uses for what it was given. `size`: samples a step, or "full"."""
    problem = given.problem
    if size == "full":
        return Whole()
    dtype = np.dtype(jnp.result_type(*jax.tree.leaves(given.params)))
    if given.samples is not None:
        return Replayed(given.samples, dtype)
    assert given.key is not None
    if not _made_of_uniform(problem):
        return Drawn(key=given.key, noise=noise, size=size, dtype=dtype)
    seed = jax.random.bits(given.key, (2,), jnp.uint32)
    return Hashed(seed=seed, noise=noise, size=size, dtype=dtype)


def _made_of_uniform(problem: AbstractProblem) -> bool:
    """Return whether a problem makes its samples by `from_uniform`: the most special of its classes
    that makes any decides."""
    makers = (c for c in type(problem).__mro__ if {"draw", "from_uniform"} & set(vars(c)))
    maker = next(makers)
    return maker is not AbstractProblem and "from_uniform" in vars(maker)


def of_dtype(problem: AbstractProblem, dtype: Any) -> AbstractProblem:
    """Return the problem with its numbers in another precision."""
    return jax.tree.map(lambda v: v.astype(dtype) if eqx.is_inexact_array(v) else v, problem)


def threefry(key_0: Array, key_1: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Return Threefry-2x32 with 20 rounds (Salmon et al., SC 2011) of the counter (high, low).

    That of JAX is a call that XLA does not fuse with what comes before and after it.
    """
    keys = (key_0, key_1, key_0 ^ key_1 ^ _PARITY)
    high, low = high + keys[0], low + keys[1]
    for turn in range(5):
        for by in _ROTATIONS[turn % 2]:
            high = high + low
            low = high ^ ((low << np.uint32(by)) | (low >> np.uint32(32 - by)))
        high = high + keys[(turn + 1) % 3]
        low = low + (keys[(turn + 2) % 3] + np.uint32(turn + 1))
    return high, low


def _fraction(high: Array, low: Array, dtype: np.dtype) -> Array:
    """Return numbers in [0, 1): 24 bits of `high`, or in float64 all of them and 8 of `low`."""
    if dtype != np.float64:
        return _small(high >> np.uint32(8), 24, dtype) * dtype.type(2.0**-24)
    more = _small(low >> np.uint32(24), 8, dtype)
    return (high.astype(dtype) * 2.0**8 + more) * 2.0**-40


def _small(word: Array, bits: int, dtype: np.dtype) -> Array:
    """Return the lowest bits of a word as a number."""
    # By a signed integer: that conversion is one instruction.
    return (word & np.uint32(2**bits - 1)).astype(jnp.int32).astype(dtype)
