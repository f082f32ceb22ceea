"""What a thing is made of, as far as it decides what the thing does: a label, and further things.

Functions are made of what their code says and of the values that it reads; objects of their class
and their attributes; a class of its members and bases. What libraries have under a name is that
name; other objects of their classes are made of what pickle would keep of them.
"""

import copyreg
import dataclasses
import enum
import functools
import hashlib
import importlib
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.extend.core
import numpy as np

from ._code import Chain, meaning_of
from ._library import at_name, library_of, name_in_library
from ._types import is_key


class Parts(NamedTuple):
    """What a thing is made of. `foreign`: whether it is a user's own code, or may change."""

    label: Any
    children: Iterable[tuple[str, Any]] = ()
    foreign: bool = True


class UnknowableError(Exception):
    """Raised for a thing of which nothing tells what it does. The message says what it is."""


class Unordered(NamedTuple):
    """Stands for the members of a set."""

    members: tuple


PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented))
_WRAPPED = (
    type(jax.jit(lambda: None)),
    type(eqx.filter_jit(lambda: None)),
    type(functools.lru_cache(lambda: None)),
)
"""Kinds of functions that do what the function does that they are made of."""

_BUILTIN = (types.BuiltinFunctionType, types.MethodWrapperType)
_DESCRIBED = (
    *(types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType),
)
_WRITES = {"append", "appendleft", "extend", "insert", "add", "update", "clear", "discard"}
"""Methods of lists, sets and dictionaries that tell nothing of what was in them."""

_READS_ALL = {"eval", "exec", "globals", "__import__", "open", "input"}
"""Built-in functions that may read anything, such as names that are only known at run time."""

_NAMES = {"__module__", "__name__", "__qualname__", "__doc__", "__annotations__", "__wrapped__"}
_OF_PYTHON = _NAMES | {
    *("__dict__", "__weakref__", "__slots__", "__slotnames__", "__abstractmethods__", "_abc_impl"),
    *("__match_args__", "__orig_bases__", "__parameters__", "__type_params__", "__signature__"),
    *("__static_attributes__", "__firstlineno__", "__annotate__", "__annotate_func__"),
    *("__annotations_cache__", "__dataclass_params__", "__abstractvars__"),
    *(
        "__abstractclassvars__",
        "__hash__",
        "__final__",
        "__replace__",
        "__conditional_annotations__",
    ),
}
"""Attributes of a class that Python and its libraries put there, and that do nothing."""


def unwrapped(thing: Any) -> Any:
    """Return the user's function in one that is compiled or remembered, which does the same."""
    while type(thing) in _WRAPPED and name_in_library(thing) is None:
        thing = thing.__wrapped__
    return thing


def parts_of(thing: Any) -> Parts:
    """Return what a thing is made of.

    **Raises:** `UnknowableError`.
    """
    kind = type(thing)
    if kind in PLAIN:
        return Parts((kind.__name__, repr(thing)), foreign=False)
    if kind in (tuple, list, deque):
        return Parts(kind.__name__, _numbered(thing), kind is not tuple)
    if kind in (set, frozenset):
        return Parts(kind.__name__, [("a member", Unordered(tuple(thing)))], kind is set)
    if kind in (dict, OrderedDict, types.MappingProxyType):
        return Parts("dict", _items(thing))
    if issubclass(kind, eqx.Module):
        return _own_object(thing, kind)
    if kind in (np.ndarray, np.memmap) or isinstance(thing, jax.Array | np.generic | np.dtype):
        return _array(thing)
    if isinstance(thing, types.ModuleType):
        return _module(thing)
    if isinstance(thing, type):
        return _class(thing)
    if isinstance(thing, types.FunctionType):
        return _function(thing)
    if _is_method(thing):
        return _wrapper(thing)
    if isinstance(thing, (*_BUILTIN, *_DESCRIBED)):
        owner = getattr(thing, "__self__", None)
        name = getattr(thing, "__qualname__", thing.__name__)
        where = getattr(thing, "__objclass__", None)
        label = ("builtin", str(getattr(thing, "__module__", "")), str(where), name)
        bound = not isinstance(owner, types.ModuleType | type | None)
        return Parts(label, [("__self__", owner)] if bound else (), bound)
    if isinstance(thing, enum.Enum):
        return Parts(("member", thing.name), [("class", kind)], library_of(kind.__module__) is None)
    if isinstance(thing, types.CodeType):
        return Parts(meaning_of(thing).text)
    if issubclass(kind, tuple) and library_of(kind.__module__) is not None:
        return Parts("named tuple", [("its class", kind), *_numbered(thing)], foreign=False)
    name = name_in_library(thing)
    return _object(thing) if name is None else Parts(name, foreign=False)


