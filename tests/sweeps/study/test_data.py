"""The sample of a study that stands in a file."""

import numpy as np
import pytest
from small_studies import DATA, compilations, write_data

from tts_jax.sweeps.study.data import check_unchanged, read_data
from tts_jax.sweeps.study.tables import TableError, describe_sample

X = [[0.5, 1.0], [-1.0, 0.2], [0.25, 0.0]]


def test_columns_stand_side_by_side(tmp_path):
    write_data(tmp_path)
    table = {"file": "data.csv", "x": ["age", "height"], "y": "price", "weights": "price"}
    with compilations() as found:
        data, arrays = read_data(table, tmp_path)
    assert found == []
    assert arrays["x"].tolist() == X
    assert arrays["y"].tolist() == arrays["weights"].tolist() == [3.0, 4.5, 1.0]
    assert data.description() == table | {"file": str(tmp_path / "data.csv")}
    again, same = read_data(data.description(), tmp_path / "elsewhere")
    assert again == data
    assert all(np.array_equal(same[name], arrays[name]) for name in arrays)


def test_one_name_is_an_array_as_it_is(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array(X), y=np.arange(3), t=np.arange(3.0))
    _, arrays = read_data({"file": "a.npz"}, tmp_path)
    assert arrays["x"].tolist() == X
    assert arrays["y"].dtype == np.float64
    _, arrays = read_data({"file": "a.npz", "x": "t", "y": ["t", "y"]}, tmp_path)
    assert arrays["x"].shape == (3,)
    assert arrays["y"].shape == (3, 2)


@pytest.mark.parametrize(
    ("table", "path", "complaint"),
    [
        (3, (), "`data` must be a table"),
        ({}, (), "`file` is missing: it must be a path"),
        ({"file": 3}, ("file",), "`file` is 3: it must be a path"),
        ({"file": ""}, ("file",), "`file` must be a path"),
        ({"file": "s3://bucket/a.csv"}, ("file",), "an address"),
        ({"file": "no/a.csv"}, ("file",), "there is no file `no/a.csv` (looked for as "),
        ({"file": "."}, ("file",), "`.` is no file"),
        ({"file": "data.csv", "z": "age"}, ("z",), "has no `z`; it has file, x, y, weights"),
        ({"file": "data.csv"}, ("file",), "has no `x`; it has `age`, `height`"),
        ({"file": "data.csv", "x": "aje", "y": "age"}, ("x",), "`data.csv` has no `aje`"),
        ({"file": "data.csv", "x": "age", "y": ["price", "name"]}, ("y",), "'a' in line 2"),
        ({"file": "data.csv", "x": [], "y": "age"}, ("x",), "must be a name in the file"),
        ({"file": "data.csv", "x": ["age", "age"], "y": "age"}, ("x",), "each once"),
        ({"file": "data.csv", "x": 3, "y": "age"}, ("x",), "but is 3"),
        ({"file": "data.csv", "x": "age", "y": "age", "weights": ["age"]}, ("weights",), "a name"),
        ({"file": "a.npz", "x": ["x", "t"], "y": "t"}, ("x",), "`x` (3, 2), `t` (2,)"),
        ({"file": "a.npz", "y": "gap"}, ("y",), "`gap` must be finite, but is infinite or NaN"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, table, path, complaint):
    write_data(tmp_path)
    np.savez(tmp_path / "a.npz", x=np.array(X), t=np.ones(2), gap=np.array([1.0, np.nan, 2.0]))
    with pytest.raises(TableError) as error:
        read_data(table, tmp_path)
    assert complaint in error.value.message
    assert error.value.path == ("data", *path)


def test_only_other_numbers_are_a_change(tmp_path):
    write_data(tmp_path)
    table = {"file": "data.csv", "x": ["age", "height"], "y": "price"}
    data, arrays = read_data(table, tmp_path)
    stored = {name: describe_sample(values) for name, values in arrays.items()}
    write_data(tmp_path, DATA.replace(",a\n", ",renamed\n").replace("2e-1", "0.2"))
    check_unchanged(stored, read_data(table, tmp_path)[1], data)
    write_data(tmp_path, DATA.replace("4.5", "4.6"))
    with pytest.raises(TableError, match="is no longer that which the store was made of") as error:
        check_unchanged(stored, read_data(table, tmp_path)[1], data)
    assert error.value.path == ("data", "y")
