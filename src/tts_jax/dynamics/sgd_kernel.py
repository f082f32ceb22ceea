"""SGD on a GPU in one kernel: each thread has a run, and keeps its numbers in registers.

A loop of XLA launches kernels for every step, which takes longer than the step. Here one launch
goes through thousands of steps, makes their samples on the way, and does for every run what
`sgd_steps` does: a step of one run is traced as it stands there, taken apart to single numbers,
and written to the kernel. By Pallas, in its Mosaic GPU backend.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Count, Tree
from ..networks import Params
from .samples import Hashed, Replayed, words
from .sgd_steps import Way, begin, gradient_of, place
from .unrolled import Entries, Number, Unrolled, entries, known, operations

RUNS = 128
"""Runs in a block of threads: a vector of Mosaic has a number for each of so many threads."""

LONGEST = 20_000
"""Operations of a step up to which it is written out."""

_HOPPER = 9.0
"""The compute capability from which on there is Mosaic's backend."""


def on_gpu() -> bool:
    """Whether the default device runs such kernels. Asked while tracing."""
    if jax.default_backend() != "gpu":
        return False
    try:
        return float(jax.devices()[0].compute_capability) >= _HOPPER
    except (AttributeError, ValueError):  # not one of NVIDIA's
        return False


class _Operand(NamedTuple):
    """An array that a kernel reads: with the runs on its last axis, or the same for all."""

    array: Array
    is_own: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """For one run."""
        return self.array.shape[:-1] if self.is_own else self.array.shape

    def rows(self, runs: int) -> Array:
        """(n,), or (n, runs) filled up with the last run."""
        if not self.is_own:
            return self.array.reshape(-1)
        rows = self.array.reshape(-1, self.array.shape[-1])
        more = runs - rows.shape[1]
        return jnp.pad(rows, ((0, 0), (0, more)), mode="edge") if more else rows


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
    count = operations(closed)
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
    fixed = [_Operand(*both) for both in zip(jax.tree.leaves(arrays), is_own, strict=True)]
    spread = any(jax.tree.leaves((own.problem, own.source)))

    def walk(
        number: Count, first: Count, end: Count, base: Tree, moving: Params, optimiser: Any
    ) -> tuple[Params, Any]:
        held = fixed + [_Operand(leaf, True) for leaf in jax.tree.leaves(base)]
        leaves, structure = jax.tree.flatten(moving)
        at, samples = first, []
        if step.hashed:
            at = (number * source.length + first).astype(jnp.uint64) * np.uint64(source.size)
        else:
            samples = [_Operand(v, spread) for v in chunk(number)]
        begun = [_Operand(leaf, True) for leaf in leaves]
        after = _launch(step.closed, source.size, held, begun, samples, at, end - first)
        return jax.tree.unflatten(structure, after), optimiser

    return Way(source.length, walk)


def _launch(
    closed: Any,
    size: int,
    fixed: list[_Operand],
    moving: list[_Operand],
    samples: list[_Operand],
    at: Count,
    turns: Count,
) -> list[Array]:
    """`turns` steps, () or (R,), from sample or row number `at`, () or (R,)."""
    # Imported where it is needed: it takes long, and there are installations of JAX without it.
    from jax.experimental.pallas import ds
    from jax.experimental.pallas import mosaic_gpu as gpu

    runs = moving[0].array.shape[-1]
    blocks = -(-runs // RUNS)
    step = Unrolled(closed, (RUNS,))
    one_by_one = turns.ndim > 0  # else all runs take as many steps
    places = at.astype(jnp.int32)[None] if samples else jnp.stack(words(at))
    count = _Operand(turns.astype(jnp.int32)[None], one_by_one)
    given = [count, _Operand(places, at.ndim > 0), *fixed, *moving, *samples]
    given = [operand for operand in given if operand.array.size]
    rows = [operand.rows(blocks * RUNS) for operand in given]
    most = jnp.max(rows[0].reshape(blocks, -1), axis=1) if one_by_one else rows[0]

    def body(most: Any, *refs: Any) -> None:
        block = jax.lax.axis_index("block")
        lanes = ds(block * RUNS, RUNS)
        inputs, outputs = iter(refs[: len(given)]), refs[len(given) :]

        def read(operand: _Operand) -> Entries:
            if not operand.array.size:
                return known(np.zeros(operand.shape, operand.array.dtype))
            ref, each = next(inputs), range(math.prod(operand.shape))
            found = [ref[k, lanes] if operand.is_own else ref[k] for k in each]
            return entries([Number(value) for value in found], operand.shape)

        (mine,), place, *held = [read(operand) for operand in (*given[:2], *fixed)]
        start = [read(operand) for operand in moving]
        streams = list(inputs)

        def sample(turn: Array) -> list[Entries]:
            if not samples:
                return _places(step, place, turn, size)
            row = place[0].value + turn
            return [_row(*both, row, lanes) for both in zip(samples, streams, strict=True)]

        def more(turn: Array, values: list[Array]) -> list[Array]:
            now = [
                entries([Number(value) for value in part], was.shape)
                for part, was in zip(values, start, strict=True)
            ]
            after = step(*held, *now, *sample(turn))
            after = [[step.spread(number) for number in part.ravel()] for part in after]
            if not one_by_one:
                return after
            going = turn < mine.value
            return jax.tree.map(lambda new, old: jnp.where(going, new, old), after, values)

        first = [[step.spread(number) for number in part.ravel()] for part in start]
        bound = most[block] if one_by_one else most[0]
        for part, ref in zip(jax.lax.fori_loop(0, bound, more, first), outputs, strict=True):
            for k, value in enumerate(part):
                ref[k, lanes] = value

    shapes = [
        jax.ShapeDtypeStruct((math.prod(v.shape), blocks * RUNS), v.array.dtype) for v in moving
    ]
    kernel = gpu.kernel(
        body,
        out_type=shapes,
        grid=(blocks,),
        grid_names=("block",),
        compiler_params=gpu.CompilerParams(lowering_semantics=gpu.LoweringSemantics.Lane),
    )
    after = kernel(most, *rows)
    return [v[:, :runs].reshape(was.array.shape) for v, was in zip(after, moving, strict=True)]


def _places(step: Unrolled, place: Entries, turn: Array, size: int) -> list[Entries]:
    """The numbers of the samples of a step, as two words, each (size,)."""
    high, low = (number.value for number in place)
    highs, lows = [], []
    for k in range(size):
        now = low + turn.astype(jnp.uint32) * np.uint32(size) + np.uint32(k)
        highs.append(Number(high + (now < low).astype(jnp.uint32)))
        lows.append(Number(now))
    return [entries(highs, (size,)), entries(lows, (size,))]


def _row(operand: _Operand, stream: Any, row: Array, lanes: Any) -> Entries:
    """The samples of one step out of those of a chunk."""
    shape = operand.shape[1:]
    width = math.prod(shape)
    each = [row * width + k for k in range(width)]
    found = [stream[k, lanes] if operand.is_own else stream[k] for k in each]
    return entries([Number(value) for value in found], shape)
