"""First passages of a pendulum without friction, whose times are known."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from small_systems import any_system

from tts_jax.integrators.passages import first_passages
from tts_jax.integrators.step_size import StepControl
from tts_jax.numerics.first_crossing import first_crossings

ROTATION = any_system(lambda y, _: jnp.stack([-y[1], y[0]]), masses=[1, 1])  # (cos t, sin t)
LEVELS = jnp.asarray([1.5, 0.5, -0.9, -1.5])


@eqx.filter_jit
def passages(horizon, max_steps):
    """When cos t falls to each level."""

    def values(y):
        return y[0] - LEVELS

    def find(y, step, pending):
        return first_crossings(lambda part: values(ROTATION.interpolate(y, step, part)), pending)

    control = StepControl(horizon, jnp.asarray(1e-9), jnp.asarray(1e-11), max_steps)
    start = jnp.asarray([1.0, 0.0])
    return first_passages(ROTATION, start, control, values(start) <= 0, find)


@pytest.mark.parametrize(
    ("horizon", "max_steps", "expected"),
    [
        (4.0, 1000, [0.0, np.arccos(0.5), np.arccos(-0.9), np.inf]),
        (2.0, 1000, [0.0, np.arccos(0.5), np.inf, np.inf]),
        (4.0, 3, [0.0, np.nan, np.nan, np.nan]),
    ],
    ids=["all", "a short horizon", "too few steps"],
)
def test_a_pendulum_passes_levels_on_time(horizon, max_steps, expected):
    times = passages(jnp.asarray(horizon), jnp.asarray(max_steps))
    np.testing.assert_allclose(times, expected, atol=1e-7)
