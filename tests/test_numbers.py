"""The gate for numbers: plain real ones go through, as copies; all else is refused by name."""

import datetime
import functools
import re
from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import tts_jax as tts
from tts_jax._numbers import as_floats, as_leaf, as_leaves, as_real, as_whole, check_key, shown

MASKED = np.ma.array([0.3, -9999.0], mask=[False, True])

NO_NUMBERS = {
    "a word": "0.5",
    "bytes": b"0.5",
    "a buffer of bytes": bytearray(b"12"),
    "a truth value": True,
    "a truth value of NumPy": np.bool_(True),
    "truth values": np.array([True, False]),
    "truth values of JAX": jnp.array([True, False]),
    "a truth value among numbers": [0.1, True],
    "words": ["0.1", "0.2"],
    "words in an array": np.array(["0.1", "0.2"]),
    "words in pandas": pd.Series(["0.1", "0.2"]),
    "none": None,
    "none among numbers": [0.1, None],
    "complex": 1 + 2j,
    "complex without an imaginary part": np.array([1 + 0j, 2 + 0j]),
    "complex of JAX": jnp.array([1j, 2.0]),
    "a date": datetime.datetime(2020, 1, 1),
    "dates": np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]"),
    "dates in pandas": pd.to_datetime(["2020-01-01", "2020-01-02"]),
    "dates with a zone": pd.Series(pd.to_datetime(["2020-01-01"], utc=True)),
    "dates in xarray": xr.DataArray(np.array(["2020-01-01"], "datetime64[ns]")),
    "durations": np.array([1, 2], "timedelta64[s]"),
    "a mask": MASKED,
    "a mask in a list": [MASKED],
    "the masked constant": np.ma.masked,
    "the masked constant among numbers": [0.1, np.ma.masked],
    "what pandas has not": pd.array([1, None], dtype="Int64")[1],
    "categories that are words": pd.Series(pd.Categorical(["a", "b"])),
    "a table with truth values": pd.DataFrame({"a": [0.1], "b": [True]}),
    "a whole data set": xr.Dataset({"a": ("x", [0.1])}),
    "records": np.array([(1, 2.0)], dtype=[("a", int), ("b", float)]),
    "a set": {0.1, 0.2},
    "a mapping": {0.1: 0.2},
    "a generator": (v for v in (0.1, 0.2)),
    "a function": np.sin,
    "a class": float,
    "an object": object(),
    "an activation": tts.CubicStep(0.1),
    "a key": jax.random.key(0),
    "rows of two lengths": [[0.1], [0.2, 0.3]],
    "a number beyond float64": 10**400,
    "a NaN that signals": Decimal("sNaN"),
}


@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS)
@pytest.mark.parametrize("gate", [as_real, as_floats, as_leaf])
def test_what_is_no_real_number_is_refused(gate, value):
    with pytest.raises(ValueError, match=r"^Argument `quantity` must be .*, but is "):
        gate("quantity", value)


NUMBERS = {
    "list": [0.5, 2],
    "tuple": (0.5, 2.0),
    "range": (range(1, 3), [1.0, 2.0]),
    "NumPy's in a list": [np.float32(0.5), np.int8(2)],
    "arrays in a list": [np.array(0.5), jnp.array(2.0)],
    "whole": np.array([1, 2], np.int16),
    "half precision": np.array([0.5, 2], np.float16),
    "a matrix": np.array([[0.5, 2.0]]),
    "rows": [[0.5, 1.0], [2.0, 3.0]],
    "rows in arrays": [np.array([0.5, 1.0]), [2, 3]],
    "pandas": pd.Series([0.5, 2.0], index=[7, 3]),
    "a table of pandas": pd.DataFrame({"a": [0.5, 1.0], "b": [2, 3]}),
    "whole of pandas": pd.Series([1, 2], dtype="Int64"),
    "xarray": xr.DataArray([0.5, 2.0], dims="x", attrs={"units": "m"}),
    "fractions": [Fraction(1, 2), Decimal(2)],
    "a mask of nothing": np.ma.array([0.5, 2.0], mask=False),
    "none at all": [],
}


