"""What a simulation returns."""

import re
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._errors import Status, is_concrete
from ._numbers import as_whole
from ._types import Array, Times, Tree
from .models.network import Params

if TYPE_CHECKING:
    import xarray as xr


class Trajectory(eqx.Module):
    """Parameters and risk at the recorded slow times.

    Attributes: `taus` (T,); `params`, a `Params` with leading axis T, NaN after a failure;
    `risk` (T,); `status`, a code of `Status`; `stats`, numbers such as `steps` and `rejected`;
    `method`, the name of the dynamics; `solver`, how it was integrated. Under vmap every array
    carries leading batch axes.
    """

    taus: Times
    params: Params
    risk: Times
    status: Array
    stats: dict[str, Any]
    method: str = eqx.field(static=True)
    solver: str = eqx.field(static=True, default="")

    @property
    def valid(self) -> Array:
        """Whether the run reached each time with finite parameters, (T,)."""
        axes = jnp.ndim(self.risk)
        finite = [
            jnp.all(jnp.isfinite(leaf), axis=tuple(range(axes, jnp.ndim(leaf))))
            for leaf in jax.tree.leaves(self.params)
        ]
        return jnp.all(jnp.stack(finite), axis=0)

    @property
    def ok(self) -> Array:
        """Whether the run reached its last time."""
        return self.status == Status.OK

    @property
    def final(self) -> Params:
        """The parameters at the last time that the run reached (the first if it reached none)."""
        axis = jnp.ndim(self.risk) - 1
        last = jnp.maximum(jnp.sum(self.valid, axis=axis) - 1, 0)

        def pick(leaf: Array) -> Array:
            index = last.reshape(*last.shape, *(1,) * (leaf.ndim - axis))
            return jnp.squeeze(jnp.take_along_axis(leaf, index, axis=axis), axis=axis)

        return jax.tree.map(pick, self.params)

    def at(self, index: int) -> Params:
        """Return the parameters at recorded time number `index`."""
        axis = jnp.ndim(self.risk) - 1
        count = np.shape(self.risk)[axis]
        if is_concrete(index):
            index = as_whole("index", index, least=-count, most=count - 1)
        return jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=axis), self.params)

    def variables(self) -> dict[str, tuple[tuple[str, ...], Array]]:
        """Return every recorded array by its name, with the names of its axes after the batch axes.

        A single array u gets the last axis `neuron` (and `input` before it if there are d inputs),
        and so does an a of its shape; any other a gets `outer` (and `output` after it). The halves
        of a `TwoLayerNetwork` are `a` (outer), with K outputs (outer, output), `u_w` (neuron,
        input) and `u_b` (neuron). Leaves of other pytrees are named by their place, such as
        `u_layers_0_bias`, and get axes of their own. Works under a jax transformation too.
        """
        batch = jnp.ndim(self.risk) - 1
        found: dict[str, tuple[tuple[str, ...], Array]] = {"risk": (("tau",), self.risk)}
        of_neurons = _is_two_layer(self.params, batch + 1)
        for name, half in zip(("a", "u"), self.params, strict=True):
            for label, leaf, is_single in _labelled(name, half):
                count = np.ndim(leaf) - batch - 1
                axes = _axes(label, count, single=is_single, of_neurons=of_neurons)
                if name == "a" and getattr(self.params.u, "shape", None) == np.shape(leaf):
                    axes = _axes("u", count, single=is_single, of_neurons=False)  # one for each u
                found[label] = (("tau", *axes), leaf)
        return (
            found
            | {name: ((), value) for name, value in self.stats.items()}
            | {"status": ((), self.status)}
        )

    def to_xarray(self) -> "xr.Dataset":
        """Return a Dataset with coordinate `tau`, and `risk`, `status`, the stats and the params.

        Axes are named as in `variables`. Batch axes of a vmapped run come first, as `run` (or
        `run_0`, `run_1`, ...).
        """
        import xarray as xr  # not at the top: importing it takes a quarter of a second

        batch = jnp.ndim(self.risk) - 1
        runs = ("run",) if batch == 1 else tuple(f"run_{i}" for i in range(batch))
        variables = {
            name: ((*runs, *axes), np.asarray(values))
            for name, (axes, values) in self.variables().items()
        }
        taus = np.asarray(self.taus)
        while taus.ndim > 1:
            if np.any(taus != taus[:1]):
                raise ValueError("Runs with different `taus` do not share a coordinate `tau`.")
            taus = taus[0]
        return xr.Dataset(
            variables, coords={"tau": taus}, attrs={"method": self.method, "solver": self.solver}
        )

    def __str__(self) -> str:
        if np.ndim(self.risk) > 1 or not is_concrete(self.risk):
            return f"{self.method} trajectories, risk of shape {np.shape(self.risk)}"
        status = Status(int(self.status))
        shapes = ", ".join(
            f"{name} {leaf.shape}"
            for name, half in zip(("a", "u"), self.params, strict=True)
            for leaf in jax.tree.leaves(half)
        )
        # Whole numbers, which are counts, come first.
        amounts = sorted(self.stats.items(), key=lambda item: not _is_whole(item[1]))
        counts = ", ".join(_amount(name, value) for name, value in amounts)
        valid = np.flatnonzero(np.asarray(self.valid))
        reached = "nothing valid recorded"
        if valid.size:
            last = valid[-1]
            reached = (
                f"risk {float(self.risk[0]):.6g} at tau = {float(self.taus[0]):g}, "
                f"{float(self.risk[last]):.6g} at tau = {float(self.taus[last]):g}"
            )
        lines = [
            f"{self.method}{f' ({self.solver})' if self.solver else ''}: "
            f"{status.name}, {status.message}",
            f"  {reached}",
            f"  {valid.size} of {self.taus.size} times recorded; {shapes}",
        ]
        return "\n".join([*lines, f"  {counts}"] if counts else lines)