def _numbered(things: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"[{i}]", thing) for i, thing in enumerate(things))


def _items(mapping: Any) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        yield "a key", key
        yield (f"[{key!r}]" if type(key) in PLAIN else "[...]"), value


def _array(thing: Any) -> Parts:
    if isinstance(thing, jax.core.Tracer):
        raise UnknowableError("a number that is being traced")
    if isinstance(thing, np.dtype):
        return Parts(("dtype", str(thing.descr if thing.names else thing)), foreign=False)
    label, foreign = "array", not isinstance(thing, jax.Array | np.generic)
    if isinstance(thing, jax.Array):
        if getattr(thing, "weak_type", False):
            label = "weak array"
        if is_key(thing):
            label, thing = f"key {jax.random.key_impl(thing)}", jax.random.key_data(thing)
    array = np.asarray(thing)
    if array.dtype.hasobject:
        return Parts((label, array.shape), _numbered(array.ravel()))
    numbers = hashlib.sha256(np.ascontiguousarray(array).data.cast("B")).digest()
    return Parts((label, str(array.dtype), array.shape, numbers), foreign=foreign)


def _module(module: types.ModuleType) -> Parts:
    library = library_of(module.__name__)
    if library is not None:
        return Parts(("module", library, module.__name__), foreign=False)
    inside = vars(module).items()
    return Parts("module", sorted((k, v) for k, v in inside if not k.startswith("__")))


def _class(kind: type) -> Parts:
    library = library_of(kind.__module__)
    if library is not None and "<locals>" not in kind.__qualname__:
        return Parts(("class", library, kind.__module__, kind.__qualname__), foreign=False)
    children: list[tuple[str, Any]] = [("a base", base) for base in kind.__bases__]
    children += [("the metaclass", type(kind))] if type(kind) is not type else []
    for name, member in sorted(vars(kind).items()):
        if name == "__dataclass_fields__":
            children += [(field.name, _field(field)) for field in member.values()]
        elif name not in _OF_PYTHON and not _is_made(member):
            children.append((name, member))
    return Parts(("class", kind.__name__), children)


def _field(field: dataclasses.Field) -> tuple:
    """What a field of a dataclass does, but not the order in which others follow."""
    how = (field.init, field.kw_only, field.repr, field.compare)
    return (field.name, how, field.default, field.default_factory, dict(field.metadata))


def _is_made(member: Any) -> bool:
    """Return whether a member of a class is a method that its fields stand for, or a slot."""
    code = getattr(getattr(member, "__wrapped__", member), "__code__", None)
    home = getattr(member, "__globals__", {}).get("__name__", "")
    made = code is not None and "__create_fn__" in code.co_qualname
    made = made or home.startswith("namedtuple_")
    return made or isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType)


def _function(function: Any) -> Parts:
    name = name_in_library(function)
    if name is not None:
        return Parts(name, foreign=False)
    home = function.__globals__.get("__name__")
    library = library_of(home)
    defaults = [("its defaults", function.__defaults__), ("its defaults", function.__kwdefaults__)]
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    closure = {name: _inside(cell) for name, cell in cells}
    if library is not None:
        name = function.__code__.co_qualname
        if "<locals>" not in name and "<lambda>" not in name:
            return Parts(("function", library, home, name), foreign=False)
        inside = [(name, value) for name, value in closure.items() if name != "docstr"]
        return Parts(("function", library, home, name), [*inside, *defaults])
    meaning = meaning_of(function.__code__)
    children = [*defaults, *sorted((k, v) for k, v in vars(function).items() if k not in _NAMES)]
    for chain in meaning.reads:
        children += _value(chain, closure, function.__globals__)
    for level, module, name in meaning.imports:
        children.append((f"import {module}", _imported(level, module, name, function.__globals__)))
    return Parts(("function", meaning.text), children)


