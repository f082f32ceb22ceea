"""A hash of arrays, objects and functions that is the same in every process."""

import contextlib
import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

_LIBRARIES = {
    *("jax", "jaxlib", "numpy", "scipy", "optax", "equinox", "diffrax", "optimistix", "lineax"),
    *("jaxtyping", "xarray", "tts_jax"),
    *sys.stdlib_module_names,
}
"""Libraries whose functions and classes are hashed by their names, not by their code: the store
of a sweep keeps the versions of libraries beside the digest."""


def digest(*things: Any) -> str:
    """Return a hash of pytrees, which depends on what they hold and do, and on no address.

    Arrays count by their numbers; functions by their code, the variables that they close over and
    the globals that they name; objects also by the methods of their classes.
    """
    found, seen = hashlib.sha256(), set()

    def add(thing: Any) -> None:
        for kind in _classes(thing):
            add_class(kind)
        leaves, structure = jax.tree.flatten(thing, is_leaf=is_key)
        found.update(_without_addresses(structure))
        for leaf in leaves:
            values = jax.random.key_data(leaf) if is_key(leaf) else leaf
            function = _unwrapped(leaf)
            if eqx.is_array_like(values):
                array = np.asarray(values)
                found.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
            elif isinstance(function, FunctionType):
                add_function(function)
            elif isinstance(leaf, type):
                add_class(leaf)
            elif isinstance(leaf, functools.partial):
                add((leaf.func, leaf.args, leaf.keywords))
            else:
                found.update(_without_addresses(leaf))

    def add_function(function: FunctionType) -> None:
        """Add a function: its code, its closure and its default arguments."""
        home = _home(function)
        found.update(function.__qualname__.encode())
        if id(function) in seen or home in ("jax", "jaxlib", "numpy"):
            return  # what functions of these libraries close over is not part of the meaning
        seen.add(id(function))
        add_code(function.__code__, {} if home in _LIBRARIES else function.__globals__)
        for cell in function.__closure__ or ():
            inside = None
            with contextlib.suppress(ValueError):  # a cell that is still empty
                inside = cell.cell_contents
            add(inside)
        add((function.__defaults__, function.__kwdefaults__))

    def add_code(code: CodeType, names: dict[str, Any]) -> None:
        """Add the byte code, constants and named globals, but not the file and line number."""
        found.update(code.co_code + " ".join(code.co_names).encode())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                add_code(constant, names)
            else:
                found.update(_without_addresses(constant))
        for name in code.co_names:
            if name in names and not isinstance(names[name], ModuleType):
                add(names[name])

    def add_class(kind: type) -> None:
        for parent in kind.__mro__:
            if parent in seen or _home(parent) in _LIBRARIES:
                continue
            seen.add(parent)
            found.update(parent.__qualname__.encode())
            for name, member in sorted(vars(parent).items()):
                function = _unwrapped(member)
                if isinstance(function, FunctionType) and _home(function) not in _LIBRARIES:
                    found.update(name.encode())
                    add_function(function)

    add(things)
    return found.hexdigest()


def _home(thing: Any) -> str:
    return (getattr(thing, "__module__", None) or "").split(".")[0]


def _unwrapped(thing: Any) -> Any:
    """Return the function inside a jitted one, a method, a property or equinox's wrapper of it."""
    for name in ("fget", "__func__", "method"):
        inside = getattr(thing, name, None)
        if isinstance(inside, FunctionType):
            thing = inside
    return inspect.unwrap(thing) if callable(thing) and not isinstance(thing, type) else thing


def _classes(thing: Any) -> Iterator[type]:
    """Yield the classes of the equinox modules in a thing."""
    if isinstance(thing, eqx.Module):
        yield type(thing)
        thing = vars(thing)
    if isinstance(thing, dict):
        thing = list(thing.values())
    if isinstance(thing, list | tuple):
        for part in thing:
            yield from _classes(part)


def _without_addresses(thing: Any) -> bytes:
    """Return the printed form of a thing, without what changes from process to process."""
    if isinstance(thing, set | frozenset):
        thing = sorted(map(str, thing))
    return re.sub(r" at 0x[0-9a-f]+", "", str(thing)).encode()


def is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
