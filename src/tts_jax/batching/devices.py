"""What kind of device the code is traced for: a CPU takes runs in turn, others side by side."""

import jax


def on_cpu() -> bool:
    """Whether the default device is a CPU, also one named by `jax.default_device`."""
    # Asked while tracing, and not by `platform_dependent`, which would trace both.
    return platform() == "cpu"


def platform() -> str:
    named = getattr(jax.config, "jax_default_device", None)
    return named if isinstance(named, str) else getattr(named, "platform", jax.default_backend())
