"""Functions taken apart to numbers do what they do as a whole, with a run in each lane."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tts_jax as tts
from tts_jax.batching.scalar_program import (
    ScalarProgram,
    ScalarValue,
    constant_array,
    operation_count,
    scalar_array,
)

LANES = (5,)
few = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def traced(function, *runs):
    """The jaxpr of one run, out of arguments with the runs on the last axis."""
    return jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(v.shape[:-1], v.dtype) for v in runs))


def numbers_of(runs):
    """The scalars of an array with the runs on its last axis."""
    shape = runs.shape[:-1]
    return scalar_array(
        [ScalarValue(row) for row in jnp.reshape(runs, (-1, runs.shape[-1]))], shape
    )


def joined(unrolled, found):
    """An array of scalars, with the runs on the last axis again."""
    assert found.dtype == object
    lanes = [np.asarray(unrolled.as_vector(number)) for number in found.ravel()]
    return np.asarray(lanes).reshape(*found.shape, *LANES)


def unrolled(function, *runs):
    """What the function's program makes of these runs."""
    closed = traced(function, *runs)
    assert operation_count(closed) is not None
    step = ScalarProgram(closed, LANES)
    return [joined(step, found) for found in step(*(numbers_of(v) for v in runs))]


def assert_unrolls(function, *runs, rtol=1e-14):
    """Equal to a vmap over the last axis. Words and truth values to the last bit."""
    runs = [jnp.asarray(v) for v in runs]
    expected = jax.tree.leaves(jax.jit(jax.vmap(function, -1, -1))(*runs))
    found = unrolled(function, *runs)
    for mine, other in zip(found, expected, strict=True):
        assert mine.shape == other.shape
        assert mine.dtype == other.dtype
        rounding = rtol if jnp.issubdtype(other.dtype, jnp.inexact) else 0
        np.testing.assert_allclose(mine, other, rtol=rounding, atol=rounding)


def runs(*shape, dtype="float64"):
    """Numbers of some runs, each array with others than one of another shape."""
    rng = np.random.default_rng([*shape, 0])
    if np.issubdtype(dtype, np.floating):
        return rng.normal(size=(*shape, *LANES)).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, size=(*shape, *LANES), dtype=dtype, endpoint=True)


# Single operations.

