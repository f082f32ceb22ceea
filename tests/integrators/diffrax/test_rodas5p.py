"""Rodas5P as a solver of diffrax: an equation that depends on time, in between steps too."""

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts

RATE = 20.0


def solve(ts, *, steps=None):
    """y' = -RATE (y - cos t) - sin t from y(0) = 1: the solution is cos t for every rate."""
    constant = diffrax.ConstantStepSize()
    adaptive = diffrax.PIDController(rtol=1e-9, atol=1e-11)
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: -RATE * (y - jnp.cos(t)) - jnp.sin(t)),
        tts.Rodas5P(),
        0.0,
        3.0,
        None if steps is None else 3.0 / steps,
        jnp.ones(1),
        saveat=diffrax.SaveAt(ts=jnp.asarray(ts)),
        stepsize_controller=adaptive if steps is None else constant,
        throw=False,
    )


def test_adaptive_steps_end_where_the_solution_does():
    solution = solve([3.0])
    assert bool(solution.result == diffrax.RESULTS.successful)
    np.testing.assert_allclose(solution.ys[0, 0], np.cos(3.0), rtol=0, atol=1e-8)


@pytest.mark.thorough
def test_values_between_steps_are_of_order_four():
    ts = np.linspace(0.05, 2.95, 50)
    errors = [
        np.max(np.abs(np.asarray(solve(ts, steps=steps).ys)[:, 0] - np.cos(ts)))
        for steps in (30, 60, 120)
    ]
    assert np.all(np.log2(np.divide(errors[:-1], errors[1:])) > 3.7)
