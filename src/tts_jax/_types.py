"""Array aliases with named axes, shared by every room.

Axes: `m` width (number of neurons), `T` recorded slow times, `N` samples, `d` inputs.
"""

from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

Real: TypeAlias = float | Float[Array, ""]
"""A number given by the user: a Python float or a scalar array (also a traced one)."""

Scalar: TypeAlias = Float[Array, ""]
Times: TypeAlias = Float[Array, " T"]
Count: TypeAlias = Int[Array, ""]
Key: TypeAlias = PRNGKeyArray
Tree: TypeAlias = PyTree[Any]


def as_array(leaf: Any) -> Any:
    """Return a number as an array: as a Python float each new value would be compiled anew."""
    if isinstance(leaf, jax.Array):  # also a tracer, which equinox may not recognise
        # Python floats are weakly typed in JAX, arrays are not: JAX would compile for each type.
        weak = getattr(leaf, "weak_type", False) and jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jax.lax.convert_element_type(leaf, leaf.dtype) if weak else leaf
    if isinstance(leaf, np.ndarray):
        return leaf
    number = isinstance(leaf, float) or eqx.is_inexact_array_like(leaf)
    return np.asarray(leaf, np.result_type(leaf)) if number else leaf


def as_arrays(tree: Any) -> Any:
    """Return a tree with all its numbers as arrays."""
    return jax.tree.map(as_array, tree)


def pick(rows: Array | np.ndarray, i: Array | int) -> Array:
    """Return `rows[i]` of rows (n, ...)."""
    return jax.lax.dynamic_index_in_dim(jnp.asarray(rows), i, 0, False)


def put(rows: Array, i: Array | int, row: Array) -> Array:
    """Return `rows` (n, ...) with `row` (...) at index i.

    As an update of a slice: an indexed update would be a scatter, which XLA on a CPU does not
    compile into one kernel with the loop around it.
    """
    return jax.lax.dynamic_update_index_in_dim(rows, row, i, 0)


def varying_as(like: Any, tree: Any) -> Any:
    """Return a tree whose arrays count as different between devices wherever those of `like` do.

    Inside `jax.shard_map` JAX asks a loop to begin with what counts as it does later on. Arrays
    made by `zeros_like` do so by themselves, numbers that were just made do not.
    """
    axes = frozenset().union(*map(_manual_axes, jax.tree.leaves(like)))
    if not axes:
        return tree

    def cast(leaf: Any) -> Any:
        missing = tuple(axes - _manual_axes(leaf))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree)


def is_key(leaf: Any) -> bool:
    """Return whether a leaf is a key of `jax.random`, or an array of them."""
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def is_sharded(tree: Any) -> bool:
    """Return whether an array counts as different between devices, inside `jax.shard_map`."""
    return any(map(_manual_axes, jax.tree.leaves(tree)))


def _manual_axes(leaf: Any) -> frozenset:
    kind = jax.typeof(leaf)
    axes = getattr(kind, "manual_axis_type", None)
    return getattr(kind, "vma", frozenset()) if axes is None else axes.varying  # as of JAX 0.10.2


__all__ = [
    "Array",
    "Bool",
    "Count",
    "Float",
    "Int",
    "Key",
    "Real",
    "Scalar",
    "Times",
    "Tree",
    "as_array",
    "as_arrays",
    "is_key",
    "is_sharded",
    "pick",
    "put",
    "varying_as",
]
