"""A traced function as a program on single numbers, for kernels that keep numbers in registers.

A kernel of an accelerator works on many runs at once, a number of each in one vector. What a run
is made of, such as its positions (m,), is then m vectors, which no array operation may gather: so
the function is taken apart to operations on numbers, with every loop over an axis written out.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from .._types import Array

Entries = np.ndarray
"""An array of `Number`s."""


class Number:
    """A vector with one number of every run, or one number for all of them: of numpy if known.

    Or what makes it, until it is asked for.
    """

    # Not the value itself: numpy would look into it.
    __slots__ = ("function", "operands", "value")

    def __init__(
        self, value: Any, function: Callable | None = None, operands: Sequence["Number"] = ()
    ):
        self.value, self.function, self.operands = value, function, operands

    @property
    def is_known(self) -> bool:
        return isinstance(self.value, np.generic)

    @property
    def key(self) -> Any:
        """What two equal ones share, as long as both are there."""
        return (self.value.dtype, self.value.tobytes()) if self.is_known else id(self)


_ELEMENTWISE = {
    *("abs", "add", "add_any", "and", "clamp", "convert_element_type", "div", "eq", "erf", "exp"),
    *("ge", "gt", "integer_pow", "le", "log", "logistic", "lt", "max", "min", "mul", "ne", "neg"),
    *("not", "one_minus_square", "or", "rsqrt", "select_n", "shift_left", "shift_right_logical"),
    *("sign", "square", "sub", "tanh", "xor"),
}
_CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
_FOLDS = {
    "reduce_sum": jax.lax.add,
    "reduce_max": jax.lax.max,
    "reduce_min": jax.lax.min,
    "reduce_prod": jax.lax.mul,
    "reduce_and": jax.lax.bitwise_and,
    "reduce_or": jax.lax.bitwise_or,
}


def operation_count(closed: core.ClosedJaxpr) -> int | None:
    """How many operations on numbers the program has, or None if it cannot be taken apart."""

    def count(jaxpr: Any) -> int | None:
        total = 0
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            if name in _CALLS:
                inner = equation.params[_CALLS[name]]
                more = count(getattr(inner, "jaxpr", inner))
            elif name in _ELEMENTWISE and _is_plain(equation):
                more = math.prod(equation.outvars[0].aval.shape)
            elif name in _FOLDS:
                more = math.prod(equation.invars[0].aval.shape) or None
            elif name == "dot_general":
                more = _terms(equation)
            else:
                more = 0 if name in _SHAPES and not _cuts(equation) else None
            if more is None:
                return None
            total += more
        return total

    return count(closed.jaxpr)


def _is_plain(equation: Any) -> bool:
    """Whether kernels know this form of it too."""
    params = equation.params
    to_bool = equation.primitive.name == "convert_element_type" and params["new_dtype"].kind == "b"
    choices = equation.primitive.name == "select_n" and len(equation.invars) > 3
    return not to_bool and not choices and params.get("accuracy") is None


def _terms(equation: Any) -> int | None:
    """How many products of numbers are in a product of arrays, or None for a batch of them."""
    (over, _), batch = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    kept = {v.aval.dtype for v in (*equation.invars, *equation.outvars)}
    if any(batch) or len(kept) > 1:
        return None  # nor are sums over nothing taken apart
    return (
        2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in over)
        or None
    )


def _cuts(equation: Any) -> bool:
    """Whether it is a pad that cuts off instead."""
    config = equation.params.get("padding_config", ())
    return any(low < 0 or high < 0 for low, high, _ in config)


class ScalarProgram:
    """A jaxpr, to be called with entries in place of arrays.

    `lanes`: the shape of a vector. What is known while tracing is computed then, what is not needed
    is not computed, and what is equal is computed once.
    """

    def __init__(self, closed: core.ClosedJaxpr, lanes: tuple[int, ...]):
        self._closed, self._lanes = closed, lanes
        self._made: dict[Any, Number] = {}
        self._vectors: dict[Any, Array] = {}

    def __call__(self, *arguments: Entries) -> list[Entries]:
        self._made, self._vectors = {}, {}  # what was made before may belong to another loop
        constants = [known(c) for c in self._closed.consts]
        out = self._run(self._closed.jaxpr, constants, arguments)
        for part in out:
            for number in part.ravel():
                self._compute(number)
        return out

    def _run(
        self, jaxpr: core.Jaxpr, constants: Sequence[Entries], arguments: Sequence[Entries]
    ) -> list[Entries]:
        found: dict[Any, Entries] = dict(zip(jaxpr.constvars, constants, strict=True))
        found |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> Entries:
            return known(atom.val) if isinstance(atom, core.Literal) else found[atom]

        for equation in jaxpr.eqns:
            inputs = [read(atom) for atom in equation.invars]
            outputs = self._outputs(equation, inputs)
            found |= dict(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _outputs(self, equation: Any, inputs: list[Entries]) -> list[Entries]:
        name, params = equation.primitive.name, equation.params
        if name in _CALLS:
            inner = params[_CALLS[name]]
            constants = [known(c) for c in getattr(inner, "consts", ())]
            return self._run(getattr(inner, "jaxpr", inner), constants, inputs)
        if name in _SHAPES:
            out = _SHAPES[name](equation, *inputs)
            return out if isinstance(out, list) else [out]
        if name in _FOLDS:
            return [self._fold(_FOLDS[name], inputs[0], params["axes"])]
        if name in _ELEMENTWISE:
            return [self._each(equation, inputs)]
        if name == "dot_general":
            return [self._product(equation, *inputs)]
        raise NotImplementedError(name)  # `operation_count` is asked first

    def _each(self, equation: Any, inputs: list[Entries]) -> Entries:
        shape = equation.outvars[0].aval.shape
        rows = [np.broadcast_to(v, shape).ravel() for v in inputs]

        name, params = equation.primitive.name, equation.params

        def apply(*numbers: Any) -> Any:
            # Mosaic does not know the first, and not all of the second.
            if name == "add_any":
                return jax.lax.add(*numbers)
            if name == "integer_pow":
                return _power(numbers[0], params["y"])
            return equation.primitive.bind(*numbers, **params)

        what = (name, repr(params))
        made = [self._apply(what, apply, *numbers) for numbers in zip(*rows, strict=True)]
        return entries(made, shape)

    def _product(self, equation: Any, left: Entries, right: Entries) -> Entries:
        (over_left, over_right), _ = equation.params["dimension_numbers"]
        left = np.moveaxis(left, over_left, range(-len(over_left), 0))
        right = np.moveaxis(right, over_right, range(-len(over_right), 0))
        terms = math.prod(left.shape[left.ndim - len(over_left) :])
        sums = []
        for row in left.reshape(-1, terms):
            for column in right.reshape(-1, terms):
                pairs = zip(row, column, strict=True)
                products = [self._apply("mul", jax.lax.mul, *pair) for pair in pairs]
                sums.append(self._folded(jax.lax.add, products))
        return entries(sums, equation.outvars[0].aval.shape)

    def _fold(self, by: Callable, v: Entries, axes: tuple[int, ...]) -> Entries:
        rest = tuple(n for i, n in enumerate(v.shape) if i not in axes)
        moved = np.moveaxis(v, axes, range(-len(axes), 0)).reshape(*rest, -1)
        return entries(
            [self._folded(by, list(row)) for row in moved.reshape(-1, moved.shape[-1])], rest
        )

    def _folded(self, by: Callable, terms: list[Number]) -> Number:
        while len(terms) > 1:  # in pairs: they wait for each other less than in a row
            pairs = zip(terms[::2], terms[1::2], strict=False)
            sums = [self._apply(by.__name__, by, *pair) for pair in pairs]
            terms = sums + terms[2 * len(sums) :]
        return terms[0]

    def _apply(self, what: Any, function: Callable, *numbers: Number) -> Number:
        if all(number.is_known for number in numbers):
            with jax.ensure_compile_time_eval():
                return Number(np.asarray(function(*(number.value for number in numbers)))[()])
        key = (what, *(number.key for number in numbers))
        return self._made.setdefault(key, Number(None, function, numbers))

    def _compute(self, number: Number) -> None:
        waiting = [number]
        while waiting:
            now = waiting[-1]
            missing = [v for v in now.operands if v.value is None]
            if now.value is not None or not missing:
                waiting.pop()
                self._evaluate(now)
            else:
                waiting += missing

    def _evaluate(self, number: Number) -> None:
        if number.value is None and number.function is not None:
            values = [operand.value for operand in number.operands]
            if any(np.ndim(value) for value in values):
                values = [self._vector(operand) for operand in number.operands]
            number.value = number.function(*values)

    def _vector(self, number: Number) -> Array:
        if number.key not in self._vectors:
            self._vectors[number.key] = self.spread(number)
        return self._vectors[number.key]

    def spread(self, number: Number) -> Array:
        """A vector with this number for every run."""
        value = number.value
        return value if np.ndim(value) else jnp.full(self._lanes, value)


def _power(x: Array, exponent: int) -> Array:
    if exponent < 0:
        return jax.lax.div(jnp.ones_like(x), _power(x, -exponent))
    if exponent < 2:
        return x if exponent else jnp.ones_like(x)
    half = _power(x, exponent // 2)
    square = jax.lax.mul(half, half)
    return jax.lax.mul(square, x) if exponent % 2 else square


def entries(numbers: Sequence[Number], shape: tuple[int, ...]) -> Entries:
    """Numbers, in rows, as an array of this shape."""
    out = np.empty(len(numbers), object)
    for i, number in enumerate(numbers):
        out[i] = number
    return out.reshape(shape)


def known(array: Any) -> Entries:
    """The entries of an array whose numbers are known."""
    array = np.asarray(array)
    return entries([Number(value) for value in array.ravel()], array.shape)


def _broadcast(equation: Any, v: Entries) -> Entries:
    shape, along = equation.params["shape"], equation.params["broadcast_dimensions"]
    spread = [1] * len(shape)
    for i, axis in enumerate(along):
        spread[axis] = v.shape[i]
    return np.broadcast_to(v.reshape(spread), shape)


def _slice(equation: Any, v: Entries) -> Entries:
    first, last, step = (equation.params[k] for k in ("start_indices", "limit_indices", "strides"))
    by = step or (1,) * v.ndim
    return v[tuple(itertools.starmap(slice, zip(first, last, by, strict=True)))]


def _stack(equation: Any, *v: Entries) -> Entries:
    return np.stack(v, axis=equation.params["axis"])


def _unstack(equation: Any, v: Entries) -> list[Entries]:
    shape = equation.outvars[0].aval.shape
    return [
        part.reshape(shape)
        for part in np.split(v, v.shape[equation.params["axis"]], equation.params["axis"])
    ]


def _pad(equation: Any, v: Entries, value: Entries) -> Entries:
    out = np.full(equation.outvars[0].aval.shape, value[()], object)
    config = equation.params["padding_config"]
    where = [
        slice(low, low + (n - 1) * (inner + 1) + 1 if n else low, inner + 1)
        for n, (low, _, inner) in zip(v.shape, config, strict=True)
    ]
    out[tuple(where)] = v
    return out


_SHAPES: dict[str, Callable[..., Entries | list[Entries]]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": lambda e, v: v.reshape(e.params["new_sizes"]),
    "squeeze": lambda e, v: v.reshape(e.outvars[0].aval.shape),
    "slice": _slice,
    "concatenate": lambda e, *v: np.concatenate(v, axis=e.params["dimension"]),
    "transpose": lambda e, v: v.transpose(e.params["permutation"]),
    "rev": lambda e, v: np.flip(v, e.params["dimensions"]),
    "iota": lambda e: known(
        np.indices(e.params["shape"], e.params["dtype"])[e.params["dimension"]]
    ),
    "stack": _stack,
    "unstack": _unstack,
    "pad": _pad,
    "copy": lambda e, v: v,
    "stop_gradient": lambda e, v: v,
}
