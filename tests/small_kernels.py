"""Kernels of a GPU on a CPU, for the tests: interpreted, or lowered only."""

from collections.abc import Callable
from typing import Any

import jax


def interpreted() -> Any:
    """A context in which kernels are interpreted."""
    try:
        from jax.experimental.pallas.mosaic_gpu import force_gpu_interpret_mode
    except ImportError:  # JAX 0.10 has it, but does not show it
        from jax._src.pallas.mosaic_gpu.interpret.params import force_gpu_interpret_mode
    return force_gpu_interpret_mode()


def lowered(function: Callable, *arguments: Any) -> str:
    """The program that it is for a GPU. There need be none."""
    traced = jax.jit(lambda *a: function(*a)).trace(*arguments)
    return traced.lower(lowering_platforms=("cuda",)).as_text()