@pytest.mark.parametrize("value", NUMBERS.values(), ids=NUMBERS)
def test_plain_real_numbers_go_through(value):
    wanted = np.asarray(value, np.float64)
    found = as_floats("quantity", value)
    assert type(found) is np.ndarray
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "value",
    [0.5, np.float64(0.5), np.float32(0.5), np.array(0.5), Fraction(1, 2), Decimal("0.5")],
)
def test_a_single_number_becomes_a_float(value):
    found = as_real("quantity", value)
    assert type(found) is float
    assert found == 0.5


def test_a_single_number_of_xarray_and_whole_ones_become_floats():
    for value in (xr.DataArray(2), np.int64(2), 2):
        assert repr(as_real("quantity", value)) == "2.0"
    assert as_real("quantity", jnp.array(2)).dtype == jnp.float64
    for value in ([0.5], np.ones(1), jnp.ones(3)):
        with pytest.raises(ValueError, match="`quantity` must be a single number, but is an array"):
            as_real("quantity", value)


def test_what_a_mask_hides_and_what_a_nan_spoils_is_told_by_row():
    table = np.ma.masked_values([[1.0, -9999.0], [2.0, 3.0], [-9999.0, -9999.0]], -9999.0)
    with pytest.raises(ValueError, match=re.escape("masked in 3 place(s), row(s) 0, 2")):
        as_floats("x", table)
    network = tts.AdditiveNetwork(tts.Tanh(0.1))
    x = np.zeros((9, 2))
    x[[1, 3, 4, 5, 6, 8], 1] = np.nan
    with pytest.raises(ValueError, match=re.escape("NaN in 6 place(s), row(s) 1, 3, 4, 5, 6, ...")):
        tts.EmpiricalProblem(network, x, np.zeros(9))
    y = np.zeros(9)
    y[7] = np.inf
    with pytest.raises(ValueError, match=re.escape("`y` must be finite") + r".*row\(s\) 7\."):
        tts.EmpiricalProblem(network, np.zeros((9, 2)), y)


def test_problems_made_over_one_buffer_keep_their_own_numbers():
    jumps, values, made = np.empty(1), np.empty(2), []
    for place in (0.2, 0.5, 0.8):
        jumps[:], values[:] = place, [place, -place]
        made.append(tts.PiecewiseConstant(jumps, values))
    assert [float(target.jumps[0]) for target in made] == [0.2, 0.5, 0.8]
    assert [float(target.values[1]) for target in made] == [-0.2, -0.5, -0.8]


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (lambda v: tts.AdditiveSteps(v, v), ("jumps", "weights")),
        (lambda v: tts.Function(jnp.sin, kinks=v), ("kinks",)),
        (lambda v: tts.EmpiricalProblem(tts.ShallowNetwork(tts.ReLU()), v, v), ("x", "y")),
        (lambda v: tts.GradientFlow(v[1:2].reshape(())), ("epsilon",)),
        (
            lambda v: (
                tts.Teacher(tts.ShallowNetwork(tts.ReLU(), bias=False), tts.Params(v, v)).params
            ),
            ("a", "u"),
        ),
    ],
)
def test_no_constructor_keeps_a_buffer(make, fields):
    buffer = np.array([0.2, 0.5])
    made = make(buffer)
    before = [np.array(getattr(made, name)) for name in fields]
    buffer[:] = 0.9
    for name, kept in zip(fields, before, strict=True):
        np.testing.assert_array_equal(getattr(made, name), kept)


def test_what_a_constructor_keeps_cannot_be_written_to():
    target = tts.PiecewiseConstant([0.5], [0.0, 1.0])
    with pytest.raises(ValueError, match="read-only"):
        target.jumps[0] = 0.7
    assert not as_floats("x", [np.ones(2), [1, 2]]).flags.writeable


