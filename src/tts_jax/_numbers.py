"""The gate for numbers: what a user gives becomes plain real numbers, or is refused by its name.

NumPy and JAX convert much that is no real number without a word: a masked entry, a date, a word, a
truth value, the real part of a complex number. Each public argument that takes numbers comes
through here, once. What is traced goes through untouched.

Numbers are copied, so that nobody changes them later; arrays of JAX never change.
"""

import math
import operator
from collections.abc import Callable
from decimal import Decimal
from numbers import Real as AnyReal
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ._errors import SMALLEST, argument_error, places_in
from ._memory import check_memory
from ._types import is_key

_TEXT = (str, bytes, bytearray, memoryview)
_ONE, _SOME = "a real number", "real numbers"
_USUAL = {np.dtype(np.float64), np.dtype(np.float32)}
_DEEPEST = 32
"""Lists in lists, at most."""


def real(name: str) -> Callable[[Any], Any]:
    """Return `as_real` for an argument, as the converter of a field."""
    return lambda value: as_real(name, value)


def reals(name: str) -> Callable[[Any], Any]:
    """Return `as_floats` for an argument, as the converter of a field."""
    return lambda values: as_floats(name, values)


def whole(name: str, *, least: int = 1, most: int | None = None) -> Callable[[Any], Any]:
    """Return `as_whole` for an argument, as the converter of a field."""
    return lambda value: as_whole(name, value, least=least, most=most)


def flag(name: str) -> Callable[[Any], Any]:
    """Return `as_flag` for an argument, as the converter of a field."""
    return lambda value: as_flag(name, value)


def word(name: str, *words: str) -> Callable[[Any], Any]:
    """Return `as_word` for an argument, as the converter of a field."""
    return lambda value: as_word(name, value, words)


def as_real(name: str, value: Any) -> Any:
    """Return a single number as a Python float, so that 1 and 1.0 are one; of JAX, as an array."""
    if isinstance(value, float) or (type(value) is int and abs(value) < 2**53):
        return float(value)
    if isinstance(value, jax.Array):
        return _floating(name, _check_single(name, value), _ONE)
    array = _check_single(name, _plain(name, value, _ONE))
    return array if isinstance(array, jax.Array) else float(array)


def as_floats(name: str, values: Any) -> Any:
    """Return numbers as a float64 NumPy array that nobody can change; an array of JAX, and a list
    with one in it that is traced, as one of JAX with a floating dtype."""
    if isinstance(values, jax.Array):
        return _floating(name, values, _SOME)
    return _plain(name, values, _SOME)


def as_leaf(name: str, value: Any) -> Any:
    """Return numbers as an array of JAX or NumPy, with the dtype of an array, or of what holds one
    such as a table of pandas or xarray: for parameters."""
    if isinstance(value, jax.Array):
        _check_dtype(name, value.dtype, _SOME)
        _check_there(name, value)
        return value
    if type(value) is np.ndarray and value.dtype != object:
        _check_dtype(name, value.dtype, _SOME)
        return np.array(value)
    found = _plain(name, value, _SOME)
    kept = getattr(value, "dtype", None)
    if isinstance(kept, np.dtype) and kept.kind in "fiu" and isinstance(found, np.ndarray):
        return found.astype(kept)
    return found


def as_leaves(name: str, tree: Any, gate: Callable[[str, Any], Any] = as_leaf) -> Any:
    """Return a tree of numbers, each leaf through a gate; one that is refused has its path."""
    if isinstance(tree, jax.Array):  # as is usual: to walk through a tree takes longer
        return gate(name, tree)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: gate(name + jax.tree_util.keystr(path), leaf), tree
    )


def as_whole(name: str, value: Any, *, least: int = 1, most: int | None = None) -> int:
    """Return a whole number as a Python int. It must be known, not traced."""
    expected = f"a whole number of at least {least}"
    if most is not None:
        expected = f"a whole number from {least} to {most}"
    try:
        number = operator.index(value)
    except TypeError:
        raise argument_error(name, expected, shown(value)) from None
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        raise argument_error(name, expected, shown(value))
    return number


def check_scalar(name: str, value: Any, *, minimum: float, strict: bool) -> None:
    """Raise unless `value` is a finite number above (`strict`) or at least `minimum`.

    For a field that the class of a user may have without a converter.
    """
    if not isinstance(value, float | int | np.number | np.ndarray | jax.Array):
        raise argument_error(name, _ONE, shown(value))
    value = as_real(name, value)
    if isinstance(value, jax.core.Tracer):
        return
    number = float(value)
    sign = ">" if strict else ">="
    if not math.isfinite(number) or number < minimum or (strict and number == minimum):
        wanted = "positive and finite" if strict and minimum == 0 else f"{sign} {minimum:g}"
        raise argument_error(name, wanted, number)
    if 0 < abs(number) < SMALLEST:
        wanted = f"at least {SMALLEST:.3g} in size, below which numbers compute as 0"
        raise argument_error(name, wanted, number)


def as_flag(name: str, value: Any) -> bool:
    """Return True or False as it is."""
    if not isinstance(value, bool):
        raise argument_error(name, "True or False", shown(value))
    return value