ELEMENTWISE = {
    "arithmetic": lambda x, y: -(x + y) * x - y / (1.0 + jnp.abs(x)),
    "powers": lambda x, y: x**3 + jnp.square(y) + 1.0 / (y**2 + 1.0),
    "roots": lambda x, y: x + jax.lax.rsqrt(1.0 + y * y),
    "exp and log": lambda x, y: jnp.exp(x) + jnp.log(1.0 + y * y),
    "sigmoids": lambda x, y: jnp.tanh(x) + jax.nn.sigmoid(y) + jax.lax.erf(x),
    "clip": lambda x, y: jnp.clip(x, -0.5, 0.5) + jax.lax.clamp(-1.0, y, 1.0),
    "ends": lambda x, y: jnp.maximum(x, y) - jnp.minimum(x, 0.0),
    "sign": lambda x, y: jnp.sign(x) * jnp.abs(y),
    "where": lambda x, y: jnp.where((x > y) & ~(y < 0) | (x <= -1), x, 2 * y),
    "truth": lambda x, y: ((x >= y) ^ (x != 0), x == y),
    "to numbers": lambda x, y: (x > y).astype(x.dtype) + (10 * y).astype(jnp.int32).astype(x.dtype),
    "precision": lambda x, y: x.astype(jnp.float32) * y.astype(jnp.float32),
}
BETWEEN = {
    "all": lambda x: (jnp.sum(x), jnp.max(x), jnp.min(x), jnp.prod(x)),
    "one axis": lambda x: (jnp.sum(x, 1), jnp.max(x, 0), jnp.mean(x, 2), jnp.min(x, -1)),
    "two axes": lambda x: (jnp.sum(x, (0, 2)), jnp.max(x, (1, 2)), jnp.prod(x, (0, 1))),
    "truth": lambda x: (jnp.any(x > 1, 1), jnp.all(x > -1, (0, 2))),
    "kept": lambda x: x - jnp.mean(x, axis=1, keepdims=True),
    "broadcast": lambda x: x * x[:, :1] + x[1][None] * x[0, 0, 0],
    "scalars": lambda x: jnp.broadcast_to(x[0, 1, 2], (2, 3)),
    "new axes": lambda x: x[:, None, 1] + jnp.expand_dims(x[0], 1)[:2],
    "reshape": lambda x: jnp.reshape(x, (4, -1)) + jnp.ravel(x)[:6][None],
    "transpose": lambda x: (x.T, jnp.transpose(x, (1, 2, 0)), jnp.swapaxes(x, 0, 1)),
    "slices": lambda x: (x[:, ::2], x[1:, 1:3, ::-1], x[:, -1], x[..., 1:2]),
    "concatenate": lambda x: jnp.concatenate([x, x[:1] * 2, jnp.ones((1, 3, 4), x.dtype)]),
    "unstack": lambda x: sum(jnp.unstack(x, axis=1)),
    "rows": lambda x: [3 * row for row in x],
    "pad": lambda x: jnp.pad(x, ((0, 1), (2, 0), (0, 0)), constant_values=7.0),
    "pad inside": lambda x: jax.lax.pad(x, 0.5, ((1, 0, 2), (0, 0, 1), (0, 2, 0))),
    "slice's slope": jax.grad(lambda x: jnp.sum(x[:, 1:3:2, ::3] ** 3)),
    "iota": lambda x: (
        x * jnp.arange(4.0)[None, None] + jax.lax.broadcasted_iota(jnp.float64, (2, 3, 4), 1)
    ),
    "constant": lambda x: x + TABLE[None],
    "products": lambda x: (x[0] @ x[1].T, x[0] @ x[1, 0], jnp.tensordot(x, x[0], 2)),
    "product of sums": lambda x: jnp.einsum("ijk,kl->jil", x, TABLE.T),
    "several": lambda x: (x, 1.0, jnp.zeros(2), x[0]),
}
TABLE = np.random.default_rng(1).normal(size=(3, 4))


def names(cases):
    return pytest.mark.parametrize("name", cases)


@names(ELEMENTWISE)
def test_elementwise(name):
    assert_unrolls(ELEMENTWISE[name], runs(2, 2), runs(2, 2) * runs(1, 2))


@names(BETWEEN)
def test_between_the_entries(name):
    assert_unrolls(BETWEEN[name], runs(2, 3, 4))


def test_words():
    def mixed(x, y):
        turned = (x << np.uint32(7)) | (x >> np.uint32(25))
        return turned ^ y, ~x & y, x + y * x, x < y, jnp.minimum(x, y), x.astype(jnp.float32)

    assert_unrolls(mixed, runs(3, dtype="uint32"), runs(1, dtype="uint32"))


@few
@given(data=st.data())
def test_any_chain_of_shapes(data):
    """Reshapes, transposes, slices, sums and concatenations after each other."""
    rank = st.integers(1, 3)
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    steps = []
    now = shape
    for _ in range(data.draw(rank)):
        kind = data.draw(st.sampled_from(["transpose", "slice", "pad", "join", "sum", "reshape"]))
        axis = data.draw(st.integers(0, len(now) - 1))
        if kind == "transpose":
            order = data.draw(st.permutations(range(len(now))))
            steps.append(lambda x, order=order: jnp.transpose(x, order))
        elif kind == "slice":
            first, by = data.draw(st.integers(0, now[axis] - 1)), data.draw(st.integers(1, 3))
            cut = (*(slice(None) for _ in range(axis)), slice(first, None, by))
            steps.append(lambda x, cut=cut: x[cut])
        elif kind == "pad":
            config = [tuple(data.draw(st.tuples(*[st.integers(0, 2)] * 3))) for _ in now]
            steps.append(lambda x, config=config: jax.lax.pad(x, jnp.asarray(0.5), config))
        elif kind == "join":
            steps.append(lambda x, axis=axis: jnp.concatenate([x, 2 * x], axis))
        elif kind == "sum":
            steps.append(lambda x, axis=axis: jnp.sum(x, axis, keepdims=True))
        else:
            steps.append(lambda x: jnp.reshape(x, (-1, x.shape[0])))
        chain = tuple(steps)

        def function(x, chain=chain):
            for step in chain:
                x = step(x)
            return x

        now = jax.eval_shape(function, jax.ShapeDtypeStruct(shape, jnp.float64)).shape
    # Against the program on one run with numpy's numbers, which compiles nothing.
    x = runs(*shape)
    found = unrolled(function, x)[0]
    alone = np.stack([np.asarray(function(x[..., i])) for i in (0, LANES[0] - 1)], axis=-1)
    np.testing.assert_allclose(found[..., [0, -1]], alone, rtol=1e-14)


