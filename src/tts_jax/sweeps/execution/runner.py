"""One unit of work: runs that are computed in one call, on one device."""

import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._types import Array
from ...dynamics.sgd.dynamics import SGD
from ...models.targets import AbstractLabels
from ...simulation import simulate
from ...trajectory import Trajectory
from ..study.grid import Point, stream
from ..study.study import Study

_FEW = 8
"""Runs of SGD side by side: from so many on, a run does not depend on how many others there are."""


class Variable(NamedTuple):
    """What a run leaves under one name: its own axes, their lengths, and its dtype."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype


class Runner:
    """Computes units of a study. `shared` names the coordinates that all runs of a unit have.

    One compilation for each shape and device: numbers are arguments.
    """

    def __init__(self, study: Study, shared: Sequence[str]):
        self._study = study
        self._shared = tuple(shared)
        self.traces = 0
        self._traced, self._turn = set(), threading.Lock()

    def __call__(
        self, points: Sequence[Point], device: Any = None, *, share: float = 1.0
    ) -> dict[str, np.ndarray]:
        """The variables of the runs at `points`, in this order on the first axis.

        With a `share` below 1 the runs end at that share of their time.
        """
        out = jax.block_until_ready(self._start(points, device, share))
        return {name: np.asarray(values)[: len(points)] for name, values in out.items()}

    def _start(self, points: Sequence[Point], device: Any, share: float) -> dict[str, Array]:
        count = len(points)
        if isinstance(self._study.dynamics, SGD) and count > 1:
            count = max(count, _FEW)
        rows = [points[min(i, len(points) - 1)] for i in range(count)]
        names = [name for name in points[0] if name not in ("seed", "width", "target")]
        own = {n: np.array([row[n] for row in rows]) for n in names if n not in self._shared}
        shared = {name: np.asarray(rows[0][name]) for name in names if name in self._shared}
        seeds = np.array([row.get("seed", 0) for row in rows], np.int64)
        streams = np.array([stream(row) for row in rows], np.uint64)
        target = None
        if "target" in rows[0]:
            target = dict(self._study.axes.targets)[str(rows[0]["target"])]
        arrays, rest = eqx.partition(target, eqx.is_array_like)
        arrays = jax.tree.map(np.asarray, arrays)
        given = ((own, seeds, streams), shared, arrays, share * np.asarray(self._study.taus))
        if device is not None:
            given = jax.device_put(given, device)
        given = (*given, rest, int(rows[0]["width"]))
        kind = (count, rows[0]["width"], rows[0].get("target"))
        with self._turn:  # once, and not by every device's thread that comes first
            if kind not in self._traced:
                self._compiled.trace(*given)
                self._traced.add(kind)
        return self._compiled(*given)

    @functools.cached_property
    def _compiled(self) -> Any:
        def together(
            varied: tuple, shared: dict, arrays: Any, taus: Array, rest: Any, width: int
        ) -> dict[str, Array]:
            self.traces += 1

            def one(varied: tuple) -> dict[str, Array]:
                own, seed, stream = varied
                target = eqx.combine(arrays, rest)
                trajectory = self._trajectory({**own, **shared}, seed, stream, target, taus, width)
                return _kept(self._study, trajectory)

            return jax.vmap(one)(varied)

        return jax.jit(together, static_argnums=(4, 5))

    def _trajectory(
        self,
        numbers: Mapping[str, Array],
        seed: Array,
        stream: Array,
        target: AbstractLabels | None,
        taus: Array,
        width: int,
    ) -> Trajectory:
        key = jax.random.key(seed)
        params = self._study.start(jax.random.fold_in(key, 0), width)
        dtype = jnp.dtype(self._study.precision)
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        problem, dynamics = self._study.at(numbers, target)
        noise_key = jax.random.fold_in(key, 1)
        for part in (stream >> np.uint64(32), stream):  # fold_in takes 32 bits
            noise_key = jax.random.fold_in(noise_key, part.astype(jnp.uint32))
        return simulate(problem, dynamics, params, taus, key=noise_key, throw=False)

    def variables(self, point: Point) -> dict[str, Variable]:
        """What the run at a point leaves, without running it."""
        target = None
        if "target" in point:
            target = dict(self._study.axes.targets)[str(point["target"])]
        names = [name for name in point if name not in ("seed", "width", "target")]

        def trace(numbers: dict, seed: Array, stream: Array) -> Trajectory:
            taus = jnp.asarray(self._study.taus)
            width = int(point["width"])
            return self._trajectory(numbers, seed, stream, target, taus, width)

        numbers = {name: np.asarray(float(point[name])) for name in names}
        shapes = eqx.filter_eval_shape(trace, numbers, np.int64(0), np.uint64(0))
        found = {}
        for name, (axes, leaf) in shapes.variables().items():
            drop = int(_last_only(self._study, name, axes))
            found[name] = Variable(axes[drop:], leaf.shape[drop:], np.dtype(leaf.dtype))
        return found


def _kept(study: Study, trajectory: Trajectory) -> dict[str, Array]:
    if study.keep == "last":
        final = jax.tree.map(lambda leaf: leaf[None], trajectory.final)
        trajectory = eqx.tree_at(lambda t: t.params, trajectory, final)
    return {
        name: leaf[0] if _last_only(study, name, axes) else leaf
        for name, (axes, leaf) in trajectory.variables().items()
    }


def _last_only(study: Study, name: str, axes: tuple[str, ...]) -> bool:
    return study.keep == "last" and name != "risk" and axes[:1] == ("tau",)