def as_word(name: str, value: Any, words: tuple[str, ...]) -> str:
    """Return one of some words as it is."""
    if not isinstance(value, str) or value not in words:
        raise argument_error(name, " or ".join(f'"{word}"' for word in words), shown(value))
    return value


def check_key(name: str, key: Any, *, hint: str = "") -> None:
    """Raise unless `key` is one `jax.random.key`, typed or of the older kind, of plain numbers."""
    expected = f"a jax.random.key{hint}"
    if not isinstance(key, jax.Array):
        raise argument_error(name, expected, shown(key))
    is_typed = is_key(key)
    if not is_typed and key.dtype != np.uint32:
        raise argument_error(name, expected, f"an array of dtype {key.dtype}")
    if key.ndim != (0 if is_typed else 1):
        got = f"an array of keys of shape {key.shape if is_typed else key.shape[:-1]}"
        raise argument_error(name, f"one single key, {expected} (jax.vmap runs over many)", got)


def shown(value: Any) -> str:
    """Return a value for a message: short, and a class or an array by what it is."""
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    if isinstance(value, np.ndarray | jax.Array) and value.shape:
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    try:
        is_number = isinstance(value, np.ndarray | np.generic | jax.Array)
        text = repr(value.item()) if is_number else repr(value)
    except Exception:  # of anybody's class, where it may fail in any way
        text = ""
    if not text or len(text) > 60 or "\n" in text or " at 0x" in text:
        return f"of type {type(value).__name__}"
    return text


def _check_single(name: str, array: Any) -> Any:
    if np.shape(array) != ():
        raise argument_error(name, "a single number", f"an array of shape {np.shape(array)}")
    return array


def _floating(name: str, array: jax.Array, expected: str) -> jax.Array:
    _check_dtype(name, array.dtype, expected)
    _check_there(name, array)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return array.astype(jnp.result_type(float))


def _check_there(name: str, array: jax.Array) -> None:
    if not isinstance(array, jax.core.Tracer) and array.is_deleted():
        raise argument_error(name, "an array that is still there", "one that was deleted")


def _check_dtype(name: str, dtype: Any, expected: str) -> None:
    if dtype in _USUAL:
        return
    is_real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
    if not is_real or jnp.issubdtype(dtype, np.timedelta64):  # which NumPy counts as integers
        raise argument_error(name, expected, f"of dtype {dtype}")


def _plain(name: str, given: Any, expected: str, depth: int = 0) -> Any:
    """Return a float64 NumPy array, a copy that cannot be written to, of what is no array of JAX.

    A list with something traced in it becomes an array of JAX.
    """
    if isinstance(given, list | tuple):
        if depth == _DEEPEST:
            raise argument_error(name, expected, f"lists in lists, more than {_DEEPEST} deep")
        if not all(map(_is_plain, given)):
            return _joined(name, [_element(name, part, expected, depth) for part in given])
    elif isinstance(given, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(given)
        if masked.any():
            raise argument_error(name, "without masked entries", f"masked in {places_in(masked)}")
        given = given.data
    elif isinstance(given, (bool, *_TEXT)):
        raise argument_error(name, expected, shown(given))
    elif isinstance(given, np.ndarray) and type(given).__module__.split(".")[0] != "numpy":
        # Such as one with units, which would be dropped.
        raise argument_error(name, "a plain array", f"of type {type(given).__name__}")
    try:
        array = np.asarray(given)
    except Exception as error:  # of anybody's class, which may fail in any way
        raise argument_error(name, expected, shown(given)) from error
    if array.dtype == object:
        array = _from_objects(name, given, array, expected)
    _check_dtype(name, array.dtype, expected)
    check_memory(name, array.size)
    with np.errstate(over="ignore"):  # infinite numbers are refused with the others
        found = np.array(array, dtype=np.float64)
    found.setflags(write=False)
    return found


def _is_plain(value: Any) -> bool:
    return isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool)


def _element(name: str, part: Any, expected: str, depth: int) -> Any:
    if isinstance(part, jax.Array):
        return _floating(name, part, expected)
    return _plain(name, part, expected, depth + 1)


def _joined(name: str, parts: list) -> Any:
    shapes = {np.shape(part) for part in parts}
    if len(shapes) > 1:
        raise argument_error(name, "rows of one length", f"of rows of shapes {sorted(shapes)}")
    if any(isinstance(part, jax.core.Tracer) for part in parts):
        return jnp.stack([jnp.asarray(part) for part in parts])
    found = np.stack([np.asarray(part, np.float64) for part in parts])
    found.setflags(write=False)
    return found


def _from_objects(name: str, given: Any, array: np.ndarray, expected: str) -> np.ndarray:
    """Return the numbers in an array of objects, such as fractions, or whole ones of any size."""
    numbers = np.empty(array.size)
    for place, value in enumerate(array.ravel()):
        got = shown(value) if array.ndim else shown(given)
        if array.ndim:
            got += f" at position {np.unravel_index(place, array.shape)[0]}"
        if not isinstance(value, AnyReal | Decimal) or isinstance(value, bool):
            raise argument_error(name, expected, got)
        try:
            numbers[place] = float(value)
        except (OverflowError, ValueError):  # beyond float64, and a NaN that signals
            raise argument_error(name, f"{expected} of float64", got) from None
    return numbers.reshape(array.shape)
