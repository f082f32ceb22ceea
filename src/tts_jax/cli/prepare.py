"""What a library must not touch and the command owns: 64-bit mode and XLA's flags."""

import os

SMALL_LOOPS = "xla_cpu_small_while_loop_byte_threshold=4000000"
"""Lets XLA on a CPU turn the loops of SGD and of the flows into one kernel. See benchmarks/.

With a million, those of a gradient were several: see `threshold` in benchmarks/flows.py."""

WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"
"""Lets XLA on a CPU use the widest vectors there are, which it does not by default."""


def prepare_jax() -> None:
    """64-bit mode; fast loops on a CPU and each of its cores as a device, unless set already."""
    # In the environment, too: worker processes inherit it.
    os.environ["JAX_ENABLE_X64"] = "1"
    flags = os.environ.get("XLA_FLAGS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = f"--xla_force_host_platform_device_count={cores}"
    for flag in (f"--xla_backend_extra_options={SMALL_LOOPS}", WIDE_VECTORS, devices):
        if flag.split("=")[0] not in flags:
            flags = f"{flags} {flag}".strip()
    os.environ["XLA_FLAGS"] = flags

    import jax

    jax.config.update("jax_enable_x64", True)
