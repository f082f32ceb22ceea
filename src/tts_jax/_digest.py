"""A hash of arrays, objects and functions that is the same in every process."""

import contextlib
import hashlib
import re
from types import FunctionType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def digest(*things: Any) -> str:
    """A hash of pytrees: of arrays by their numbers, of functions by their code and closures."""
    found, seen = hashlib.sha256(), set()

    def add(thing: Any) -> None:
        leaves, structure = jax.tree.flatten(thing, is_leaf=is_key)
        found.update(_without_addresses(structure))
        for leaf in leaves:
            values = jax.random.key_data(leaf) if is_key(leaf) else leaf
            if eqx.is_array_like(values):
                array = np.asarray(values)
                found.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
            elif isinstance(leaf, FunctionType):
                add_function(leaf)
            else:
                found.update(_without_addresses(leaf))

    def add_function(function: FunctionType) -> None:
        """By its code, and what it has been given."""
        if id(function) in seen or function.__module__.split(".")[0] in ("jax", "numpy"):
            return  # what these libraries close over is their own business
        seen.add(id(function))
        found.update(function.__qualname__.encode() + function.__code__.co_code)
        for constant in function.__code__.co_consts:
            found.update(_without_addresses(constant))
        for cell in function.__closure__ or ():
            inside = None
            with contextlib.suppress(ValueError):  # one that is empty yet
                inside = cell.cell_contents
            add(inside)
        add(function.__defaults__)

    add(things)
    return found.hexdigest()


def _without_addresses(thing: Any) -> bytes:
    """How something prints, but for what changes from process to process."""
    if isinstance(thing, set | frozenset):
        thing = sorted(map(str, thing))
    return re.sub(r" at 0x[0-9a-f]+", "", str(thing)).encode()


def is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
