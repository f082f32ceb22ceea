"""The adaptive loop: what it records, when it stops, and how well it keeps its tolerance."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from small_systems import any_system

from tts_jax.integrators import loop
from tts_jax.integrators.loop import is_running
from tts_jax.integrators.step_size import StepControl

HORIZON = 3.0
TAUS = np.asarray([0.0, 1e-9, 0.4, 0.41, 0.42, 1.234, 2.9, HORIZON])

run, begin, try_step = map(eqx.filter_jit, (loop.run, loop.initial_state, loop.try_step))


def control(rtol=1e-8, *, horizon=HORIZON, max_steps=10_000):
    numbers = (jnp.asarray(float(v)) for v in (horizon, rtol, 1e-2 * rtol))
    return StepControl(*numbers, jnp.asarray(max_steps))


def integrate(system, start, taus=TAUS, **asked):
    taus = jnp.asarray(taus, float)
    records, now = run(system, jnp.asarray(start, float), taus, control(**asked))
    return np.asarray(records.ys), now


def winding(y, number):
    """A nonlinear rotation: y = e^(sin t) (cos t, sin t), with t as the third unknown."""
    x, z, t = y[0], y[1], y[2]
    rate = jnp.cos(t) * (x**2 + z**2) / jnp.exp(2 * jnp.sin(t))
    return jnp.stack([rate * x - z, rate * z + x, jnp.ones_like(t)])


def winding_at(t):
    t = np.asarray(t)
    return np.stack([np.exp(np.sin(t)) * np.cos(t), np.exp(np.sin(t)) * np.sin(t), t], axis=-1)


SMOOTH = any_system(winding, masses=[1, 1, 1])
START = winding_at(0.0)


def van_der_pol(y, stiffness):
    return [y[1], stiffness * (1 - y[0] ** 2) * y[1] - y[0]]


def robertson(y, fast):
    slow, turnover = 0.04 * y[0] - 1e4 * y[1] * y[2], fast * y[1] ** 2
    return [-slow, slow - turnover, turnover]


# What it records.


def test_records_are_the_solution_wherever_they_stand_between_steps():
    ys, now = integrate(SMOOTH, START)
    np.testing.assert_allclose(ys, winding_at(TAUS), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(ys[0], START)
    np.testing.assert_array_equal(ys[-1], now.y)
    assert float(now.t) == HORIZON
    assert int(now.accepted) > TAUS.size


def test_the_last_state_does_not_depend_on_the_recorded_times():
    ys, now = integrate(SMOOTH, START)
    for taus in ([HORIZON], np.linspace(0.0, HORIZON, 41)):
        others, other = integrate(SMOOTH, START, taus)
        np.testing.assert_array_equal(others[-1], ys[-1])
        assert (int(other.steps), int(other.accepted)) == (int(now.steps), int(now.accepted))


def test_a_record_does_not_depend_on_the_others():
    ys, _ = integrate(SMOOTH, START)
    others, _ = integrate(SMOOTH, START, [0.1, 0.2, 0.3, 0.41, 0.42, 0.43, 2.9, 2.95])
    np.testing.assert_array_equal(others[[3, 4, 6]], ys[[3, 4, 6]])


def test_only_time_zero_takes_no_step():
    ys, now = integrate(SMOOTH, START, [0.0], horizon=0.0)
    np.testing.assert_array_equal(ys, [START])
    assert int(now.steps) == 0


def test_many_records_may_fall_into_one_step():
    taus = np.linspace(0.0, 1e-3, 41)
    ys, now = integrate(SMOOTH, START, taus, horizon=1e-3)
    assert int(now.accepted) < 10
    np.testing.assert_allclose(ys, winding_at(taus), rtol=0, atol=1e-8)


# When it stops.


def test_after_the_step_limit_the_records_are_nan_and_those_before_stay():
    whole, _ = integrate(SMOOTH, START)
    ys, now = integrate(SMOOTH, START, max_steps=60)
    assert int(now.steps) == 60
    reached = float(now.t) >= TAUS
    assert 3 < np.sum(reached) < TAUS.size
    np.testing.assert_array_equal(ys[reached], whole[reached])
    assert np.all(np.isnan(ys[~reached]))


def test_it_goes_on_until_the_horizon_the_step_limit_or_the_end_of_the_clock():
    asked = control(max_steps=5)
    now = begin(SMOOTH, jnp.asarray(START), asked)
    assert is_running(now, asked)
    assert is_running(now._replace(t=asked.horizon * (1 - 1e-15)), asked)
    assert not is_running(now._replace(t=asked.horizon), asked)
    assert is_running(now._replace(steps=jnp.asarray(4)), asked)
    assert not is_running(now._replace(steps=jnp.asarray(5)), asked)
    for h in (1e-16 * HORIZON, 0.0, np.nan):
        assert not is_running(now._replace(h=jnp.asarray(h)), asked)


def test_a_rejected_step_moves_nothing_but_the_step_size_and_the_count():
    now = begin(SMOOTH, jnp.asarray(START), control())._replace(h=jnp.asarray(2.0))
    good, h, _, after = try_step(SMOOTH, now, control())
    assert not good
    assert float(after.h) < float(h) == 2.0
    assert (int(after.steps), int(after.accepted)) == (1, 0)
    for before, same in ((now.t, after.t), (now.y, after.y), (now.error, after.error)):
        np.testing.assert_array_equal(before, same)


def test_it_stops_where_the_force_is_no_longer_a_number():
    """It comes as near as the clock resolves, and does not run into the step limit."""
    system = any_system(lambda y, _: jnp.where(y < 1.0, jnp.ones(1), jnp.nan), masses=[1])
    ys, now = integrate(system, [0.0], [0.0, 0.5, 0.9, 1.1, HORIZON])
    np.testing.assert_allclose(ys[:3, 0], [0.0, 0.5, 0.9], rtol=1e-12)
    assert np.all(np.isnan(ys[3:]))
    assert float(now.t) == pytest.approx(1.0, abs=1e-9)
    assert np.all(np.isfinite(now.y))
    assert int(now.steps) < 200


def test_a_start_without_a_force_stays_there():
    system = any_system(lambda y, _: jnp.nan * y, masses=[1])
    ys, now = integrate(system, [1.0], [0.0, 1.0, HORIZON])
    np.testing.assert_array_equal(ys, [[1.0], [np.nan], [np.nan]])
    assert float(now.t) == 0.0
    assert int(now.steps) < 200


def test_a_state_at_rest_takes_few_steps():
    ys, now = integrate(any_system(lambda y, _: 0.0 * y, masses=[1]), [2.0])
    np.testing.assert_array_equal(ys, 2.0)
    assert int(now.steps) < 30


# How well it keeps its tolerance.


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("function", "number", "start", "last"),
    [
        (van_der_pol, 10.0, [2.0, 0.0], 30.0),
        (van_der_pol, 1e3, [2.0, 0.0], 1000.0),
        (robertson, 3e7, [1.0, 0.0, 0.0], 40.0),
    ],
    ids=["a limit cycle", "a stiff limit cycle", "reaction rates"],
)
def test_it_agrees_with_scipy_radau(function, number, start, last):
    taus = last * np.asarray([0.0, 1e-3, 0.02, 0.21, 0.47, 0.73, 0.99, 1.0])
    system = any_system(lambda y, n: jnp.stack(function(y, n)), number, masses=np.ones(len(start)))
    ys, now = integrate(system, start, taus, horizon=last)
    expected = solve_ivp(
        lambda t, y: function(y, number), (0.0, last), start, "Radau", taus, rtol=1e-11, atol=1e-13
    )
    scale = np.max(np.abs(expected.y), axis=1)
    np.testing.assert_allclose(ys / scale, expected.y.T / scale, rtol=0, atol=2e-6)
    assert int(now.steps) < 2000


def test_it_follows_an_algebraic_equation():
    """x' = -z with z^3 + z = 2 x, against the equation solved for z at every x."""
    system = any_system(lambda y, _: jnp.stack([-y[1], y[1] ** 3 + y[1] - 2 * y[0]]), masses=[1, 0])
    ys, _ = integrate(system, [1.0, 1.0])
    # 2 x' = (3 z^2 + 1) z', so that t = the integral of (3 z + 1 / z) / 2 from z to 1.
    z = ys[:, 1]
    np.testing.assert_allclose(3 * (1 - z**2) / 4 - np.log(z) / 2, TAUS, rtol=0, atol=1e-6)
    np.testing.assert_allclose(z**3 + z, 2 * ys[:, 0], rtol=0, atol=1e-7)


