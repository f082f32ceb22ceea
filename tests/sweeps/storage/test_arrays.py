"""What arrays a layout makes, and that others are refused."""

import copy
import re

import numpy as np
import pytest
from small_problems import small_problem
from small_studies import FEW, Drift

import tts_jax as tts
from tts_jax.sweeps.execution.layout import make_layout
from tts_jax.sweeps.execution.variables import variables_of
from tts_jax.sweeps.storage.arrays import check_arrays, empty, fixed_values, is_text
from tts_jax.sweeps.storage.root import read_root


@pytest.fixture(scope="module")
def layout():
    study = tts.Study(small_problem(), Drift(), FEW, [0.0, 1.0])
    return make_layout(study, variables_of(study), (2, 3))


def test_what_was_made_is_what_is_made(made, layout):
    arrays = read_root(made).arrays
    check_arrays(made, arrays, layout)
    del arrays["floor"], arrays["recovered_below"]  # there is none for some problems
    check_arrays(made, arrays, layout)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda arrays: arrays.pop("u"), "one of the two has `u`, and the other does not"),
        (lambda arrays: arrays.update(v=arrays["u"]), "one of the two has `v`"),
        (lambda arrays: arrays["a"]["shape"].append(2), "`a` has shape [2, 3, 2, 7, 2], and not"),
        (lambda arrays: arrays["tau"].update(shape=[3]), "`tau` has shape [3], and not [2]"),
        (lambda arrays: arrays["seed"].update(data_type="float64"), "`seed` has type float64"),
        (lambda arrays: arrays["u"].pop("dimension_names"), "`u` has dimensions [], and not"),
        (lambda arrays: arrays["u"]["codecs"].pop(), "`u` has codecs ['bytes', 'zstd'], and not"),
        (lambda arrays: arrays.update(risk=[]), "`risk` has shape None, and not [2, 3, 2]"),
    ],
)
def test_other_arrays_are_told(made, layout, change, told):
    arrays = copy.deepcopy(read_root(made).arrays)
    change(arrays)
    with pytest.raises(tts.SweepError, match=re.escape(told)):
        check_arrays(made, arrays, layout)


def test_what_is_fixed_before_the_first_run(layout):
    found = {name: (values.tolist(), axes) for name, values, axes in fixed_values(layout)}
    floor = 0.08 / 28 * (2.0**2 + 2.5**2)
    assert found.pop("floor") == (pytest.approx(floor), ())
    assert found.pop("recovered_below") == (pytest.approx(2.5 * floor), ())
    assert found == {
        "epsilon": ([0.2, 0.1], ("epsilon",)),
        "seed": ([5, 3, 4], ("seed",)),
        "width": (6, ()),
        "tau": ([0.0, 1.0], ("tau",)),
    }


def test_where_no_run_was_made_stands_nothing():
    assert np.isnan(empty(np.dtype("float32")))
    assert empty(np.dtype("int32")) == -1
    assert is_text(np.array(["a"], object).dtype)
    assert not is_text(np.dtype("int64"))
