"""Runs of SGD on a GPU in one kernel: each thread has a run, and keeps its numbers in registers.

A loop of XLA launches kernels for every training step, which takes longer than the step. Here one
launch goes through thousands of steps, makes their samples on the way, and does for every run what
`OneRun` does: a training step is traced as it stands there, split into single numbers, and
written to the kernel.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._types import Array, Count, Tree
from ...batching.gpu_dispatch import kernel_or_plain
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
from .loop import AbstractRun, RunState
from .one_run import OneRun
from .run_spec import BatchedSpec, RunSpec
from .samples import Hashed, Replayed, words

LONGEST = 20_000
"""Operations of a training step up to which it is written out."""


class KernelStep(NamedTuple):
    """A training step of one run, traced for the kernel.

    It is given the arrays that `_used` names, where the run is, and a sample: where `is_hashed`,
    the sample's number as two words.
    """

    closed: Any
    is_hashed: bool


def _used(spec: RunSpec) -> tuple:
    """Return what a training step needs of a spec, or of a tree like it."""
    # A stream is not needed: the kernel is given a chunk of it at a time.
    source = spec.source if isinstance(spec.source, Hashed) else None
    return spec.problem, spec.update, source


def kernel_step(spec: RunSpec) -> KernelStep | None:
    """Return the training step of such a run for the kernel, or None where there is none.

    So it is off a GPU, with an optimiser, with samples that a problem draws from a key, without
    samples, and for steps that cannot be split into single numbers or are too long.
    """
    source = spec.source
    is_hashed = isinstance(source, Hashed)
    if not on_gpu() or not spec.update.is_elementwise:
        return None
    if not isinstance(source, Hashed | Replayed):
        return None
    used, static = eqx.partition(_used(spec), eqx.is_array)
    if any(leaf.dtype == bool for leaf in jax.tree.leaves(used)):
        return None

    def step(used: tuple, base: Tree, moving: Params, sample: tuple) -> Params:
        problem, update, hashed = eqx.combine(used, static)
        given = sample if hashed is None else hashed.at(problem, *sample)
        run = OneRun(dataclasses.replace(spec, problem=problem, update=update))
        return run.training_step(run.gradient(), base, moving, None, *given)[0]

    params = spec.params
    base = None if RunState.at_start(params, None).moved is None else params.u
    if is_hashed:
        word = jax.ShapeDtypeStruct((source.size,), np.uint32)
        sample = (word, word)
    else:
        chunk = jax.eval_shape(lambda: source.chunk(spec.problem, jnp.zeros((), jnp.int64)))
        sample = tuple(jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for v in chunk)
    closed = jax.make_jaxpr(step)(used, base, params, sample)
    count = operation_count(closed)
    return None if count is None or count > LONGEST else KernelStep(closed, is_hashed)


class RunsInKernel(AbstractRun):
    """Runs side by side in the kernel; on other devices, and for derivatives, each in a loop.

    `is_single`: whether it is one run, which the user knows without an axis of runs.
    """

    runs: BatchedSpec
    step: KernelStep
    is_single: bool = False

    @property
    def chunk_length(self) -> int:
        return self.runs.spec.source.chunk_length

    def begin(self) -> RunState:
        state = RunState.at_start(*self.runs.start())
        if self.runs.is_batched.stops:
            state = state._replace(step=jnp.zeros(self.runs.size, state.step.dtype))
        return state

    def advance_in_chunk(
        self, number: Count, first: Count, end: Count, base: Tree, moving: Params, optimiser: Any
    ) -> tuple[Params, Any]:
        is_batched, axes = self.runs.is_batched, self.runs.axes
        arrays, static = eqx.partition(self.runs.spec, eqx.is_array)
        each = -1 if number.ndim else None  # whether each run counts its own steps

        def in_kernel(arrays: RunSpec, *part: Any) -> tuple[Params, Any]:
            runs = BatchedSpec(eqx.combine(arrays, static), is_batched)
            return _in_kernel(runs, self.step, *part)

        def in_loops(arrays: RunSpec, *part: Any) -> tuple[Params, Any]:
            def one(arrays: RunSpec, *part: Any) -> tuple[Params, Any]:
                return OneRun(eqx.combine(arrays, static)).advance_in_chunk(*part)

            over = (axes, each, each, each, -1, -1, -1)
            return jax.vmap(one, over, out_axes=-1)(arrays, *part)

        advance = kernel_or_plain(in_kernel, in_loops)
        return advance(arrays, number, first, end, base, moving, optimiser)

    def to_user(self, params: Params) -> Params:
        return jax.tree.map(lambda leaf: leaf[..., 0], params) if self.is_single else params


def _in_kernel(
    runs: BatchedSpec,
    step: KernelStep,
    number: Count,
    first: Count,
    end: Count,
    base: Tree,
    moving: Params,
    optimiser: Any,
) -> tuple[Params, Any]:
    """Do what `advance_in_chunk` does, in the kernel."""
    source = runs.spec.source
    arrays = jax.tree.leaves(eqx.filter(_used(runs.spec), eqx.is_array))
    batched = jax.tree.leaves(_used(runs.is_batched))
    fixed = [KernelOperand(*both) for both in zip(arrays, batched, strict=True)]
    fixed += [KernelOperand(leaf, True) for leaf in jax.tree.leaves(base)]
    leaves, structure = jax.tree.flatten(moving)
    place, samples = first, []
    if step.is_hashed:
        place = (number * source.chunk_length + first).astype(jnp.uint64) * np.uint64(source.size)
    else:
        samples = [KernelOperand(v, not runs.share_samples) for v in runs.samples(number)]
    changing = [KernelOperand(leaf, True) for leaf in leaves]
    after = _steps(step.closed, source.size, fixed, changing, samples, place, end - first)
    return jax.tree.unflatten(structure, after), optimiser


def _steps(
    closed: Any,
    batch: int,
    fixed: list[KernelOperand],
    changing: list[KernelOperand],
    samples: list[KernelOperand],
    place: Count,
    steps: Count,
) -> list[Array]:
    """Return the arrays that a training step changes after some steps.

    `closed`: the step, from the numbers in `fixed`, those in `changing` and a sample to the latter;
    `samples`: a chunk of a stream, or nothing where samples are made of their numbers; `place`: the
    row of the chunk, or the number of the sample, at which the steps begin; `steps`: how many they
    are. Both are (), or (R,) where the runs count their own.
    """
    runs = changing[0].array.shape[-1]
    counted_by_each = steps.ndim > 0
    count = KernelOperand(steps.astype(jnp.int32)[None], counted_by_each)
    places = place.astype(jnp.int32)[None] if samples else jnp.stack(words(place))
    # A block of runs goes on until the last of them has taken its steps.
    in_blocks = count.rows(-(-runs // BLOCK_RUNS) * BLOCK_RUNS).reshape(
        -1, BLOCK_RUNS if counted_by_each else 1
    )
    longest = KernelOperand(jnp.max(in_blocks, axis=1), False)
    head = [longest, count, KernelOperand(places, place.ndim > 0)]

    def body(block: Array, inputs: list[KernelInput], outputs: list[KernelOutput]) -> None:
        program = ScalarProgram(closed, (BLOCK_RUNS,))
        (blocks, counts, start), rest = inputs[:3], inputs[3:]
        last, steps = blocks.at(block if counted_by_each else 0), counts.at(0)
        begin = start.read()
        values = [one.read() for one in rest[: len(fixed)]]
        shaped = [one.read() for one in rest[len(fixed) :][: len(changing)]]
        stream = rest[len(fixed) + len(changing) :]

        def registers(parts: list[ScalarArray]) -> list[list[Array]]:
            return [[program.as_vector(number) for number in part.ravel()] for part in parts]

        def one_step(i: Array, state: list[list[Array]]) -> list[list[Array]]:
            now = [
                scalar_array([ScalarValue(value) for value in part], like.shape)
                for part, like in zip(state, shaped, strict=True)
            ]
            if stream:
                sample = [_row(one, begin[0].value + i) for one in stream]
            else:
                sample = _places(begin, i, batch)
            after = registers(program(*values, *now, *sample))
            if not counted_by_each:
                return after
            return jax.tree.map(lambda new, old: jnp.where(i < steps, new, old), after, state)

        state = jax.lax.fori_loop(0, last, one_step, registers(shaped))
        for part, rows in zip(state, outputs, strict=True):
            for k, value in enumerate(part):
                rows[k] = value

    outputs = [(math.prod(v.shape), v.array.dtype) for v in changing]
    after = launch(body, [*head, *fixed, *changing, *samples], outputs, runs)
    return [v.reshape(was.array.shape) for v, was in zip(after, changing, strict=True)]


def _places(begin: ScalarArray, step: Array, batch: int) -> list[ScalarArray]:
    """Return the numbers of the samples of a training step, as two words, each (batch,)."""
    high, low = (number.value for number in begin)
    highs, lows = [], []
    for k in range(batch):
        now = low + step.astype(jnp.uint32) * np.uint32(batch) + np.uint32(k)
        highs.append(ScalarValue(high + (now < low).astype(jnp.uint32)))
        lows.append(ScalarValue(now))
    return [scalar_array(highs, (batch,)), scalar_array(lows, (batch,))]


def _row(stream: KernelInput, row: Array) -> ScalarArray:
    """Return the samples of one training step out of those of a chunk."""
    shape = stream.operand.shape[1:]
    width = math.prod(shape)
    return scalar_array([ScalarValue(stream.at(row * width + k)) for k in range(width)], shape)
