"""Solvers of diffrax in the loop of the package, against an equation whose solution is known."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.integrators import loop
from tts_jax.integrators.diffrax.chord import stiff_solver
from tts_jax.integrators.diffrax.system import DiffraxSystem
from tts_jax.integrators.step_size import StepControl

TAUS = jnp.asarray([0.0, 0.3, 1.1, 2.0])


def velocity(y):
    """Of y = tan t, and of z = 1/(1 + t)."""
    return {"y": 1.0 + y["y"] ** 2, "z": -(y["z"] ** 2)}


@eqx.filter_jit
def run(solver, rtol):
    system = DiffraxSystem(solver, velocity, rtol, rtol)
    start = system.begin({"y": jnp.asarray(-2.0), "z": jnp.ones(2)})
    control = StepControl(TAUS[-1], rtol, rtol, jnp.asarray(10_000))
    return loop.run(system, start, TAUS, control)


@pytest.mark.parametrize("solver", [diffrax.Tsit5(), stiff_solver()], ids=["Tsit5", "Kvaerno5"])
def test_states_at_recorded_times_are_the_solution(solver):
    records, now = run(solver, jnp.asarray(1e-8))
    taus = np.asarray(TAUS)
    np.testing.assert_allclose(records.ys["y"], np.tan(taus - np.arctan(2.0)), atol=1e-6)
    np.testing.assert_allclose(records.ys["z"][:, 0], 1 / (1 + taus), atol=1e-6)
    assert int(now.steps) < 300


def test_a_solver_that_does_not_know_its_error_is_refused():
    with pytest.raises(ValueError, match=r"`solver` must be one that estimates .* but is Euler"):
        run(diffrax.Euler(), jnp.asarray(1e-8))
