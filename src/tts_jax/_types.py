"""Array aliases with named axes, shared by every room.

Axes: `m` width (number of neurons), `T` recorded slow times, `N` samples, `d` inputs.
"""

from typing import Any, TypeAlias

from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

Real: TypeAlias = float | Float[Array, ""]
"""A number given by the user: a Python float or a scalar array (also a traced one)."""

Scalar: TypeAlias = Float[Array, ""]
Times: TypeAlias = Float[Array, " T"]
Count: TypeAlias = Int[Array, ""]
Key: TypeAlias = PRNGKeyArray
Tree: TypeAlias = PyTree[Any]

__all__ = ["Array", "Count", "Float", "Int", "Key", "Real", "Scalar", "Times", "Tree"]
