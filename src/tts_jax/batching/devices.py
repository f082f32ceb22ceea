"""The kind of device that code is traced for: a CPU takes runs in turn, others side by side."""

from typing import Any

import jax


def on_cpu() -> bool:
    """Return whether the default device is a CPU, also one named by `jax.default_device`."""
    # Asked while tracing, and not by `platform_dependent`, which would trace both branches.
    return platform() == "cpu"


def local_devices() -> list[Any]:
    """Return the devices that runs are shared out over: all of the default device's kind."""
    return jax.local_devices(backend=platform())


def platform() -> str:
    """Return the name of the default device's platform, such as "cpu" or "gpu"."""
    named = getattr(jax.config, "jax_default_device", None)
    return named if isinstance(named, str) else getattr(named, "platform", jax.default_backend())
