"""Runs of SGD in the vector lanes, and the choice of what advances a run: alone, lanes, kernel."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..._types import Array, Count
from ...batching.vector_lanes import vmap_in_lanes
from ...models.network import Params
from ...problems.base import AbstractProblem
from .gpu import KernelStep, RunsInKernel, kernel_step
from .loop import AbstractLoopedRun, AbstractRun, RunState
from .one_run import OneRun
from .run_spec import BatchedSpec, RunSpec

MOST_SAMPLES = 6
"""Samples a training step up to which lanes pay. XLA sums more of them a run at a time."""


class RunsInLanes(AbstractLoopedRun):
    """Runs side by side, the neurons in rows: so each instruction does a step of several runs."""

    runs: BatchedSpec

    @property
    def chunk_length(self) -> int:
        return self.runs.spec.source.chunk_length

    def begin(self) -> RunState:
        return RunState.at_start(*self.runs.start())

    def samples(self, number: Count) -> tuple[Array, ...]:
        return self.runs.samples(number)

    def gradient(self) -> Callable[..., Params]:
        runs = self.runs
        spec, size = runs.spec, runs.size

        def of_one(problem: AbstractProblem, params: Params, *sample: Array) -> Params:
            return dataclasses.replace(spec, problem=problem).gradient()(params, *sample)

        def of_all(params: Params, *sample: Array) -> Params:
            if runs.share_samples:
                sample = tuple(jnp.broadcast_to(v[..., None], (*v.shape, size)) for v in sample)
            if jax.tree.leaves(runs.axes.problem):
                in_axes = (runs.axes.problem, -1, *(-1 for _ in sample))
                each = jax.vmap(of_one, in_axes=in_axes, out_axes=-1)
                return each(spec.problem, params, *sample)
            # A run's loss depends on its own parameters only: the sum has all the gradients.
            losses = spec.trained_problem.sample_losses
            return jax.grad(lambda p: jnp.sum(losses(p, *sample)))(params)

        return of_all

    def update(self, gradient: Params, params: Params, optimiser: Any) -> tuple[Params, Any]:
        update = self.runs.spec.update
        if update.is_elementwise:
            return update(gradient, params, optimiser)
        in_axes = (self.runs.axes.update, -1, -1, -1)
        each = jax.vmap(lambda update, *given: update(*given), in_axes=in_axes, out_axes=-1)
        return each(update, gradient, params, optimiser)

    def to_user(self, params: Params) -> Params:
        return params


def record_run(spec: RunSpec) -> tuple[Params, Count]:
    """Return the parameters at every stop, and the training steps taken.

    Under `jax.vmap`, over any arrays of the spec, runs go where they are fastest: in the kernel if
    there is one, else on a CPU in the lanes if that pays, else in turn.
    """
    kernel = kernel_step(spec)

    def alone(spec: RunSpec) -> tuple[Params, Count]:
        return run_alone(spec, kernel).record(spec.stops)

    def in_loop(spec: RunSpec) -> tuple[Params, Count]:
        return OneRun.padded(spec).record(spec.stops)

    def side_by_side(spec: RunSpec, is_batched: RunSpec) -> tuple[Params, Count]:
        runs = BatchedSpec(spec, is_batched)
        together = RunsInLanes(runs) if kernel is None else RunsInKernel(runs, kernel)
        ys, steps = together.record(spec.stops)
        return ys, jnp.broadcast_to(steps, (runs.size,))

    def pays(is_batched: RunSpec) -> bool:
        if kernel is not None:
            return kernel.is_hashed or not is_batched.stops
        few = 0 < spec.source.size <= MOST_SAMPLES
        return few and not is_batched.stops and not spec.update.needs_value

    return vmap_in_lanes(in_loop, side_by_side, pays, alone)(spec)


def run_alone(spec: RunSpec, kernel: KernelStep | None) -> AbstractRun:
    """Return what advances a run without others: the kernel if there is one, else a loop of XLA."""
    if kernel is None:
        return OneRun.padded(spec)
    return RunsInKernel(BatchedSpec.of_one(spec), kernel, is_single=True)