RTOLS = np.asarray([1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9])


def test_the_error_follows_the_tolerance_and_the_steps_their_order():
    errors, steps = [], []
    for rtol in RTOLS:
        ys, now = integrate(SMOOTH, START, [HORIZON], rtol=rtol)
        errors.append(np.max(np.abs(ys[-1] - winding_at(HORIZON))))
        steps.append(int(now.accepted))
        assert int(now.steps) - int(now.accepted) <= 2 + steps[-1] // 5
    assert np.all(errors < 30 * RTOLS)
    assert 0.8 < np.polyfit(np.log(RTOLS), np.log(errors), 1)[0] < 1.3
    assert np.polyfit(np.log(RTOLS), np.log(steps), 1)[0] == pytest.approx(-1 / 5, abs=0.03)


def test_records_between_steps_follow_the_tolerance_too():
    taus = np.linspace(0.0, HORIZON, 41)
    errors = [
        np.max(np.abs(integrate(SMOOTH, START, taus, rtol=rtol)[0] - winding_at(taus)))
        for rtol in RTOLS
    ]
    assert 0.75 < np.polyfit(np.log(RTOLS), np.log(errors), 1)[0] < 1.3


@pytest.mark.parametrize("speed", [1e-6, 1.0, 1e6])
def test_the_clock_has_no_unit(speed):
    """The same path at another speed takes the same steps, once the first one is found."""
    system = any_system(lambda y, s: s * winding(y, 0.0), speed, masses=[1, 1, 1])
    ys, now = integrate(system, START, TAUS / speed, horizon=HORIZON / speed)
    same, other = integrate(SMOOTH, START)
    np.testing.assert_allclose(ys, same, rtol=0, atol=1e-8)
    assert abs(int(now.steps) - int(other.steps)) < 15


@pytest.mark.parametrize("edge", [1.0, 2.0], ids=["at the start", "ahead"])
def test_a_run_is_lost_where_it_has_no_force_and_not_in_front_of_that(edge):
    def up_to(y, number):
        return jnp.where(y < edge, 1.0, jnp.nan)

    _, now = integrate(any_system(up_to, masses=[1]), [1.0])
    assert now.t < HORIZON
    assert now.lost == (edge == 1.0)
    assert (now.steps == 0) == (edge == 1.0)
    np.testing.assert_allclose(now.y, edge, rtol=1e-6)


def test_a_velocity_that_is_no_number_a_little_ahead_is_none_of_the_start():
    def here(y, number):
        return jnp.where(y <= 1.0, 1.0, jnp.nan)

    ys, now = integrate(any_system(here, masses=[1]), [1.0], taus=[0.0], horizon=0.0)
    np.testing.assert_array_equal(ys, [[1.0]])
    assert not now.lost