# Programs in programs.


@jax.custom_jvp
def _bent(x):
    return jnp.abs(x)


@_bent.defjvp
def _(primals, tangents):
    return _bent(*primals), 3.0 * tangents[0]


@jax.custom_vjp
def _lifted(x):
    return x + 1.0


_lifted.defvjp(lambda x: (_lifted(x), x), lambda x, g: (5.0 * g * x,))

CALLS = {
    "jit": lambda x: jax.jit(lambda y: jax.jit(jnp.sum)(y) + y)(x) * 2,
    "custom_jvp": lambda x: (_bent(x), jax.grad(lambda y: jnp.sum(_bent(y)))(x)),
    "custom_vjp": lambda x: (_lifted(x), jax.grad(lambda y: jnp.sum(_lifted(y)))(x)),
    "checkpoint": lambda x: jax.grad(jax.checkpoint(lambda y: jnp.sum(jnp.tanh(y) ** 2)))(x),
    "vmap": lambda x: jax.vmap(lambda y: jnp.sum(y) * y)(x),
    "stop_gradient": lambda x: x * jax.lax.stop_gradient(x),
}


@names(CALLS)
def test_programs_inside(name):
    assert_unrolls(CALLS[name], runs(2, 3))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("activation", [tts.CubicStep(0.8), tts.Tanh(0.5)], ids=repr)
def test_the_gradient_of_a_network(activation, dtype):
    network = tts.ShallowNetwork(activation)

    def slope(a, u, x, y):
        def loss(params):
            return jnp.mean((network(params, x) - y) ** 2)

        activated = jax.grad(loss)(tts.Params(a, u))
        return activated.a, activated.u

    shapes = [(4,), (3,), (2,), (2,)]
    rtol = 1e-13 if dtype == "float64" else 2e-6
    assert_unrolls(slope, *(runs(*shape, dtype=dtype) for shape in shapes), rtol=rtol)


# What is known while tracing.


def test_one_number_for_all_runs():
    """Numbers without lanes are the same for every run, and are spread only where they meet one."""

    def function(x, y):
        return x * y, 2.0 * y

    x, y = runs(2), jnp.asarray(1.5)
    step = ScalarProgram(jax.make_jaxpr(function)(x[:, 0], y), LANES)
    product, double = step(numbers_of(jnp.asarray(x)), scalar_array([ScalarValue(y)], ()))
    np.testing.assert_allclose(joined(step, product), x * 1.5, rtol=0)
    assert np.ndim(double[()].value) == 0
    np.testing.assert_array_equal(joined(step, double), np.full(LANES, 3.0))


def operations_traced(function, *arguments):
    """The operations that are left when it is called in a traced function."""
    return jax.make_jaxpr(function)(*arguments).jaxpr.eqns


def test_what_is_known_is_computed_while_tracing():
    def function(x):
        table = jnp.arange(4.0) ** 2
        known_sum = jnp.sum(jnp.tanh(table) * jnp.where(table > 1, table, 0.5))
        return known_sum, x

    closed = jax.make_jaxpr(function)(1.0)
    step = ScalarProgram(closed, LANES)
    found = []

    def whole(x):
        value, same = step(scalar_array([ScalarValue(x)], ()))
        found.append(value)
        return same[()].value

    assert len(closed.jaxpr.eqns) > 3
    assert operations_traced(whole, jnp.zeros(LANES)) == []
    (number,) = found
    table = np.arange(4.0) ** 2
    expected = np.sum(np.tanh(table) * np.where(table > 1, table, 0.5))
    assert isinstance(number[()].value, np.generic)
    np.testing.assert_allclose(number[()].value, expected, rtol=1e-14)


