"""Programs that compile fast and run slowly, for tests of what takes long to compile."""

import functools
from collections.abc import Callable
from typing import Any

import jax

quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""`jax.jit`, in a hurry."""


def results(function: Callable, *arguments: Any) -> Any:
    """What a function returns, which is traced anew."""
    return jax.device_get(quickly(lambda *a: function(*a))(*arguments))
