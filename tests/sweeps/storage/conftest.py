"""A finished store, of which each test has a copy."""

import shutil

import pytest
from small_studies import drifts


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "s.zarr"
    drifts(folder)
    return folder


@pytest.fixture
def copied(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copied.zarr")


@pytest.fixture
def victim(tmp_path):
    """A folder of somebody else's, in which nothing is to change."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "file").write_text("mine")
    yield folder
    assert {file.name: file.read_text() for file in folder.iterdir()} == {"file": "mine"}
