"""Files of numbers: read as they are, and refused by the name of what is wrong."""

import io
import sys
import zipfile

import numpy as np
import pytest

from tts_jax.sweeps.study import formats
from tts_jax.sweeps.study.formats import FormatError, read_columns

X, Y = np.arange(10.0).reshape(5, 2), np.arange(5)


def npz(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def member(header: dict, numbers: bytes = b"") -> bytes:
    """An archive with one array `x`, which says of itself what a header says."""
    array, file = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(array, header)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", array.getvalue() + numbers)
    return file.getvalue()


def test_arrays_of_numbers_are_read(tmp_path):
    file = tmp_path / "a.npz"
    file.write_bytes(npz(x=X, y=Y, other=np.array([object()])))
    found = read_columns(file, ["x", "y"])
    assert np.array_equal(found["x"], X)
    assert np.array_equal(found["y"], Y)
    np.savez_compressed(file, x=np.asfortranarray(X).astype(np.float32))
    assert np.array_equal(read_columns(file, ["x"])["x"], X)


def test_columns_of_numbers_are_read(tmp_path):
    file = tmp_path / "a.CSV"
    file.write_bytes(b'\xef\xbb\xbfa, b,"the c"\r\n1, 2.5,x\r\n-1e-3,3,"y, z"\r\n\r\n')
    found = read_columns(file, ["b", "a"])
    assert found["a"].tolist() == [1.0, -1e-3]
    assert found["b"].tolist() == [2.5, 3.0]


def test_columns_of_a_parquet_file_are_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    file = tmp_path / "a.parquet"
    table = {"a": [1.0, 2.0], "b": [3, 4], "when": ["now", "then"], "on": [True, False]}
    table |= {"gap": [1.0, None], "dates": pandas.to_datetime(["2026-01-01"] * 2)}
    # What is an index to pandas is a column of the file.
    pandas.DataFrame(table).set_index("a").to_parquet(file)
    found = read_columns(file, ["a", "b"])
    assert found["a"].tolist() == [1.0, 2.0]
    assert found["b"].tolist() == [3, 4]
    for name in ("when", "on", "dates", "gap"):
        with pytest.raises(FormatError, match=f"`{name}`") as error:
            read_columns(file, [name])
        assert error.value.name == name
    with pytest.raises(FormatError, match="has no `c`; it has"):
        read_columns(file, ["c"])
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(FormatError, match="cannot be read"):
        read_columns(file, ["a"])


def test_without_pyarrow_its_extra_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FormatError, match=r"pip install 'tts-jax\[data\]'"):
        read_columns(tmp_path / "a.parquet", ["a"])


class Attack:
    """What would run if a pickle were read."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (npz(y=Y), "has no `x`; it has `y`"),
        (npz(), "has no `x`; it has nothing"),
        (npz(x=np.array([Attack()])), "has objects of Python in `x`"),
        (npz(x=np.array(["a"])), "has values of dtype <U1 in `x`"),
        (npz(x=X > 1), "has values of dtype bool in `x`"),
        (npz(x=X * 1j), "has values of dtype complex128 in `x`"),
        (npz(x=Y.astype("M8[s]")), "has values of dtype datetime64"),
        (npz(x=np.zeros(3, [("a", float)])), "which must be numbers"),
        (b"", "cannot be read"),
        (npz(x=X)[:150], "cannot be read"),
        (npz(x=X).replace(X.tobytes(), X[::-1].tobytes()), "cannot be read: Bad CRC-32"),
        (member({"descr": "<f8", "fortran_order": False, "shape": (10**12,)}), "with a shape"),
        (member({"descr": "<f8", "fortran_order": False, "shape": (-1, -1)}, b"8 bytes."), "shape"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(tmp_path, content, complaint):
    file = tmp_path / "a.npz"
    file.write_bytes(content)
    with pytest.raises(FormatError, match=complaint):
        read_columns(file, ["x"])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "has no `a`; it has nothing"),
        ("b;a\n1;2\n", "has no `a`; it has `b;a`"),
        ("a,a\n1,2\n", "has `a` 2 times"),
        ("a,b\n1,2\n,3\n", "has '' in line 3 of `a`"),
        ("a,b\n1,2\nnan,3\n", "has 'nan' in line 3 of `a`"),
        ("a,b\n-inf,2\n", "has '-inf' in line 2 of `a`"),
        ("a,b\n1e999,2\n", "has '1e999' in line 2 of `a`"),
        ("a,b\n1_0,2\n", "has '1_0' in line 2 of `a`"),
        ("a,b\nNA,2\n", "has 'NA' in line 2 of `a`"),
        ("a,b\n1,2\n1\n", "has 1 cells in line 3, and must have 2 cells"),
        ("a\n1\n\n2\n", "has an empty line, 3, before its end"),
        ('a,b\n1,"2\n', "cannot be read: unexpected end of data"),
        ("a,b\n1," + "2" * 200_000, "cannot be read: field larger than"),
        (b"\xff\xfea,b", "cannot be read: 'utf-8' codec"),
    ],
)
def test_what_is_no_column_of_numbers_is_refused(tmp_path, content, complaint):
    file = tmp_path / "a.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FormatError, match=complaint):
        read_columns(file, ["a"])


def test_more_than_memory_holds_is_refused_before_it_is_read(tmp_path, monkeypatch):
    def none_left(name, count, *, at_once=1):
        raise ValueError(f"no room for {count} numbers")

    monkeypatch.setattr(formats, "check_memory", none_left)
    monkeypatch.setattr(formats, "_OFTEN", 2)
    (tmp_path / "a.npz").write_bytes(npz(a=X))
    (tmp_path / "a.csv").write_text("a\n1\n2\n")
    for file, count in (("a.npz", 10), ("a.csv", 2)):
        with pytest.raises(FormatError, match=f"no room for {count} numbers"):
            read_columns(tmp_path / file, ["a"])


def test_another_format_is_told_those_that_are_known(tmp_path):
    with pytest.raises(FormatError, match=r"must end in \.npz, \.csv, \.parquet"):
        read_columns(tmp_path / "a.xlsx", ["a"])
