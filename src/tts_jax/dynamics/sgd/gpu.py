"""SGD on a GPU in one kernel: each thread has a run, and keeps its numbers in registers.

A loop of XLA launches kernels for every step, which takes longer than the step. Here one launch
goes through thousands of steps, makes their samples on the way, and does for every run what
`sgd_steps` does: a step of one run is traced as it stands there, taken apart to single numbers,
and written to the kernel.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._types import Array, Count, Tree
from ...batching.gpu_kernel import (
    BLOCK_RUNS,
    KernelInput,
    KernelOperand,
    KernelOutput,
    launch,
    on_gpu,
)
from ...batching.scalar_program import (
    ScalarArray,
    ScalarProgram,
    ScalarValue,
    operation_count,
    scalar_array,
)
from ...models.network import Params
from .loop import Way, begin, gradient_of, place
from .samples import Hashed, Replayed, words

LONGEST = 20_000
"""Operations of a step up to which it is written out."""


class KernelStep(NamedTuple):
    """A step of one run, traced.

    It is given the numbers of `used`, in rows, then where the run is, and a sample: where `hashed`,
    the sample's number as two words.
    """

    closed: Any
    hashed: bool

    def used(self, numbers: Any) -> tuple:
        """What a step needs of the numbers of a run, or of what is known of each of them."""
        # A stream is not needed: the kernel is given a chunk of it at a time.
        return numbers.problem, numbers.rates, numbers.source if self.hashed else None


def kernel_step(recipe: Any, numbers: Any) -> KernelStep | None:
    """The step of a run with such numbers, for the kernel, or None where there is none.

    So it is off a GPU, with an optimiser, with samples that a problem draws from a key, without
    samples, and for steps that cannot be taken apart or are too long.
    """
    source = numbers.source
    hashed = isinstance(source, Hashed)
    if not on_gpu() or not recipe.plain or not isinstance(source, Hashed | Replayed):
        return None
    found = KernelStep(None, hashed)
    used, static = eqx.partition(found.used(numbers), eqx.is_array)
    if any(leaf.dtype == bool for leaf in jax.tree.leaves(used)):
        return None

    def step(used: tuple, base: Tree, moving: Params, sample: tuple) -> Params:
        problem, rates, maker = eqx.combine(used, static)
        at = place(base, moving)
        given = maker.at(problem, *sample) if hashed else sample
        gradient = gradient_of(problem, source, recipe.train)(at, *given)
        change, _ = recipe.update(gradient, at, None, *rates)
        return jax.tree.map(jnp.add, moving, change)

    params = numbers.params
    base = params.u if begin(params, None).moved is not None else None
    if hashed:
        word = jax.ShapeDtypeStruct((source.size,), np.uint32)
        sample = (word, word)
    else:
        chunk = jax.eval_shape(lambda: source.chunk(numbers.problem, jnp.zeros((), jnp.int64)))
        sample = tuple(jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for v in chunk)
    closed = jax.make_jaxpr(step)(used, base, params, sample)
    count = operation_count(closed)
    return None if count is None or count > LONGEST else KernelStep(closed, hashed)


def kernel_way(
    step: KernelStep, numbers: Any, own: Any, chunk: Callable[[Count], tuple[Array, ...]]
) -> Way:
    """The way of runs side by side, on the last axis of what is `own`, in the kernel.

    `chunk` makes the samples that are not hashed, with the runs on the last axis where the problem
    or the stream is own.
    """
    source = numbers.source
    arrays = eqx.filter(step.used(numbers), eqx.is_array)
    is_own = jax.tree.leaves(step.used(own))
    fixed = [KernelOperand(*both) for both in zip(jax.tree.leaves(arrays), is_own, strict=True)]
    spread = any(jax.tree.leaves((own.problem, own.source)))

    def walk(
        number: Count, first: Count, end: Count, base: Tree, moving: Params, optimiser: Any
    ) -> tuple[Params, Any]:
        held = fixed + [KernelOperand(leaf, True) for leaf in jax.tree.leaves(base)]
        leaves, structure = jax.tree.flatten(moving)
        at, samples = first, []
        if step.hashed:
            at = (number * source.length + first).astype(jnp.uint64) * np.uint64(source.size)
        else:
            samples = [KernelOperand(v, spread) for v in chunk(number)]
        begun = [KernelOperand(leaf, True) for leaf in leaves]
        after = _steps(step.closed, source.size, held, begun, samples, at, end - first)
        return jax.tree.unflatten(structure, after), optimiser

    return Way(source.length, walk)


def _steps(
    closed: Any,
    size: int,
    fixed: list[KernelOperand],
    moving: list[KernelOperand],
    samples: list[KernelOperand],
    at: Count,
    turns: Count,
) -> list[Array]:
    """`turns` steps, () or (R,), from sample or row number `at`, () or (R,)."""
    runs = moving[0].array.shape[-1]
    one_by_one = turns.ndim > 0  # else all runs take as many steps
    count = KernelOperand(turns.astype(jnp.int32)[None], one_by_one)
    places = at.astype(jnp.int32)[None] if samples else jnp.stack(words(at))
    most = count.rows(-(-runs // BLOCK_RUNS) * BLOCK_RUNS).reshape(
        -1, BLOCK_RUNS if one_by_one else 1
    )
    head = [KernelOperand(jnp.max(most, axis=1), False), count, KernelOperand(places, at.ndim > 0)]

    def body(block: Array, held: list[KernelInput], outputs: list[KernelOutput]) -> None:
        step = ScalarProgram(closed, (BLOCK_RUNS,))
        bound, mine = held[0].at(block if one_by_one else 0), held[1].at(0)
        begun = held[2].read()
        values = [one.read() for one in held[3 : 3 + len(fixed)]]
        start = [one.read() for one in held[3 + len(fixed) :][: len(moving)]]
        streams = held[3 + len(fixed) + len(moving) :]

        def spread(parts: list[ScalarArray]) -> list[list[Array]]:
            return [[step.as_vector(number) for number in part.ravel()] for part in parts]

        def turn(t: Array, state: list[list[Array]]) -> list[list[Array]]:
            now = [
                scalar_array([ScalarValue(value) for value in part], was.shape)
                for part, was in zip(state, start, strict=True)
            ]
            if streams:
                sample = [_row(stream, begun[0].value + t) for stream in streams]
            else:
                sample = _places(begun, t, size)
            after = spread(step(*values, *now, *sample))
            if not one_by_one:
                return after
            return jax.tree.map(lambda new, old: jnp.where(t < mine, new, old), after, state)

        state = jax.lax.fori_loop(0, bound, turn, spread(start))
        for part, rows in zip(state, outputs, strict=True):
            for k, value in enumerate(part):
                rows[k] = value

    outputs = [(math.prod(v.shape), v.array.dtype) for v in moving]
    after = launch(body, [*head, *fixed, *moving, *samples], outputs, runs)
    return [v.reshape(was.array.shape) for v, was in zip(after, moving, strict=True)]


def _places(place: ScalarArray, turn: Array, size: int) -> list[ScalarArray]:
    """The numbers of the samples of a step, as two words, each (size,)."""
    high, low = (number.value for number in place)
    highs, lows = [], []
    for k in range(size):
        now = low + turn.astype(jnp.uint32) * np.uint32(size) + np.uint32(k)
        highs.append(ScalarValue(high + (now < low).astype(jnp.uint32)))
        lows.append(ScalarValue(now))
    return [scalar_array(highs, (size,)), scalar_array(lows, (size,))]


def _row(stream: KernelInput, row: Array) -> ScalarArray:
    """The samples of one step out of those of a chunk."""
    shape = stream.operand.shape[1:]
    width = math.prod(shape)
    return scalar_array([ScalarValue(stream.at(row * width + k)) for k in range(width)], shape)
