"""Exponential collocation against the Rosenbrock method, and its order."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from small_systems import any_system

from tts_jax.integrators import collocation
from tts_jax.integrators.collocation import CollocationSystem
from tts_jax.integrators.loop import run
from tts_jax.integrators.step_size import StepControl
from tts_jax.problems.quadratic_risks import SampleRisk

KEYS = jax.random.split(jax.random.key(0), 4)
X = jax.random.normal(KEYS[0], (30, 2))
Y = jnp.stack([jnp.tanh(X[:, 0] - 2 * X[:, 1]), 0.5 * X[:, 0] ** 2], axis=1)
A = 0.1 * jax.random.normal(KEYS[1], (5, 2))
U = {"w": jax.random.normal(KEYS[2], (4, 2)), "b": 0.3 * jax.random.normal(KEYS[3], (4,))}
FLAT, WHOLE = ravel_pytree((A, U))
SHARES = jnp.full(30, 1 / 30)
PENALTY = jnp.asarray(1e-3)


def features(u, x):
    sigma = jnp.tanh(x @ u["w"].T + u["b"][None])
    return jnp.concatenate([jnp.ones((x.shape[0], 1)), sigma], axis=1)


RISK = SampleRisk(features, X, Y, SHARES, PENALTY)


def plain_risk(flat):
    a, u = WHOLE(flat)
    error = features(u, X) @ a - Y
    return SHARES @ jnp.sum(error**2, axis=1) + PENALTY * jnp.sum(a**2)


def system_of(epsilon, rtol):
    return CollocationSystem(RISK, epsilon, None, rtol, 1e-2 * rtol)


def control_of(taus, rtol):
    return StepControl(taus[-1], rtol, 1e-2 * rtol, jnp.asarray(5000))


@eqx.filter_jit
def swept(epsilon, rtol, taus, a, u):
    system = system_of(epsilon, rtol)
    return run(system, system.begin(a, u), taus, control_of(taus, rtol))


@eqx.filter_jit
def reference(epsilon, taus, flat):
    """By Rodas5P, with the Hessian by automatic differentiation."""
    masses = jnp.where(jnp.arange(FLAT.size) < A.size, epsilon, 1.0)
    system = any_system(lambda y, _: -jax.grad(plain_risk)(y), masses=masses)
    return run(system, flat, taus, control_of(taus, jnp.asarray(1e-12)))[0].ys


@jax.jit
def network_of(ys):
    return jax.vmap(lambda a, u: features(u, X) @ a)(*ys)


def error_of(found, wanted):
    """The largest root mean square error of the network at all times."""
    apart = network_of(tuple(found)) - network_of(wanted)
    return float(jnp.max(jnp.sqrt(jnp.mean(jnp.sum(apart**2, axis=2), axis=1))))


def times(epsilon):
    """Eleven times, some of them inside the layer in which a relaxes first."""
    inside = epsilon * np.asarray([0.03, 0.2, 0.9, 3.0])
    return jnp.asarray([0.0, *inside, *np.linspace(4 * epsilon, 4 * epsilon + 1.0, 6)])


EPSILONS = [1.0, 1e-2, 1e-6]
RTOLS = np.asarray([1e-4, 1e-6, 1e-8, 1e-10])


@pytest.mark.thorough
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_errors_follow_the_tolerance_at_all_times_and_steps_their_order(epsilon):
    taus = times(epsilon)
    wanted = jax.vmap(WHOLE)(reference(jnp.asarray(epsilon), taus, FLAT))
    errors, steps, gradients = [], [], []
    for rtol in RTOLS:
        records, now = swept(jnp.asarray(epsilon), jnp.asarray(rtol), taus, A, U)
        assert now.t == taus[-1]
        errors.append(error_of(records.ys, wanted))
        steps.append(int(now.accepted))
        gradients.append(int(now.y.gradients))
        assert int(now.steps) - int(now.accepted) <= 2 + steps[-1] // 5
    assert np.all(errors < 20 * RTOLS)
    # As of a method of order 5, at least.
    assert np.polyfit(np.log(RTOLS), np.log(steps), 1)[0] > -0.2
    assert gradients[0] < 250
    assert gradients[1] < 350


@eqx.filter_jit
def with_steps(epsilon, count, state):
    """The end after so many equal steps to tau = 1/2."""
    system = system_of(epsilon, jnp.asarray(1e-14))
    h = 0.5 / count

    def body(_, state):
        return system.step(state, h).after

    return jax.lax.fori_loop(0, count.astype(int), body, state)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_order_does_not_depend_on_epsilon(epsilon):
    """Behind the layer, steps of half the size err by 1/32 and less."""
    epsilon = jnp.asarray(epsilon)
    records, _ = swept(epsilon, jnp.asarray(1e-12), jnp.asarray([0.3]), A, U)
    a, u = jax.tree.map(lambda leaf: leaf[0], tuple(records.ys))
    state = eqx.filter_jit(lambda: system_of(epsilon, jnp.asarray(1e-14)).begin(a, u))()
    ends = [with_steps(epsilon, jnp.asarray(float(count)), state) for count in (4, 8, 16, 64)]
    one = jax.tree.map(lambda leaf: leaf[None], [(end.a, end.u) for end in ends])
    errors = [error_of(end, one[-1]) for end in one[:-1]]
    assert errors[0] < 1e-3
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert np.all((orders > 4.5) | (np.asarray(errors[1:]) < 1e-12))


@pytest.mark.thorough
def test_accelerated_sweeps_take_long_steps(monkeypatch):
    """To tau = 60, where steps are as long as sweeps converge for."""
    taus, rtol = jnp.asarray([60.0]), jnp.asarray(1e-5)

    def gradients():
        system = system_of(jnp.asarray(1e-3), rtol)
        # A function of its own: one that was compiled would keep its sweeps.
        found, now = jax.jit(
            lambda: run(system, system.begin(A, U), taus, control_of(taus, rtol))
        )()
        return found, int(now.y.gradients)

    found, fast = gradients()
    monkeypatch.setattr(collocation, "accelerated", lambda history, _, image: (image, history))
    wanted, plain = gradients()
    assert error_of(found.ys, wanted.ys) < 20 * rtol
    assert fast < 0.7 * plain


def test_after_rejections_the_gradient_at_the_start_is_computed_anew():
    system = system_of(jnp.asarray(1e-2), jnp.asarray(1e-6))

    @jax.jit
    def first_slopes(rejections):
        state = system.begin(A, U)
        wrong = jax.tree.map(jnp.zeros_like, state.slopes)
        state = state._replace(slopes=wrong, rejections=rejections)
        step = system.step(state, jnp.asarray(1e-4))
        return system.field_at_start(step), step.after.gradients - state.gradients

    kept, count = first_slopes(jnp.asarray(1.0))
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(kept))
    assert count % 4 == 0
    anew, count = first_slopes(jnp.asarray(2.0))
    wanted = WHOLE(-jax.grad(plain_risk)(FLAT))[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), anew, wanted)
    assert count % 4 == 1


def test_a_step_ends_where_its_dense_output_does():
    system = system_of(jnp.asarray(1e-2), jnp.asarray(1e-6))

    @jax.jit
    def ends():
        state = system.begin(A, U)
        step = system.step(state, jnp.asarray(0.02))
        of = [system.interpolate(state, step, jnp.asarray(part)) for part in (0.0, 1.0)]
        return state, step.after, *of

    before, after, first, last = ends()
    for state, found in ((before, first), (after, last)):
        np.testing.assert_allclose(found.a, state.a, atol=1e-13)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), found.u, state.u)


def test_two_equal_neurons_stay_equal():
    u = jax.tree.map(lambda leaf: leaf.at[1].set(leaf[0]), U)
    a, taus = A.at[2].set(A[1]), times(1e-2)
    records, now = swept(jnp.asarray(1e-2), jnp.asarray(1e-8), taus, a, u)
    wanted = jax.vmap(WHOLE)(reference(jnp.asarray(1e-2), taus, ravel_pytree((a, u))[0]))
    assert now.t == taus[-1]
    assert error_of(records.ys, wanted) < 1e-6
    np.testing.assert_allclose(records.ys.a[:, 1], records.ys.a[:, 2], atol=1e-10)


def test_where_all_features_vanish_the_bias_relaxes_alone():
    u, taus = jax.tree.map(jnp.zeros_like, U), times(1e-2)
    records, now = swept(jnp.asarray(1e-2), jnp.asarray(1e-8), taus, jnp.zeros_like(A), u)
    assert now.t == taus[-1]
    rate, mean = 2 * (1 + PENALTY), jnp.mean(Y, axis=0)
    wanted = (1 - np.exp(-rate * taus / 1e-2))[:, None] * mean[None] / (1 + PENALTY)
    np.testing.assert_allclose(records.ys.a[:, 0], wanted, atol=1e-12)
    np.testing.assert_allclose(records.ys.a[:, 1:], 0.0, atol=1e-12)
