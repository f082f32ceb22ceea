"""What kind of device the code is traced for: a CPU takes runs in turn, others side by side."""

import jax


def on_cpu() -> bool:
    # Asked while tracing, and not by `platform_dependent`, which would trace both.
    return jax.default_backend() == "cpu"