def test_parameters_keep_their_precision_and_no_buffer():
    buffer = np.zeros(64, np.float32)
    leaf = as_leaf("params.u", buffer)
    buffer[:] = 1.0
    assert leaf.dtype == np.float32
    assert not np.any(leaf)
    assert as_leaf("params.u", jnp.zeros(2, jnp.float32)).dtype == np.float32


def test_a_leaf_is_named_by_its_path():
    with pytest.raises(ValueError, match=re.escape("`params.u['w'][1]` must be real numbers")):
        as_leaves("params.u", {"w": (np.zeros(2), "x")})


def test_traced_numbers_go_through_every_gate():
    numbers = jnp.array([0.3, 0.6])

    def total(numbers):
        jumps = as_floats("jumps", numbers)
        pair = as_floats("pair", [numbers[0], 2.0])
        return jumps @ as_leaf("jumps", numbers) + as_real("one", numbers[1]) * pair[0] * pair[1]

    wanted = 0.45 + 0.36
    assert jax.jit(total)(numbers) == pytest.approx(wanted)
    assert jax.vmap(total)(numbers[None]) == pytest.approx(wanted)
    slope = jax.grad(total)(numbers)
    np.testing.assert_allclose(slope, [0.6 + 2 * 0.6, 1.2 + 2 * 0.3])


def test_a_deleted_array_is_refused():
    array = jnp.zeros(3) + 1.0
    array.delete()
    for gate in (as_floats, as_leaf):
        with pytest.raises(ValueError, match="`x` must be an array that is still there"):
            gate("x", array)


@pytest.mark.parametrize(
    "value",
    [True, 1.0, "1", None, 0, -3, 8, 10**30, [1], np.ones(1, int), Decimal(1), jnp.ones(())],
)
def test_what_is_no_whole_number_of_a_range_is_refused(value):
    with pytest.raises(ValueError, match="`width` must be a whole number from 1 to 7, but is"):
        as_whole("width", value, most=7)


@pytest.mark.parametrize("value", [5, np.int8(5), np.array(5), jnp.array(5)])
def test_whole_numbers_become_ints(value):
    assert repr(as_whole("width", value)) == "5"


def test_a_traced_number_is_no_whole_one():
    with pytest.raises(ValueError, match="`width` must be a whole number of at least 1"):
        jax.eval_shape(functools.partial(as_whole, "width"), jnp.array(5))


def test_keys_are_single():
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        check_key("key", key)
        batch = jnp.stack([key, key])
        with pytest.raises(ValueError, match=r"`key` must be one single key.* of shape \(2,\)"):
            check_key("key", batch)
    for wrong in (0, None, "key", np.zeros(2, np.uint32), jnp.zeros(2), jax.random.key):
        with pytest.raises(ValueError, match=r"`key` must be a jax\.random\.key"):
            check_key("key", wrong)


def test_a_message_shows_no_address_and_no_long_value():
    assert shown(object()) == "of type object"
    assert shown("x" * 100) == "of type str"
    assert shown(np.zeros((2, 3))) == "an array of shape (2, 3) and dtype float64"
    assert shown(tts.CubicStep) == "the class CubicStep itself"


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_what_holds_an_array_keeps_its_dtype(kind):
    values = np.arange(3).astype(kind)
    for given in (values, pd.Series(values), xr.DataArray(values), values.view(np.ndarray)):
        assert as_leaf("u", given).dtype == kind


def test_truth_values_of_either_kind_go_through_map_runs():
    for flags in (np.asarray([True, False]), jnp.asarray([True, False])):
        np.testing.assert_array_equal(
            tts.map_runs(lambda on: jnp.where(on, 1.0, 2.0))(flags), [1.0, 2.0]
        )
