"""The root of a store: believed where it agrees with its checksum, and mended from its copy."""

import json
import re

import numpy as np
import pytest
import xarray as xr
from small_studies import drifts, same

import tts_jax as tts
from tts_jax.sweeps.storage.root import FILE, PARTIAL, check_names, read_root, write_root

COPY = ".zarr.json.copy"


def test_what_is_written_is_read(copied):
    root = read_root(copied)
    write_root(copied, root)
    assert read_root(copied) == root
    assert (copied / FILE).read_bytes() == (copied / COPY).read_bytes()
    assert root.attributes["study"]["grid"]["epsilon"] == [0.2, 0.1]
    assert root.arrays["u"]["shape"] == [2, 3, 2, 6]


def altered(text: str, number: int) -> str:
    """The text with another digit in place of one."""
    digits = [match.start() for match in re.finditer("[0-9]", text)]
    at = digits[number % len(digits)]
    return text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]


def test_a_digit_that_is_changed_anywhere_is_told_and_mended(copied, made):
    """Also one that relabels all runs, which readers would have to believe."""
    text, expected = (copied / FILE).read_text(), tts.open_sweep(made).load()
    relabelled = text.index('epsilon\\": [0.2')
    first = len(re.findall("[0-9]", text[:relabelled]))
    for number in (first, first + 1, 0, 99, 500, -1):
        (copied / FILE).write_text(altered(text, number))
        for ask in (tts.open_sweep, read_root):
            with pytest.raises(tts.SweepError, match=r"altered.*makes it whole again"):
                ask(copied)
    assert same(drifts(copied).load().drop_attrs(), expected.drop_attrs())
    assert same(tts.open_sweep(copied).load().drop_attrs(), expected.drop_attrs())
    assert read_root(copied).attributes["sessions"][-1]["runs"] == 0


@pytest.mark.parametrize("damage", ["cut off", "empty", "gone", "nonsense", "deep"])
@pytest.mark.parametrize("file", [FILE, COPY])
def test_a_root_that_cannot_be_read_strands_nothing(copied, made, damage, file):
    place = copied / file
    content = {"cut off": place.read_bytes()[:-20], "empty": b"", "deep": b"[" * 10**5}
    if damage == "gone":
        place.unlink()
    else:
        place.write_bytes(content.get(damage, b'{"attributes": {"study": 3}}'))
    if file == FILE:
        with pytest.raises(tts.SweepError, match="makes it whole again"):
            tts.open_sweep(copied)
    data = drifts(copied)
    assert read_root(copied).attributes["sessions"][-1]["runs"] == 0  # all were there
    assert same(data.load().drop_attrs(), tts.open_sweep(made).load().drop_attrs())
    assert (copied / FILE).read_bytes() == (copied / COPY).read_bytes()


def test_where_both_are_damaged_what_is_there_is_left_alone(copied):
    for file in (FILE, COPY):
        (copied / file).write_text(altered((copied / file).read_text(), 7))
    for ask in (tts.open_sweep, drifts):
        with pytest.raises(tts.SweepError, match=r"both zarr\.json and its copy"):
            ask(copied)
    assert (copied / "u" / "c" / "0").is_dir()


def test_a_store_of_another_version_is_told(copied):
    (copied / COPY).unlink()
    root = json.loads((copied / FILE).read_bytes())
    del root["attributes"]["checksum"]
    (copied / FILE).write_text(
        json.dumps(root | {"attributes": {**root["attributes"], "format": 1}})
    )
    for ask in (tts.open_sweep, drifts):
        with pytest.raises(tts.SweepError, match="another version of tts_jax, as format 1"):
            ask(copied)
    # As the message says.
    assert np.all(xr.open_zarr(copied, chunks=None).status == 0)


@pytest.mark.parametrize(
    "name",
    ["../victim", "/tmp/victim", "a/b", "..", ".", "", ".lock", "a\\b", "a\0b", "zarr.json", 3],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(tts.SweepError, match="can be no folder in it"):
        check_names(["u", name], tmp_path)


def test_names_of_trees_are_plain(tmp_path):
    check_names(["u['w']", "a[0].bias", "width", "größe", "c"], tmp_path)


def test_only_what_is_written_for_a_moment_counts_as_partial():
    number = "0123456789abcdef" * 2
    for name in ("zarr", "0", "17", "c"):
        assert PARTIAL.fullmatch(f"{name}.{number}.partial")
    for name in ("notes.partial", "zarr.partial", f"mine.{number}.partial", f"0.{number}.parts"):
        assert not PARTIAL.fullmatch(name)
