"""A finished sweep, which several files look at and none changes."""

import pytest
from small_studies import written

from tts_jax import cli


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    assert cli.main(["sweep", str(written(folder)), "--out", str(folder / "s.zarr")]) == 0
    return folder / "s.zarr"
