"""Threads that see the settings of JAX which hold where they are started."""

import contextlib
import contextvars
from collections.abc import Callable
from typing import Any

import jax

_SETTINGS = (
    *("enable_x64", "default_device", "default_matmul_precision", "disable_jit"),
    *("numpy_dtype_promotion", "numpy_rank_promotion", "allow_f16_reductions"),
    *("default_prng_impl", "threefry_partitionable", "enable_custom_prng", "legacy_prng_key"),
    *("debug_nans", "debug_infs", "debug_key_reuse", "check_tracer_leaks", "softmax_custom_jvp"),
    *("transfer_guard_host_to_device", "transfer_guard_device_to_host"),
    *("transfer_guard_device_to_device", "log_compiles", "explain_cache_misses"),
)
"""Context managers of JAX whose settings hold in one thread only."""


def in_this_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs, on whichever thread, under the settings that hold here and now,
    such as those of `jax.enable_x64(True)` and of `numpy.errstate`."""
    here = {name: _setting(name) for name in _SETTINGS}
    context = contextvars.copy_context()

    def inside(*arguments: Any) -> Any:
        with contextlib.ExitStack() as stack:
            for name, value in here.items():
                if _setting(name) != value:
                    stack.enter_context(getattr(jax, name)(value))
            return context.copy().run(function, *arguments)

    return inside


def _setting(name: str) -> Any:
    return getattr(jax.config, f"jax_{name}", None)