def _is_whole(value: Array) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.integer)


def _amount(name: str, value: Array) -> str:
    return f"{int(value)} {name}" if _is_whole(value) else f"{name} {float(value):.3g}"


def _labelled(name: str, half: Tree) -> list[tuple[str, Array, bool]]:
    """Return the leaves of a half of the parameters by their names, and whether each is alone."""
    leaves = jax.tree_util.tree_flatten_with_path(half)[0]
    labels = ["_".join([name, *map(_word, path)]) for path, _ in leaves]
    if len(set(labels)) < len(labels):  # such as of "a_b" beside "b" in "a"
        labels = [name + jax.tree_util.keystr(path) for path, _ in leaves]
    single = len(leaves) == 1
    return [(label, leaf, single) for label, (_, leaf) in zip(labels, leaves, strict=True)]


def _word(key: Any) -> str:
    # A variable of netCDF has no "/" in its name, which layers of Haiku have.
    return re.sub(r"\W+", "_", jax.tree_util.keystr((key,), simple=True))


def _is_two_layer(params: Params, lead: int) -> bool:
    """Return whether parameters, with `lead` leading axes, have the shapes of a two-layer network:
    w (m, d), b (m,) or none, and a (m,) or (m+1,), with outputs on a second axis or without."""
    a, u = params
    if not isinstance(u, dict) or "w" not in u or not set(u) <= {"w", "b"} or isinstance(a, dict):
        return False
    shapes = {name: np.shape(leaf)[lead:] for name, leaf in (("a", a), *u.items())}
    width = shapes["w"][:1]
    fits = len(shapes["w"]) == 2 and shapes.get("b", width) == width
    return fits and len(shapes["a"]) in (1, 2) and shapes["a"][0] - width[0] in (0, 1)


_OF_NEURONS = {
    ("a", 1): ("outer",),
    ("a", 2): ("outer", "output"),
    ("u_w", 2): ("neuron", "input"),
    ("u_b", 1): ("neuron",),
}
"""The axes of a `TwoLayerNetwork`, by the name of an array and how many axes it has."""


def _axes(label: str, count: int, *, single: bool, of_neurons: bool) -> tuple[str, ...]:
    if of_neurons and (label, count) in _OF_NEURONS:
        return _OF_NEURONS[label, count]
    if single and count in (1, 2) and label == "u":
        return ("input", "neuron")[2 - count :]
    if single and count in (1, 2) and label == "a":
        return ("outer", "output")[:count]
    return tuple(f"{label}_{i}" for i in range(count))
