"""`configure`: what JAX must be told before its first computation, and the word to who did not."""

import functools
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax

from ._errors import SlowSettingsWarning, argument_error, has_started
from ._numbers import as_flag, as_whole, shown
from .batching.devices import on_cpu

_THRESHOLD = "xla_cpu_small_while_loop_byte_threshold"
SMALL_LOOPS = f"--xla_backend_extra_options={_THRESHOLD}=4000000"
"""Lets XLA on a CPU turn each loop of SGD and of the flows into one kernel. See benchmarks/.

With a million, the loops of a gradient were several: see `threshold` in benchmarks/flows.py."""

WIDE_VECTORS = "--xla_cpu_prefer_vector_width=512"
"""Lets XLA on a CPU use the widest vectors there are, which it does not by default."""

_DEVICES = "--xla_force_host_platform_device_count"

_THREADS = "NPROC"
"""The variable that XLA reads how many threads to share out the work of all CPU devices to.

By default that is the number of cores. But eigenvectors and Cholesky factors wait, in such a
thread, for others to compute them: runs on as many devices as there are threads then wait for each
other for ever, as JAX 0.10.2 does. One for each device is enough beside those for the cores."""

# XLA ends the process at a flag that it does not know, so a JAX that nobody has tried gets none
# that may be gone. JAX 0.10.0, 0.10.2, 0.11.0, 0.11.2 and 0.12.0 know all three; from 0.12 on small
# loops are one kernel without a flag. `jit(compiler_options=...)` is no way around: it takes the
# width but not the threshold, and raises where one jit calls another.
_NEEDS_SMALL_LOOPS = jax.__version_info__ < (0, 12)
_KNOWS_WIDE_VECTORS = jax.__version_info__ < (0, 13)

_added: set[str] = set()
"""The flags in XLA_FLAGS, and NPROC, that `configure` set itself, which it may replace."""


@dataclass(frozen=True)
class Configuration:
    """What `configure` set, and what was set before and stays."""

    x64: bool
    """Whether JAX is in 64-bit mode."""
    devices: int
    """How many devices the CPU is."""
    threads: int
    """How many threads XLA shares out the work of these devices to."""
    flags: tuple[str, ...]
    """The flags that `configure` put into XLA_FLAGS."""
    kept: tuple[str, ...]
    """The settings of the user that `configure` left in place of its own."""

    def __str__(self) -> str:
        lines = [
            f"{64 if self.x64 else 32}-bit numbers, CPU devices: {self.devices}, "
            f"threads: {self.threads}",
            *(f"  set:  {flag}" for flag in self.flags),
            *(f"  kept: {setting}" for setting in self.kept),
        ]
        return "\n".join(lines)


def configure(*, x64: bool = True, devices: int | Literal["all"] = "all") -> Configuration:
    """Set up JAX for simulations: 64-bit numbers, fast loops on a CPU, its cores as devices.

    To be called before the first computation, since XLA reads its flags then; `import jax` may come
    first. What the user has set, in XLA_FLAGS, by `jax_num_cpu_devices` or in NPROC (the threads of
    XLA), stays as it is. Worker processes inherit the settings, which are put into the environment
    too. Calling it again changes nothing.

    **Arguments:**

    - `x64`: whether to switch on 64-bit mode, which every simulation needs; False leaves the mode
      as it is, for programs that switch it on by `jax.enable_x64` for a while.
    - `devices`: how many devices the CPU is to be, which `map_runs` and `sweep` keep busy: "all"
      for as many as this process has cores, or a number.

    **Returns:** a `Configuration`, which says what was set and what was kept.

    **Raises:** `ValueError` for bad arguments; `RuntimeError` if JAX has begun to compute without
    the settings asked for. Then nothing is changed.
    """
    as_flag("x64", x64)
    try:
        is_all = isinstance(devices, str) and devices == "all"
        count = _cores() if is_all else as_whole("devices", devices)
    except ValueError:
        expected = '"all" or a whole number of at least 1'
        raise argument_error("devices", expected, shown(devices)) from None
    wanted = {_DEVICES: f"{_DEVICES}={count}"}
    if _KNOWS_WIDE_VECTORS:
        wanted[WIDE_VECTORS.split("=")[0]] = WIDE_VECTORS
    if _NEEDS_SMALL_LOOPS:
        wanted[_THRESHOLD] = SMALL_LOOPS

    before = _xla_flags()
    theirs = [flag for flag in before if flag not in _added]
    by_name = {name: flag for flag in theirs for name in wanted if name in flag}
    if _DEVICES in by_name:
        count = int(by_name[_DEVICES].split("=")[1])
    by_jax = jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]
    if by_jax >= 0:  # goes before XLA's flag
        count, by_name[_DEVICES] = by_jax, f"jax_num_cpu_devices={by_jax}"
    ours = [flag for name, flag in wanted.items() if name not in by_name]
    _check_in_time([flag for flag in ours if flag not in before])

    threads = f"{_THREADS}={_cores() + count}"
    if not has_started() and (not _threads() or _threads() in _added):
        _added.add(threads)
        os.environ[_THREADS] = threads.split("=")[1]
    _added.update(ours)
    os.environ["XLA_FLAGS"] = " ".join([*theirs, *ours])
    if x64:
        os.environ["JAX_ENABLE_X64"] = "1"
        jax.config.update("jax_enable_x64", True)
    is_x64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    if _threads() and _threads() not in _added:
        by_name[_THREADS] = _threads()
    used = int(_threads().split("=")[1]) if _threads() else _cores()
    return Configuration(is_x64, count, used, tuple(ours), tuple(by_name.values()))


@functools.cache
def warn_if_slow() -> None:
    """Warn, once in a process, if loops on this CPU are slow for want of a flag.

    At the first simulation of any kind: one that is traced, for a batch or by `map_runs`, loses as
    much as one that runs at once, and is traced only once.
    """
    if _NEEDS_SMALL_LOOPS and on_cpu() and not any(_THRESHOLD in flag for flag in _xla_flags()):
        warnings.warn(
            "Simulations take several times as long as they need on this CPU, because JAX lacks a "
            "setting: call `tts.configure()` before the first computation.",
            SlowSettingsWarning,
            stacklevel=3,
        )


def _threads() -> str:
    """Return the setting of XLA's threads, such as "NPROC=4", or nothing where there is none."""
    count = os.environ.get(_THREADS, "")
    return f"{_THREADS}={count}" if count.isdigit() else ""


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _xla_flags() -> list[str]:
    """The flags in XLA_FLAGS, or in the file that it names."""
    text = os.environ.get("XLA_FLAGS", "").strip()
    if text and not text.startswith("-"):
        text = Path(text).read_text()
    return text.split()


def _check_in_time(flags: list[str]) -> None:
    """Raise if JAX computes already and can no longer take flags, but for what it has anyway."""
    if not flags or not has_started():
        return
    devices = sum(device.platform == "cpu" for device in jax.local_devices())
    late = [flag for flag in flags if flag != f"{_DEVICES}={devices}"]
    if late:
        raise RuntimeError(
            f"JAX has begun to compute and takes no more settings: too late for {' '.join(late)}. "
            "Call `tts.configure()` before the first computation of the process."
        )
