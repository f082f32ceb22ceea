"""A traced function as a program on scalars, for kernels that keep scalars in registers.

A kernel of an accelerator works on many runs at once: one scalar of each run makes a vector. An
array of a run, such as its positions (m,), is then m separate vectors, on which no array operation
works: so the function is split into operations on scalars, with every loop over an axis unrolled.
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

ScalarArray = np.ndarray
"""An array of `ScalarValue`s."""


class ScalarValue:
    """A scalar in a `ScalarProgram`: a vector with one number of every run, or one number for all.

    A NumPy scalar is a constant of the program. `value` is None until the scalar is computed, as
    `function` of `operands`.
    """

    # Arrays hold this object and not the vector itself, whose axes numpy would take for its own.
    __slots__ = ("function", "operands", "value")

    def __init__(
        self, value: Any, function: Callable | None = None, operands: Sequence["ScalarValue"] = ()
    ):
        self.value, self.function, self.operands = value, function, operands

    @property
    def is_constant(self) -> bool:
        return isinstance(self.value, np.generic)

    @property
    def key(self) -> Any:
        """A hashable key that equal scalars share: the number of a constant, else the identity."""
        return (self.value.dtype, self.value.tobytes()) if self.is_constant else id(self)


_ELEMENTWISE = {
    *("abs", "add", "add_any", "and", "clamp", "convert_element_type", "div", "eq", "erf", "exp"),
    *("ge", "gt", "integer_pow", "le", "log", "logistic", "lt", "max", "min", "mul", "ne", "neg"),
    *("not", "one_minus_square", "or", "rsqrt", "select_n", "shift_left", "shift_right_logical"),
    *("sign", "square", "sub", "tanh", "xor"),
}
_NESTED = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
_REDUCTIONS = {
    "reduce_sum": jax.lax.add,
    "reduce_max": jax.lax.max,
    "reduce_min": jax.lax.min,
    "reduce_prod": jax.lax.mul,
    "reduce_and": jax.lax.bitwise_and,
    "reduce_or": jax.lax.bitwise_or,
}


def operation_count(closed: core.ClosedJaxpr) -> int | None:
    """Return how many scalar operations a jaxpr has, or None if it cannot be split into them."""

    def count(jaxpr: Any) -> int | None:
        total = 0
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            if name in _NESTED:
                inner = equation.params[_NESTED[name]]
                more = count(getattr(inner, "jaxpr", inner))
            elif name in _ELEMENTWISE and _is_plain(equation):
                more = math.prod(equation.outvars[0].aval.shape)
            elif name in _REDUCTIONS:
                more = math.prod(equation.invars[0].aval.shape) or None
            elif name == "dot_general":
                more = _terms(equation)
            else:
                more = 0 if name in _REARRANGEMENTS and not _is_cropping(equation) else None
            if more is None:
                return None
            total += more
        return total

    return count(closed.jaxpr)


def _is_plain(equation: Any) -> bool:
    """Return whether kernels know this form of an elementwise operation."""
    params = equation.params
    to_bool = equation.primitive.name == "convert_element_type" and params["new_dtype"].kind == "b"
    choices = equation.primitive.name == "select_n" and len(equation.invars) > 3
    return not to_bool and not choices and params.get("accuracy") is None


def _terms(equation: Any) -> int | None:
    """Return how many scalar operations a product of arrays takes, None for a batched product."""
    (over, _), batch = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    kept = {v.aval.dtype for v in (*equation.invars, *equation.outvars)}
    if any(batch) or len(kept) > 1:
        return None
    return (
        2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in over)
        or None  # an empty sum has no first term to start from
    )


def _is_cropping(equation: Any) -> bool:
    """Return whether an equation is a pad with negative widths, which removes entries."""
    config = equation.params.get("padding_config", ())
    return any(low < 0 or high < 0 for low, high, _ in config)


class ScalarProgram:
    """A jaxpr that is called with a `ScalarArray` in place of every array.

    `lanes`: the shape of a vector. Constants are computed while tracing, scalars that no result
    needs are not computed, and equal scalars are computed once.
    """

    def __init__(self, closed: core.ClosedJaxpr, lanes: tuple[int, ...]):
        self._closed, self._lanes = closed, lanes
        self._scalars: dict[Any, ScalarValue] = {}
        self._vectors: dict[Any, Array] = {}

    def __call__(self, *arguments: ScalarArray) -> list[ScalarArray]:
        self._scalars, self._vectors = {}, {}  # tracers of an earlier call may be of another loop
        constants = [constant_array(c) for c in self._closed.consts]
        out = self._run(self._closed.jaxpr, constants, arguments)
        for part in out:
            for scalar in part.ravel():
                self._compute(scalar)
        return out

    def _run(
        self, jaxpr: core.Jaxpr, constants: Sequence[ScalarArray], arguments: Sequence[ScalarArray]
    ) -> list[ScalarArray]:
        found: dict[Any, ScalarArray] = dict(zip(jaxpr.constvars, constants, strict=True))
        found |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> ScalarArray:
            return constant_array(atom.val) if isinstance(atom, core.Literal) else found[atom]

        for equation in jaxpr.eqns:
            inputs = [read(atom) for atom in equation.invars]
            outputs = self._outputs(equation, inputs)
            found |= dict(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _outputs(self, equation: Any, inputs: list[ScalarArray]) -> list[ScalarArray]:
        name, params = equation.primitive.name, equation.params
        if name in _NESTED:
            inner = params[_NESTED[name]]
            constants = [constant_array(c) for c in getattr(inner, "consts", ())]
            return self._run(getattr(inner, "jaxpr", inner), constants, inputs)
        if name in _REARRANGEMENTS:
            out = _REARRANGEMENTS[name](equation, *inputs)
            return out if isinstance(out, list) else [out]
        if name in _REDUCTIONS:
            return [self._reduce(_REDUCTIONS[name], inputs[0], params["axes"])]
        if name in _ELEMENTWISE:
            return [self._elementwise(equation, inputs)]
        if name == "dot_general":
            return [self._dot_general(equation, *inputs)]
        raise NotImplementedError(name)  # callers check with `operation_count` before

    def _elementwise(self, equation: Any, inputs: list[ScalarArray]) -> ScalarArray:
        shape = equation.outvars[0].aval.shape
        rows = [np.broadcast_to(v, shape).ravel() for v in inputs]

        name, params = equation.primitive.name, equation.params

        def apply(*scalars: Any) -> Any:
            # Mosaic has no `add_any`, and `integer_pow` for some exponents only.
            if name == "add_any":
                return jax.lax.add(*scalars)
            if name == "integer_pow":
                return _power(scalars[0], params["y"])
            return equation.primitive.bind(*scalars, **params)

        what = (name, repr(params))
        made = [self._apply(what, apply, *scalars) for scalars in zip(*rows, strict=True)]
        return scalar_array(made, shape)

    def _dot_general(self, equation: Any, left: ScalarArray, right: ScalarArray) -> ScalarArray:
        (over_left, over_right), _ = equation.params["dimension_numbers"]
        left = np.moveaxis(left, over_left, range(-len(over_left), 0))
        right = np.moveaxis(right, over_right, range(-len(over_right), 0))
        terms = math.prod(left.shape[left.ndim - len(over_left) :])
        sums = []
        for row in left.reshape(-1, terms):
            for column in right.reshape(-1, terms):
                pairs = zip(row, column, strict=True)
                products = [self._apply("mul", jax.lax.mul, *pair) for pair in pairs]
                sums.append(self._reduce_in_pairs(jax.lax.add, products))
        return scalar_array(sums, equation.outvars[0].aval.shape)

    def _reduce(self, by: Callable, v: ScalarArray, axes: tuple[int, ...]) -> ScalarArray:
        shape = tuple(n for i, n in enumerate(v.shape) if i not in axes)
        moved = np.moveaxis(v, axes, range(-len(axes), 0)).reshape(*shape, -1)
        rows = moved.reshape(-1, moved.shape[-1])
        return scalar_array([self._reduce_in_pairs(by, list(row)) for row in rows], shape)

    def _reduce_in_pairs(self, by: Callable, terms: list[ScalarValue]) -> ScalarValue:
        while len(terms) > 1:  # by pairs: in a chain every operation waits for the one before
            pairs = zip(terms[::2], terms[1::2], strict=False)
            sums = [self._apply(by.__name__, by, *pair) for pair in pairs]
            terms = sums + terms[2 * len(sums) :]
        return terms[0]

    def _apply(self, what: Any, function: Callable, *scalars: ScalarValue) -> ScalarValue:
        if all(scalar.is_constant for scalar in scalars):
            with jax.ensure_compile_time_eval():
                return ScalarValue(np.asarray(function(*(scalar.value for scalar in scalars)))[()])
        key = (what, *(scalar.key for scalar in scalars))
        return self._scalars.setdefault(key, ScalarValue(None, function, scalars))

    def _compute(self, scalar: ScalarValue) -> None:
        waiting = [scalar]
        while waiting:
            now = waiting[-1]
            missing = [v for v in now.operands if v.value is None]
            if now.value is not None or not missing:
                waiting.pop()
                self._evaluate(now)
            else:
                waiting += missing

    def _evaluate(self, scalar: ScalarValue) -> None:
        if scalar.value is None and scalar.function is not None:
            values = [operand.value for operand in scalar.operands]
            if any(np.ndim(value) for value in values):
                values = [self._cached_vector(operand) for operand in scalar.operands]
            scalar.value = scalar.function(*values)

    def _cached_vector(self, scalar: ScalarValue) -> Array:
        if scalar.key not in self._vectors:
            self._vectors[scalar.key] = self.as_vector(scalar)
        return self._vectors[scalar.key]

    def as_vector(self, scalar: ScalarValue) -> Array:
        """Return the vector of a scalar, with a number for every run."""
        value = scalar.value
        return value if np.ndim(value) else jnp.full(self._lanes, value)


def _power(x: Array, exponent: int) -> Array:
    if exponent < 0:
        return jax.lax.div(jnp.ones_like(x), _power(x, -exponent))
    if exponent < 2:
        return x if exponent else jnp.ones_like(x)
    half = _power(x, exponent // 2)
    square = jax.lax.mul(half, half)
    return jax.lax.mul(square, x) if exponent % 2 else square


def scalar_array(scalars: Sequence[ScalarValue], shape: tuple[int, ...]) -> ScalarArray:
    """Return scalars, in row-major order, as an array of a shape."""
    out = np.empty(len(scalars), object)
    for i, scalar in enumerate(scalars):
        out[i] = scalar
    return out.reshape(shape)


def constant_array(array: Any) -> ScalarArray:
    """Return an array of numbers as an array of constants."""
    array = np.asarray(array)
    return scalar_array([ScalarValue(value) for value in array.ravel()], array.shape)


def _broadcast(equation: Any, v: ScalarArray) -> ScalarArray:
    shape, axes = equation.params["shape"], equation.params["broadcast_dimensions"]
    expanded = [1] * len(shape)
    for i, axis in enumerate(axes):
        expanded[axis] = v.shape[i]
    return np.broadcast_to(v.reshape(expanded), shape)


def _slice(equation: Any, v: ScalarArray) -> ScalarArray:
    first, last, step = (equation.params[k] for k in ("start_indices", "limit_indices", "strides"))
    by = step or (1,) * v.ndim
    return v[tuple(itertools.starmap(slice, zip(first, last, by, strict=True)))]


def _stack(equation: Any, *v: ScalarArray) -> ScalarArray:
    return np.stack(v, axis=equation.params["axis"])


def _unstack(equation: Any, v: ScalarArray) -> list[ScalarArray]:
    shape = equation.outvars[0].aval.shape
    return [
        part.reshape(shape)
        for part in np.split(v, v.shape[equation.params["axis"]], equation.params["axis"])
    ]


def _pad(equation: Any, v: ScalarArray, value: ScalarArray) -> ScalarArray:
    out = np.full(equation.outvars[0].aval.shape, value[()], object)
    config = equation.params["padding_config"]
    where = [
        slice(low, low + (n - 1) * (inner + 1) + 1 if n else low, inner + 1)
        for n, (low, _, inner) in zip(v.shape, config, strict=True)
    ]
    out[tuple(where)] = v
    return out


_REARRANGEMENTS: dict[str, Callable[..., ScalarArray | list[ScalarArray]]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": lambda e, v: v.reshape(e.params["new_sizes"]),
    "squeeze": lambda e, v: v.reshape(e.outvars[0].aval.shape),
    "slice": _slice,
    "concatenate": lambda e, *v: np.concatenate(v, axis=e.params["dimension"]),
    "transpose": lambda e, v: v.transpose(e.params["permutation"]),
    "rev": lambda e, v: np.flip(v, e.params["dimensions"]),
    "iota": lambda e: constant_array(
        np.indices(e.params["shape"], e.params["dtype"])[e.params["dimension"]]
    ),
    "stack": _stack,
    "unstack": _unstack,
    "pad": _pad,
    "copy": lambda e, v: v,
    "stop_gradient": lambda e, v: v,
}