def test_known_arguments_cost_nothing():
    step = ScalarProgram(jax.make_jaxpr(lambda x, y: (x + 1.0) * y)(jnp.ones(3), 1.0), LANES)

    def whole(y):
        found = step(constant_array(np.arange(3.0)), scalar_array([ScalarValue(y)], ()))[0]
        return [number.value for number in found]

    # Three products, and the known factors spread to the lanes.
    left = [e.primitive.name for e in operations_traced(whole, jnp.zeros(LANES))]
    assert left.count("mul") == 3
    assert set(left) <= {"mul", "broadcast_in_dim"}


def test_known_entries_have_the_shape_and_the_type():
    array = np.arange(6, dtype=np.uint32).reshape(2, 3)
    found = constant_array(array)
    assert found.shape == (2, 3)
    assert all(isinstance(number.value, np.uint32) for number in found.ravel())
    assert [number.value for number in found.ravel()] == list(range(6))
    assert constant_array(np.float32(2.0)).shape == ()


# How many operations.


def count(function, *shapes) -> Any:
    return operation_count(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)))


def test_operations_are_counted_by_hand():
    shape = (3, 4)
    size = math.prod(shape)
    assert count(lambda x: x, shape) == 0
    assert count(lambda x: x.T[::2], shape) == 0  # shapes cost nothing
    assert count(lambda x: x + x * x, shape) == 2 * size
    assert count(lambda x: jnp.sum(x, 0), shape) == size
    assert count(lambda x, y: jnp.exp(x[None] - y[:, None]), (4,), (3,)) == 2 * size
    assert count(lambda x: jax.jit(lambda y: y * 2.0)(x) + 1.0, shape) == 2 * size
    assert count(lambda x: _bent(x), shape) == size
    assert count(jnp.matmul, shape, (4, 2)) == 2 * 3 * 4 * 2
    # A network of 2 neurons without a slope: x - u, by eta, tanh, times a, and a sum of 2.
    assert count(lambda a, u, x: jnp.sum(a * jnp.tanh((x - u) * 3.0)), (2,), (2,), ()) == 5 * 2


CANNOT = {
    "while": lambda x: jax.lax.while_loop(lambda v: jnp.sum(v) < 1, lambda v: v + 1, x),
    "scan": lambda x: jax.lax.scan(lambda c, v: (c + v, c), jnp.zeros(()), x)[1],
    "cond": lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
    "sort": jnp.sort,
    "pad that cuts": lambda x: jax.lax.pad(x, 0.0, [(-1, 0, 0)]),
    "products side by side": lambda x: jax.lax.dot_general(
        x[:, None], x[:, None], (((1,), (1,)), ((0,), (0,)))
    ),
    "sum of nothing": lambda x: jnp.sum(x[:0]),
    "product over nothing": lambda x: jnp.dot(x[:0], x[:0]),
    "accuracy": lambda x: jax.lax.exp(x, accuracy=jax.lax.AccuracyMode.HIGHEST),
    "square root": jnp.sqrt,
    "gather": lambda x: x[jnp.asarray([0, 2])[(x[:2] > 0).astype(jnp.int32)]],
    "inside": lambda x: jax.jit(lambda y: jnp.sort(y) + 1.0)(x),
}


@names(CANNOT)
def test_what_cannot_be_taken_apart(name):
    closed = jax.make_jaxpr(CANNOT[name])(jnp.zeros(4))
    assert operation_count(closed) is None


@names(["while", "scan", "cond", "sort", "square root", "gather", "inside"])
def test_it_is_not_taken_apart_wrongly(name):
    step = ScalarProgram(jax.make_jaxpr(CANNOT[name])(jnp.zeros(4)), LANES)
    with pytest.raises(NotImplementedError):
        step(numbers_of(jnp.zeros((4, *LANES))))
