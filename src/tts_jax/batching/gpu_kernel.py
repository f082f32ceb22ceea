"""Kernels for GPUs: a run in each thread. By Pallas, in its Mosaic GPU backend."""

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array
from . import devices as _device
from .scalar_program import Entries, Number, entries, known

BLOCK_RUNS = 128
"""Runs in a block of threads: a vector of Mosaic has a number for each of so many threads."""

_HOPPER = 9.0
"""The compute capability from which on there is Mosaic's backend."""

_MOSAIC = "jax.experimental.pallas.mosaic_gpu"


def on_gpu() -> bool:
    """Whether all local devices run such kernels. Asked while tracing."""
    if _device.platform() not in ("gpu", "cuda") or find_spec(_MOSAIC) is None:
        return False
    try:
        return all(float(d.compute_capability) >= _HOPPER for d in jax.local_devices())
    except (AttributeError, ValueError):  # not of NVIDIA's
        return False


class KernelOperand(NamedTuple):
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


class KernelInput(NamedTuple):
    """An operand in a kernel: where it is, and which of its columns are those of the block."""

    operand: KernelOperand
    ref: Any
    lanes: Any

    def at(self, row: Any) -> Array:
        """A number of every run, or of all of them: the row may be known or not."""
        return self.ref[row, self.lanes] if self.operand.is_own else self.ref[row]

    def read(self) -> Entries:
        """All of it."""
        shape = self.operand.shape
        if not self.operand.array.size:
            return known(np.zeros(shape, self.operand.array.dtype))
        return entries([Number(self.at(k)) for k in range(math.prod(shape))], shape)


class KernelOutput:
    """What a kernel writes, a row of a number of every run at a time, and may read again."""

    def __init__(self, ref: Any, lanes: Any):
        self._ref, self._lanes = ref, lanes

    def __getitem__(self, row: Any) -> Array:
        return self._ref[row, self._lanes]

    def __setitem__(self, row: Any, value: Array) -> None:
        self._ref[row, self._lanes] = value


def launch(
    body: Callable[[Any, list[KernelInput], list[KernelOutput]], None],
    operands: Sequence[KernelOperand],
    outputs: Sequence[tuple[int, Any]],
    runs: int,
) -> list[Array]:
    """Run a kernel for so many runs: `body(block, operands, outputs)` for `BLOCK_RUNS` of them each.

    Returns an array (rows, runs) for each of the outputs, (rows, dtype), which begin undefined.
    """
    # Imported where it is needed: it takes long.
    from jax.experimental.pallas import ds
    from jax.experimental.pallas import mosaic_gpu as gpu

    blocks = -(-runs // BLOCK_RUNS)
    there = [operand for operand in operands if operand.array.size]

    def whole(*refs: Any) -> None:
        block = jax.lax.axis_index("block")
        lanes = ds(block * BLOCK_RUNS, BLOCK_RUNS)
        inputs = iter(refs[: len(there)])
        held = [KernelInput(v, next(inputs) if v.array.size else None, lanes) for v in operands]
        body(block, held, [KernelOutput(ref, lanes) for ref in refs[len(there) :]])

    kernel = gpu.kernel(
        whole,
        out_type=[
            jax.ShapeDtypeStruct((rows, blocks * BLOCK_RUNS), dtype) for rows, dtype in outputs
        ],
        grid=(blocks,),
        grid_names=("block",),
        compiler_params=gpu.CompilerParams(lowering_semantics=gpu.LoweringSemantics.Lane),
    )
    after = kernel(*(operand.rows(blocks * BLOCK_RUNS) for operand in there))
    return [v[:, :runs] for v in after]
