"""Derivatives of a run: reverse mode, which goes back by checkpoints, against forward mode."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from small_systems import any_system

from tts_jax.integrators import checkpointing as derivatives
from tts_jax.integrators.checkpointing import differentiable_run
from tts_jax.integrators.step_size import StepControl

PARTS = np.asarray([0.0, 0.3, 0.30001, 0.7, 1.0])
WEIGHTS = np.random.default_rng(0).normal(size=(PARTS.size, 2))
START = np.asarray([1.0, 0.5])
MAX_STEPS = 4096


@pytest.fixture(autouse=True, scope="module")
def few_checkpoints():
    """So that runs of some thousand steps are long ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derivatives, "_CHECKPOINTS", 512)
        yield


def van_der_pol(y, stiffness):
    return jnp.stack([y[1], stiffness * (1 - y[0] ** 2) * y[1] - y[0]])


def spring(y, stiffness):
    return jnp.stack([y[1], -stiffness * y[0]])


def outcome(function, horizon):
    """Of the stiffness and the start: a sum over all records that are reached, and the end."""

    def of(stiffness, start):
        system = any_system(function, masses=[1, 1])
        system = eqx.tree_at(lambda s: s.number, system, stiffness)
        tolerance = jnp.asarray(1e-8)
        control = StepControl(horizon, tolerance, tolerance, jnp.asarray(MAX_STEPS))
        ys, now = differentiable_run(system, start, horizon * PARTS, control, MAX_STEPS)
        return jnp.sum(jnp.where(jnp.isnan(ys), 0.0, ys) * WEIGHTS), now

    return of


@eqx.filter_jit
def slopes(function, horizon, stiffness):
    at = (stiffness, jnp.asarray(START))
    of = outcome(function, horizon)
    reverse, now = jax.grad(of, (0, 1), has_aux=True)(*at)
    forward = jax.jacfwd(lambda *both: of(*both)[0], (0, 1))(*at)
    return jnp.hstack(reverse), jnp.hstack(forward), now


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("horizon", "fewest", "most"),
    [(0.5, 10, 100), (25.0, 300, 512), (40.0, 513, 1024), (60.0, 1025, 2048), (200.0, 2049, 4095)],
    ids=["few steps", "no checkpoint dropped", "dropped once", "twice", "three times"],
)
def test_reverse_mode_is_forward_mode_however_many_steps_there_are(horizon, fewest, most):
    reverse, forward, now = slopes(van_der_pol, jnp.asarray(horizon), jnp.asarray(30.0))
    assert fewest <= int(now.accepted) <= most
    np.testing.assert_allclose(reverse, forward, rtol=0, atol=1e-10 * np.max(np.abs(forward)))
    # The longer runs have rejected steps among the others.
    assert horizon < 60.0 or now.steps > now.accepted


def test_a_run_out_of_steps_has_the_derivative_of_what_it_reached():
    reverse, forward, now = slopes(van_der_pol, jnp.asarray(300.0), jnp.asarray(30.0))
    assert 210.0 < float(now.t) < 300.0
    assert np.all(np.isfinite(reverse))
    np.testing.assert_allclose(reverse, forward, rtol=0, atol=1e-10 * np.max(np.abs(forward)))


@pytest.mark.thorough
def test_numbers_that_are_not_asked_for_are_left_alone(monkeypatch):
    seen = []
    pull_back = derivatives._pull_back

    def watched(whole, inputs, *rest):
        seen.append(len(jax.tree.leaves(inputs)))
        return pull_back(whole, inputs, *rest)

    monkeypatch.setattr(derivatives, "_pull_back", watched)
    of, at = outcome(van_der_pol, jnp.asarray(0.5)), (jnp.asarray(30.0), jnp.asarray(START))
    both, _ = jax.grad(of, (0, 1), has_aux=True)(*at)
    for place in (0, 1):
        alone, _ = jax.grad(of, place, has_aux=True)(*at)
        np.testing.assert_allclose(alone, both[place], rtol=1e-12)
    assert seen == [2, 2, 1]


@pytest.mark.thorough
def test_both_are_the_derivative_of_the_solution():
    """Of a matrix exponential, by complex steps."""

    def exact(stiffness, start):
        matrix = np.asarray([[0.0, 1.0], [-stiffness, 0.0]])
        return np.sum([expm(2.0 * part * matrix) @ start for part in PARTS] * WEIGHTS)

    at = np.asarray([3.0, *START])
    expected = [exact(at[0] + s[0], at[1:] + s[1:]).imag / 1e-30 for s in 1e-30j * np.eye(3)]
    reverse, forward, _ = slopes(spring, jnp.asarray(2.0), jnp.asarray(3.0))
    np.testing.assert_allclose(reverse, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(forward, expected, rtol=0, atol=1e-6)
