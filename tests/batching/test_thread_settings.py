"""A thread sees what holds where it was started."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.batching.thread_settings import _SETTINGS, in_this_context

OTHERS = {
    "enable_x64": False,
    "default_device": "cpu",
    "default_matmul_precision": "float32",
    "numpy_dtype_promotion": "standard",
    "numpy_rank_promotion": "warn",
    "default_prng_impl": "rbg",
    "legacy_prng_key": "error",
    **{f"transfer_guard_{way}": "log" for way in ("host_to_device", "device_to_host")},
    "transfer_guard_device_to_device": "log",
}


def in_thread(function, *arguments):
    found = []
    thread = threading.Thread(target=lambda: found.append(function(*arguments)))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("name", _SETTINGS)
def test_a_thread_has_every_setting_of_where_it_was_started(name):
    def setting():
        return getattr(jax.config, f"jax_{name}")

    before = setting()
    other = OTHERS.get(name, not before)
    assert other != before
    with getattr(jax, name)(other):
        assert in_thread(setting) == before
        inside = in_this_context(setting)
    # It is where the function was made that counts, and nothing stays behind.
    assert in_thread(inside) == other
    assert in_thread(lambda: (inside(), setting())) == (other, before)


def test_every_setting_of_jax_that_holds_in_one_thread_is_known():
    """But for those that are about threads, or change no number: a new one shows here."""
    kind = type(jax.enable_x64)
    names = {name for name in dir(jax) if type(getattr(jax, name)) is kind}
    left = {"thread_guard", "enable_checks", "array_garbage_collection_guard", "auto_pcast"}
    left |= {"no_execution", "no_tracing", "jax2tf_associative_scan_reductions"}
    left |= {"remove_size_one_mesh_axis_from_type"}
    assert names - left <= set(_SETTINGS)


def test_numpy_too():
    with np.errstate(divide="raise"):
        divide = in_this_context(lambda: np.float64(1.0) / np.float64(0.0))
    with pytest.raises(FloatingPointError):
        divide()


def test_runs_in_threads_see_the_settings_of_the_caller():
    def run(x):
        return 2 * x + jnp.zeros(())

    with jax.enable_x64(False):
        assert tts.map_runs(run)(np.arange(3.0)).dtype == np.float32
    jax.config.update("jax_enable_x64", False)
    try:
        with jax.enable_x64(True):
            assert tts.map_runs(run)(np.arange(3.0)).dtype == np.float64
    finally:
        jax.config.update("jax_enable_x64", True)