def _inside(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # still empty
        return None


def _value(chain: Chain, closure: dict, names: dict) -> list[tuple[str, Any]]:
    """Return what a chain of names stands for, as far as what reads it depends on it."""
    first, *rest = chain
    if first not in closure and first not in names:
        if first in _READS_ALL:
            raise UnknowableError(f"a function that calls `{first}`, which may read anything")
        return []  # built in, or missing
    found = closure[first] if first in closure else names[first]
    for read in (found, getattr(found, rest[0], None) if rest else None):
        if read is sys.modules or read is importlib.import_module:
            name = ".".join(chain)
            raise UnknowableError(f"a function that uses `{name}`, which may read any module")
    if len(rest) == 1 and rest[0] in _WRITES and isinstance(found, list | set | dict | deque):
        return []
    while rest and isinstance(found, types.ModuleType) and library_of(found.__name__) is None:
        found = getattr(found, rest.pop(0), None)
    return [(f"reads {'.'.join(chain)}", found)]


def _imported(level: int, module: str, name: str, names: dict) -> Any:
    package = names.get("__package__") or ""
    try:
        found = importlib.import_module("." * level + module, package)
    except ImportError:
        return None  # as it is for the function
    return at_name(found.__name__, name) if name not in ("", "*") else found


def _is_method(thing: Any) -> bool:
    kinds = (types.MethodType, property, staticmethod, classmethod, functools.cached_property)
    return isinstance(thing, (*kinds, functools.partial, functools.partialmethod))


def _wrapper(thing: Any) -> Parts:
    """A method, a property, or a partial function."""
    name = name_in_library(thing)
    if name is not None:
        return Parts(name, foreign=False)
    names = ("__self__", "__func__", "fget", "fset", "fdel", "func", "args", "keywords")
    children = [(name, getattr(thing, name)) for name in names if hasattr(thing, name)]
    return Parts(type(thing).__name__, children)


def _object(thing: Any) -> Parts:
    kind = type(thing)
    if isinstance(thing, np.ufunc):
        raise UnknowableError("a NumPy function that was made of another one")
    if library_of(kind.__module__) is None:
        return _own_object(thing, kind)
    if isinstance(thing, jax.extend.core.Primitive):
        return Parts(("primitive", thing.name), foreign=False)
    table = _table(thing)
    if table is not None:
        return Parts(kind.__qualname__, table)
    return _pickled(thing, kind)


def _own_object(thing: Any, kind: type) -> Parts:
    """An object of a user's class, or a module of equinox, whatever its methods for pickle say."""
    children: list[tuple[str, Any]] = [("its class", kind)]
    for builtin in (tuple, list, dict, set, frozenset, int, float, str, bytes, np.ndarray):
        if issubclass(kind, builtin):  # what a subclass has beside its attributes
            make = np.asarray if builtin is np.ndarray else builtin
            children.append(("its values", make(thing)))
    state = dict(getattr(thing, "__dict__", {}))
    for parent in kind.__mro__:
        slots = vars(parent).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name != "__dict__" and hasattr(thing, name):
                state[name] = getattr(thing, name)
    for name, value in sorted(state.items()):
        made = isinstance(getattr(kind, name, None), functools.cached_property)
        if name not in _NAMES and not made:
            children.append((f".{name}", value))
    library = library_of(kind.__module__)
    return Parts("object", children, library is None)


def _table(thing: Any) -> list[tuple[str, Any]] | None:
    """What is in a table of pandas or xarray, which may lie in memory in many ways."""
    kinds = {kind.__module__.split(".")[0]: kind.__name__ for kind in type(thing).__mro__}
    if "pandas" in kinds and hasattr(thing, "to_numpy"):
        if hasattr(thing, "items") and hasattr(thing, "columns"):
            return [("index", thing.index), *(("a column", item) for item in thing.items())]
        index = [("index", thing.index)] if hasattr(thing, "index") else []
        kind = tuple(str(getattr(thing, name, None)) for name in ("dtype", "name"))
        return [*index, ("values", thing.to_numpy()), ("type", kind)]
    if "xarray" in kinds and hasattr(thing, "attrs") and hasattr(thing, "dims"):
        inside = [("attrs", dict(thing.attrs))]
        if hasattr(thing, "data_vars"):
            variables = sorted(thing.variables.items(), key=lambda item: str(item[0]))
            inside += [("coords", sorted(map(str, thing.coords)))]
            return [*inside, *(("a variable", item) for item in variables)]
        coordinates = {k: v.variable for k, v in getattr(thing, "coords", {}).items()}
        name = getattr(thing, "name", None)
        return [*inside, ("values", (name, thing.dims, thing.values)), ("coords", coordinates)]
    return None


def _pickled(thing: Any, kind: type) -> Parts:
    """An object of a library, by what pickle keeps of it."""
    refused = UnknowableError(f"a {kind.__module__}.{kind.__qualname__}")
    reduce = copyreg.dispatch_table.get(kind)
    try:
        found = thing.__reduce_ex__(4) if reduce is None else reduce(thing)
    except Exception as error:
        raise refused from error
    if isinstance(found, str):
        return Parts((kind.__module__, found), foreign=False)
    parts: tuple[Any, ...] = (*found, None, None, None)
    make, arguments, state, listed, mapped = parts[:5]
    if isinstance(state, dict):
        state = {name: value for name, value in state.items() if name not in _NAMES}
    children = [("made by", make), ("arguments", arguments), ("its state", state)]
    children += [("its values", list(values)) for values in (listed, mapped) if values]
    return Parts((kind.__module__, kind.__qualname__), children)
