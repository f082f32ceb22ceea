"""Kernels for GPUs with a run in each thread, written in Pallas for its Mosaic GPU backend."""

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array
from . import devices as _device
from .scalar_program import ScalarArray, ScalarValue, constant_array, scalar_array

BLOCK_RUNS = 128
"""Runs in a block of threads: a vector in Mosaic has one number for each thread of a block."""

_HOPPER = 9.0
"""The lowest compute capability of a GPU for which Mosaic's backend exists."""

_MOSAIC = "jax.experimental.pallas.mosaic_gpu"


def on_gpu() -> bool:
    """Return whether all local devices run the kernels of this package; for use while tracing."""
    if _device.platform() not in ("gpu", "cuda") or find_spec(_MOSAIC) is None:
        return False
    try:
        return all(float(d.compute_capability) >= _HOPPER for d in jax.local_devices())
    except (AttributeError, ValueError):  # only NVIDIA's devices have a compute capability
        return False


class KernelOperand(NamedTuple):
    """An array that a kernel reads: with the runs on its last axis, or shared by all runs."""

    array: Array
    is_batched: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array of one run."""
        return self.array.shape[:-1] if self.is_batched else self.array.shape

    def rows(self, runs: int) -> Array:
        """Return the array as rows: (n,) if shared, else (n, runs) padded with the last run."""
        if not self.is_batched:
            return self.array.reshape(-1)
        rows = self.array.reshape(-1, self.array.shape[-1])
        missing = runs - rows.shape[1]
        return jnp.pad(rows, ((0, 0), (0, missing)), mode="edge") if missing else rows


class KernelInput(NamedTuple):
    """An operand inside a kernel: its reference, and the columns of the block's runs (`lanes`)."""

    operand: KernelOperand
    ref: Any
    lanes: Any

    def at(self, row: Any) -> Array:
        """Return a row: a number of every run, or one that all share. The row may be traced."""
        return self.ref[row, self.lanes] if self.operand.is_batched else self.ref[row]

    def read(self) -> ScalarArray:
        """Return the operand as an array of scalars, of the shape of one run."""
        shape = self.operand.shape
        if not self.operand.array.size:
            return constant_array(np.zeros(shape, self.operand.array.dtype))
        return scalar_array([ScalarValue(self.at(k)) for k in range(math.prod(shape))], shape)


class KernelOutput:
    """An array that a kernel writes and may read again, row by row: a number of every run."""

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
    """Launch a kernel for many runs: `body(block, inputs, outputs)` for every `BLOCK_RUNS` runs.

    `outputs` names (rows, dtype) of each array to return, of shape (rows, runs). Their rows are
    undefined until `body` writes them.
    """
    # Not at the top of the file: importing Pallas takes long.
    from jax.experimental.pallas import ds
    from jax.experimental.pallas import mosaic_gpu as gpu

    blocks = -(-runs // BLOCK_RUNS)
    nonempty = [operand for operand in operands if operand.array.size]

    def kernel_body(*refs: Any) -> None:
        block = jax.lax.axis_index("block")
        lanes = ds(block * BLOCK_RUNS, BLOCK_RUNS)
        input_refs = iter(refs[: len(nonempty)])
        inputs = [
            KernelInput(v, next(input_refs) if v.array.size else None, lanes) for v in operands
        ]
        body(block, inputs, [KernelOutput(ref, lanes) for ref in refs[len(nonempty) :]])

    kernel = gpu.kernel(
        kernel_body,
        out_type=[
            jax.ShapeDtypeStruct((rows, blocks * BLOCK_RUNS), dtype) for rows, dtype in outputs
        ],
        grid=(blocks,),
        grid_names=("block",),
        compiler_params=gpu.CompilerParams(lowering_semantics=gpu.LoweringSemantics.Lane),
    )
    arrays = kernel(*(operand.rows(blocks * BLOCK_RUNS) for operand in nonempty))
    return [array[:, :runs] for array in arrays]
