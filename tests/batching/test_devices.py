"""Which device the code is traced for."""

import jax
import pytest

from tts_jax.batching import devices


def test_it_is_the_default_backend():
    assert devices.platform() == jax.default_backend()
    assert devices.on_cpu() is (jax.default_backend() == "cpu")


@pytest.mark.parametrize("named", [jax.local_devices(backend="cpu")[0], "cpu"])
def test_a_device_or_a_platform_that_is_named_as_default_counts(named):
    with jax.default_device(named):
        assert devices.platform() == "cpu"


def test_off_the_cpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert devices.platform() == "gpu"
    assert not devices.on_cpu()
