"""Many runs in one call, on all devices of the machine."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error
from .._numbers import as_leaf, shown
from .._types import Tree
from .devices import local_devices
from .threads import Threads


def map_runs(function: Callable[..., Tree]) -> Callable[..., Tree]:
    """Return `jax.jit(jax.vmap(function))`, with the runs shared out over all local devices.

    Every core of a CPU can be such a device: `tts.configure()` sees to that. The results of a run
    do not depend on how many devices there are, but for rounding.

    **Arguments:** a function of one run, such as one that calls `simulate`.

    **Returns:** a function of the same arguments with a leading axis (R,) on every array, which
    returns the results with that axis. Keep it: like `jax.jit` it compiles for every new shape, and
    for every device. It cannot be transformed itself, its argument can. Settings of JAX such as
    `jax.enable_x64(True)` hold for the runs as they do where it is called.

    **Raises:** `ValueError` (when called) for arguments without one common leading axis.
    """
    if not callable(function):
        raise argument_error("function", "a function of one run", shown(function))
    # One program on each device, and not one over all: partitioning changes the rounding.
    batch_function = jax.jit(jax.vmap(function))

    def mapped(*arguments: Tree) -> Tree:
        arguments = jax.tree.map(_as_array, arguments)
        runs = _run_count(arguments)
        devices = local_devices()[:runs]
        count = len(devices)
        # Column k holds the runs of device k: neighbours, which take about as long as each other,
        # go to different devices. The last run fills up, so that all batches have one shape.
        indices = np.minimum(np.arange(-(-runs // count) * count), runs - 1).reshape(-1, count)

        def run_batch(k: int) -> Tree:
            batch = jax.tree.map(lambda leaf: leaf[indices[:, k]], arguments)
            out = batch_function(*jax.device_put(batch, devices[k]))
            return jax.block_until_ready(out)

        # The devices' programs compile side by side, too.
        batches = jax.device_put(Threads().run(run_batch, range(count)), devices[0])
        return jax.tree.map(lambda *leaves: _interleaved(leaves, runs), *batches)

    return mapped


def _as_array(leaf: Any) -> jax.Array:
    """Return an array, of keys and truth values too, or what the gate for numbers makes of it."""
    is_array = isinstance(leaf, jax.Array)
    if is_array and not jnp.issubdtype(leaf.dtype, jnp.number):
        return leaf
    if isinstance(leaf, np.ndarray) and leaf.dtype == bool:
        return jnp.asarray(leaf)
    return as_leaf("arguments", leaf)


def _interleaved(leaves: tuple, runs: int) -> Any:
    return jnp.stack(leaves, axis=1).reshape(-1, *leaves[0].shape[1:])[:runs]


def _run_count(arguments: Any) -> int:
    """Return the number of runs, the length of the common leading axis."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(arguments)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or sizes <= {(), (0,)}:
        raise argument_error("arguments", "arrays with one common leading axis (runs)", shapes)
    return sizes.pop()[0]
