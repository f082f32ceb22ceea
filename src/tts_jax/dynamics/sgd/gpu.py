"""Runs of SGD on a GPU in one kernel: each thread has a run, and keeps its numbers in registers.

A loop of XLA launches kernels for every training step, which takes longer than the step. Here one
launch goes through thousands of steps, makes their samples on the way, and does for every run what
`OneRun` does: a training step is traced as it stands there, taken apart to single numbers, and
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
    samples, and for steps that cannot be taken apart or are too long.
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
        each = -1 if number.ndim else None  # the runs count steps of their own, or all the same

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
    """`advance_in_chunk` in the kernel."""
    source = runs.spec.source
    arrays = jax.tree.leaves(eqx.filter(_used(runs.spec), eqx.is_array))
    batched = jax.tree.leaves(_used(runs.is_batched))
    held = [KernelOperand(*both) for both in zip(arrays, batched, strict=True)]
    held += [KernelOperand(leaf, True) for leaf in jax.tree.leaves(base)]
    leaves, structure = jax.tree.flatten(moving)
    at, samples = first, []
    if step.is_hashed:
        at = (number * source.chunk_length + first).astype(jnp.uint64) * np.uint64(source.size)
    else:
        samples = [KernelOperand(v, not runs.share_samples) for v in runs.samples(number)]
    begun = [KernelOperand(leaf, True) for leaf in leaves]
    after = _steps(step.closed, source.size, held, begun, samples, at, end - first)
    return jax.tree.unflatten(structure, after), optimiser


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
