"""Many runs in one call, on all devices of the machine."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error
from .._types import Tree


def map_runs(function: Callable[..., Tree]) -> Callable[..., Tree]:
    """`jax.jit(jax.vmap(function))`, with the runs dealt out to all local devices.

    Every core of a CPU can be such a device: `tts.configure()` sees to that. What a run returns does
    not depend on how many devices there are.

    **Arguments:** a function of one run, such as one that calls `simulate`.

    **Returns:** a function of the same arguments with a leading axis (R,) on every array, which
    returns the results with that axis. Keep it: like `jax.jit` it compiles for every new shape, and
    for every device. It cannot be transformed itself, its argument can.

    **Raises:** `ValueError` (when called) for arguments without one common leading axis.
    """
    # One program on each device, and not one over all: partitioning changes the rounding.
    together = jax.jit(jax.vmap(function))

    def mapped(*arguments: Tree) -> Tree:
        arguments = jax.tree.map(jnp.asarray, arguments)
        runs = _runs(arguments)
        devices = jax.local_devices()[:runs]
        hands = len(devices)
        # Like cards: neighbours, which cost alike, go to different devices. All hands are equally
        # long, for one shape: where a card is missing the last one is played twice.
        deck = np.minimum(np.arange(-(-runs // hands) * hands), runs - 1).reshape(-1, hands)

        def play(hand: int) -> Tree:
            given = jax.tree.map(lambda leaf: leaf[deck[:, hand]], arguments)
            out = together(*jax.device_put(given, devices[hand]))
            return jax.block_until_ready(out)

        with ThreadPoolExecutor(hands) as pool:  # they also compile side by side
            parts = jax.device_put(list(pool.map(play, range(hands))), devices[0])
        return jax.tree.map(lambda *leaves: _collect(leaves, runs), *parts)

    return mapped


def _collect(leaves: tuple, runs: int) -> Any:
    return jnp.stack(leaves, axis=1).reshape(-1, *leaves[0].shape[1:])[:runs]


def _runs(arguments: Any) -> int:
    """How many runs there are."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(arguments)]
    sizes = {shape[:1] for shape in shapes}
    if len(sizes) != 1 or sizes <= {(), (0,)}:
        raise argument_error("arguments", "arrays with one common leading axis (runs)", shapes)
    return sizes.pop()[0]
