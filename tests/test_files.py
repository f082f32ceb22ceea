"""Paths as users give them, files that appear whole, and locks that say whose they are."""

import json
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pytest

from tts_jax._files import HeldError, as_path, held, scratch_prefix, whole

LONGEST = 255
"""Bytes that a name has at most, in the file systems that people use."""


def test_the_home_is_known(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert as_path("out", "~/x.nc") == Path("/somewhere/x.nc")
    assert as_path("out", Path("~")) == Path("/somewhere")
    assert as_path("out", "a~b") == Path("a~b")


@pytest.mark.parametrize(
    "given",
    ["s3://bucket/x", Path("s3://bucket/x"), "gs://b", "https://host/x", "file:///x", "memory://x"],
    ids=str,
)
def test_an_address_is_no_path(given):
    with pytest.raises(ValueError, match="is an address"):
        as_path("out", given)


@pytest.mark.parametrize("given", ["", "a\0b", b"bytes", 3, None, "~nobody-of-this-name/x"])
def test_what_is_no_path_is_refused(given):
    with pytest.raises(ValueError, match="Argument `out` must be"):
        as_path("out", given)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    file = tmp_path / ("n" * LONGEST)
    file.write_text("old")
    with pytest.raises(KeyError), whole(file) as half:
        raise KeyError(half.write_text("hal"))
    assert file.read_text() == "old"
    with whole(file, ".txt") as half:
        assert half.suffix == ".txt"
        half.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_link_points_to_is_replaced(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with whole(tmp_path / "link") as half:
        half.write_text("new")
    assert (tmp_path / "target").read_text() == "new"
    assert (tmp_path / "link").is_symlink()


def test_names_of_what_is_beside_are_short_and_differ():
    first, second = (scratch_prefix(Path(name)) for name in ("x" * LONGEST, "y"))
    assert len(first) == len(second) < 30
    assert first != second


def hold(lock: Path) -> None:
    with held(lock):
        time.sleep(60)


def test_a_lock_says_whose_it_is_and_is_let_go_of_by_a_kill(tmp_path):
    lock = tmp_path / "lock"
    process = multiprocessing.get_context("forkserver").Process(target=hold, args=(lock,))
    process.start()
    while not lock.with_name("lock.holder").exists():
        time.sleep(0.01)
        assert process.is_alive()
    with pytest.raises(HeldError, match=f"^process {process.pid} of this machine, since 2"):
        held(lock).__enter__()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with held(lock):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_machine_tells_how_to_remove_it(tmp_path):
    lock, holder = tmp_path / "lock", tmp_path / "lock.holder"
    with held(lock):
        told = json.loads(holder.read_bytes())
        holder.write_text(json.dumps(told | {"host": "node7", "process": 41}))
        with pytest.raises(HeldError, match=r"^process 41 of the machine node7, since ") as caught:
            held(lock).__enter__()
        advice = re.search("if it is gone, remove (.*)$", str(caught.value))
        Path(advice[1]).unlink()
        with held(lock):  # as it was told
            pass


@pytest.mark.parametrize("content", ["", "[]", "{}", "no json"])
def test_a_lock_of_who_did_not_say_is_held_all_the_same(tmp_path, content):
    lock = tmp_path / "lock"
    with held(lock):
        lock.with_name("lock.holder").write_text(content)
        with pytest.raises(HeldError, match=f"if there is none, remove {lock}"):
            held(lock).__enter__()


def test_a_lock_that_is_kept_stays(tmp_path):
    with held(tmp_path / ".lock", keep=True):
        pass
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]
