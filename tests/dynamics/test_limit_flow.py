"""The closed form of the limit flow, against time steps, quadrature and its symmetries."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

import tts_jax as tts

JUMPS = (0.25, 0.625)
TAUS = np.asarray([0.0, 1e-3, 5e-3, 2e-2, 5e-2, 0.1, 0.5, 5.0])
FEW = settings(max_examples=25, deadline=None, derandomize=True)


GENERIC = [0.1, 0.2, 0.35, 0.4, 0.7, 0.9, 0.05, 0.95]


def piecewise(jumps=JUMPS, values=(0.0, 1.0, -0.5)):
    return tts.PiecewiseConstant(jnp.asarray(jumps, float), jnp.asarray(values, float))


def run(u, target=None, *, taus=TAUS, activation=None):
    target = piecewise() if target is None else target
    network = tts.ShallowNetwork(tts.CubicStep(1e-3) if activation is None else activation)
    u = jnp.asarray(u, float)
    return tts.simulate(
        tts.Problem(network, target),
        tts.LimitFlow(),
        tts.Params(jnp.zeros(u.size + 1), u),
        jnp.asarray(taus, float),
    )


@jax.jit
def hits_by_numbers(u, jumps, values):
    return tts.hit_times(u, piecewise(jumps, values))


@jax.jit
def record_by_numbers(u, jumps, values):
    """After the start, before and after the first arrival, and after the last."""
    trajectory = run(u, piecewise(jumps, values), taus=jnp.asarray([1e-3, 0.03, 0.12, 0.5]))
    return jnp.concatenate([trajectory.params.u, trajectory.params.a, trajectory.risk[:, None]], 1)


SLOPES = {
    function: jax.jit(jax.jacrev(function, (0, 1, 2)))
    for function in (hits_by_numbers, record_by_numbers)
}


def hit_times(u, target=None):
    target = piecewise() if target is None else target
    return np.asarray(hits_by_numbers(jnp.asarray(u, float), target.jumps, target.values))


def distances(u, jumps=JUMPS):
    """To the neurons beside each jump, none of them on it."""
    u, jumps = np.sort(u), np.asarray(jumps)
    right = np.searchsorted(u, jumps)
    return jumps - u[right - 1], u[right] - jumps


fraction = st.floats(0.02, 0.98)


@st.composite
def starts(draw, grid=None):
    """Two neurons in each piece and two more anywhere; on a `grid` also on the jumps."""
    edges = (0.0, *JUMPS, 1.0)
    u = []
    for low, high in (*itertools.pairwise(edges),) * 2 + ((0.0, 1.0),) * 2:
        if grid is None:
            u.append(low + (high - low) * draw(fraction))
        else:
            u.append(draw(st.integers(int(low * grid), int(high * grid))) / grid)
    if grid is None:  # of neurons that coincide, any one may be the one that moves
        assume(len({*u, *JUMPS}) == len(u) + len(JUMPS))
    order = draw(st.permutations(range(len(u))))
    return np.asarray(u)[list(order)]


height = st.floats(0.3, 3.0).flatmap(lambda size: st.sampled_from([size, -size]))


def integrated(d_left, d_right, w):
    """One jump by time steps, until the first neuron arrives; (hit time, distances at a time)."""

    def velocity(tau, d):
        total = d[0] + d[1]
        return [-((w * d[1] / total) ** 2), -((w * d[0] / total) ** 2)]

    def arrives(tau, d):
        return min(d)

    arrives.terminal = True
    solution = solve_ivp(
        velocity,
        (0.0, 5.0 / w**2),
        [d_left, d_right],
        method="DOP853",
        rtol=1e-12,
        atol=1e-14,
        events=arrives,
        dense_output=True,
    )
    hit = solution.t_events[0][0]
    return hit, lambda tau: solution.sol(min(tau, hit))


@pytest.mark.parametrize(
    ("jump", "hit"),
    [*enumerate([0.0015728408, 0.0025392015, 0.0087402418, 0.0281434829, 0.0031769513])],
)
def test_hit_times_of_the_paper(start, target, jump, hit):
    np.testing.assert_allclose(tts.hit_times(start.u, target)[jump], hit, rtol=0, atol=5.1e-11)


def test_risk_of_the_paper_at_the_start(problem, start):
    trajectory = tts.simulate(problem, tts.LimitFlow(), start, jnp.asarray([0.0]))
    np.testing.assert_allclose(trajectory.risk, [0.8990199279], rtol=0, atol=5.1e-11)


@FEW
@given(starts(), height, height)
def test_positions_and_hit_times_are_those_of_time_steps(u, first, second):
    # At equal distances the arrival has an infinite derivative, which makes the time steps
    # themselves inexact; that case has a closed form and a test of its own.
    assume(all(abs(p - q) > 1e-5 * (p + q) for p, q, *_ in zip(*distances(u), strict=True)))
    target = piecewise(values=(0.0, first, first + second))
    trajectory, hits = run(u, target), hit_times(u, target)
    ordered = np.sort(u)
    for k, (d_left, d_right, w) in enumerate(zip(*distances(u), (first, second), strict=True)):
        hit, at = integrated(d_left, d_right, w)
        np.testing.assert_allclose(hits[k], hit, rtol=1e-8)
        left = np.flatnonzero(u == ordered[ordered < JUMPS[k]][-1])[0]
        right = np.flatnonzero(u == ordered[ordered > JUMPS[k]][0])[0]
        expected = np.stack([at(tau) for tau in TAUS])
        found = np.stack(
            [JUMPS[k] - trajectory.params.u[:, left], trajectory.params.u[:, right] - JUMPS[k]], 1
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@FEW
@given(st.floats(1e-3, 0.15), st.floats(1e-4, 1.0), st.floats(0.2, 4.0))
@example(0.1, 1e-3, 1.0)
@example(0.01, 1.0, 1.0)
def test_hit_time_is_its_defining_integral(near, excess, w):
    """For distances from nearly equal to very different."""
    near, far = 0.5 - (0.5 - near), (0.5 + near * (1 + 2 * excess)) - 0.5
    cube = far**3 - near**3
    u = [0.1, 0.5 - near, 0.5 + far, 0.96, 0.97, 0.985, 0.99, 0.99]
    expected, _ = quad(
        lambda x: (1 + x / np.cbrt(x**3 + cube)) ** 2, 0, near, epsabs=0, epsrel=1e-12, limit=200
    )
    found = hit_times(u, piecewise([0.5, 0.98], [0.0, w, 1.0]))
    np.testing.assert_allclose(found[0], expected / w**2, rtol=1e-11)


@FEW
@given(starts())
def test_the_difference_of_cubes_is_conserved_to_rounding(u):
    target = piecewise()
    first = np.min(hit_times(u, target))
    trajectory = run(u, target, taus=first * np.linspace(0, 0.999, TAUS.size))
    cubes = [np.subtract(*np.power(distances(v), 3)) for v in np.asarray(trajectory.params.u)]
    np.testing.assert_allclose(cubes, np.broadcast_to(cubes[0], np.shape(cubes)), atol=2e-15)


def test_after_the_arrival_both_neurons_rest_where_the_cube_says():
    hits = hit_times(GENERIC)
    late = np.max(hits) * np.asarray([1.0 + 1e-9, *np.geomspace(1.1, 1e6, 7)])
    for v in np.asarray(run(GENERIC, taus=late).params.u):
        far = np.cbrt(0.1**3 - 0.05**3), np.cbrt(0.225**3 - 0.075**3)
        expected = [0.1, 0.25, 0.25 + far[0], 0.625 - far[1], 0.625, 0.9, 0.05, 0.95]
        np.testing.assert_allclose(v, expected, rtol=1e-14)


def test_neurons_at_equal_distances_move_alike():
    u = [0.125, 0.0625, 0.375, 0.4375, 0.9375, 0.96875, 0.03125, 0.03125]
    taus = np.asarray([0.0, 0.1, 0.2, 0.3, 0.4, 0.49, 0.499, 0.51])
    found = run(u, taus=taus).params.u[:, [0, 2]]
    travelled = np.minimum(taus / 4, 0.125)
    np.testing.assert_allclose(found, np.stack([0.125 + travelled, 0.375 - travelled], 1), 1e-14)
    np.testing.assert_allclose(hit_times(u)[0], 0.5, rtol=1e-14)


def test_distances_equal_but_for_rounding_lose_no_digits():
    """0.3 - 0.2 and 0.4 - 0.3 differ in the last place, and k is the cube root of that."""
    target = piecewise([0.3, 0.7], [0.0, 2.0, 1.0])
    taus = np.linspace(0, 0.09, 8)
    u = run([0.05, 0.06, 0.1, 0.2, 0.4, 0.5, 0.9, 0.95], target, taus=taus).params.u
    np.testing.assert_allclose(u[:, 3], 0.2 + taus, rtol=1e-14)
    np.testing.assert_allclose(u[:, 4], 0.4 - taus, rtol=1e-14)


@FEW
@given(starts(), st.permutations(range(8)))
def test_permuting_the_neurons_permutes_the_solution(u, order):
    order = list(order)
    plain, permuted = run(u), run(u[order])
    np.testing.assert_array_equal(permuted.params.u, plain.params.u[:, np.asarray(order)])
    np.testing.assert_array_equal(
        permuted.params.a[:, 1:], plain.params.a[:, 1:][:, np.asarray(order)]
    )
    np.testing.assert_array_equal(permuted.risk, plain.risk)


@FEW
@given(starts(grid=64))
def test_mirroring_the_inputs_mirrors_the_solution(u):
    """On a grid of binary fractions 1 - u is exact; neurons meet there and sit on jumps."""
    plain = run(u)
    mirrored = run(1 - u, piecewise((0.375, 0.75), (-0.5, 1.0, 0.0)))
    np.testing.assert_allclose(
        np.sort(1 - mirrored.params.u, axis=1), np.sort(plain.params.u, axis=1), rtol=0, atol=1e-14
    )
    np.testing.assert_allclose(mirrored.risk, plain.risk, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "u",
    [
        [0.05, 0.1, 0.2, 0.25, 0.4, 0.5, 0.7, 0.9],
        [0.25, 0.03, 0.04, 0.05, 0.1, 0.5, 0.7, 0.9],
        [0.1, 0.25, 0.3, 0.3, 0.35, 0.5, 0.7, 0.9],
        [0.05, 0.1, 0.25, 0.25, 0.25, 0.5, 0.7, 0.9],
    ],
    ids=["two on either side", "one on its right", "one on its left", "three together"],
)
def test_a_neuron_on_a_jump_covers_it_and_frees_the_others(u):
    """The one beside it moves under the next jump as if this jump had no height."""
    trajectory = run(u)
    alone = run(u, piecewise(values=(1.0, 1.0, -0.5)))
    assert hit_times(u)[0] == 0
    np.testing.assert_array_equal(trajectory.params.u[:, :-3], np.tile(u[:-3], (TAUS.size, 1)))
    np.testing.assert_array_equal(trajectory.params.u[:, -3:], alone.params.u[:, -3:])
    np.testing.assert_allclose(trajectory.risk, alone.risk, rtol=1e-15)


@eqx.filter_jit
def risks_and_slopes(problem, records):
    return jax.vmap(jax.value_and_grad(problem.risk))(records)


@pytest.mark.parametrize("activation", [tts.CubicStep, tts.Tanh])
@pytest.mark.parametrize(
    "u",
    [
        [0.1, 0.7, 0.2, 0.35, 0.9, 0.4, 0.95, 0.5],
        [0.25, 0.1, 0.5, 0.28, 0.9, 0.7, 0.35, 0.8],
        [-0.5, 0.1, 0.2, 0.4, 0.5, 0.7, 0.9, 1.5],
    ],
    ids=["in any order", "on a jump", "with some outside"],
)
def test_the_outer_layer_is_the_best_one_for_steep_steps(activation, u):
    """The risk of a network of tiny eta is convex in a: no slope there means the minimum."""
    eta, target = 1e-7, piecewise()
    problem = tts.Problem(tts.ShallowNetwork(activation(jnp.asarray(eta))), target)
    trajectory = run(u, target, activation=activation(eta))
    risks, slopes = risks_and_slopes(problem, trajectory.params)
    np.testing.assert_allclose(risks, trajectory.risk, rtol=0, atol=50 * eta)
    np.testing.assert_allclose(slopes.a, 0.0, rtol=0, atol=50 * eta)


def numbers_of(u):
    return jnp.asarray(u), jnp.asarray(JUMPS), jnp.asarray([0.0, 1.0, -0.5])


def differences(function, numbers, h):
    """Central differences by every entry of every array, stacked on the last axis."""
    columns = []
    for i, array in enumerate(numbers):
        for e in h * np.eye(array.size):
            high = function(*numbers[:i], array + e, *numbers[i + 1 :])
            low = function(*numbers[:i], array - e, *numbers[i + 1 :])
            columns.append((high - low) / (2 * h))
    return np.stack(columns, -1)


@pytest.mark.thorough
@pytest.mark.parametrize("function", [hits_by_numbers, record_by_numbers])
def test_derivatives_by_start_jumps_and_values_match_finite_differences(function):
    numbers = numbers_of(GENERIC)
    found = np.concatenate(SLOPES[function](*numbers), -1)
    np.testing.assert_allclose(found, differences(function, numbers, 1e-6), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "u",
    [
        [0.125, 0.0625, 0.375, 0.4375, 0.8125, 0.96875, 0.03125, 0.03125],
        [0.1, 0.25, 0.3, 0.5, 0.7, 0.9, 0.05, 0.8],
        [0.1, 0.25, 0.25, 0.625, 0.625, 0.9, 0.05, 0.8],
    ],
    ids=["equal distances", "on a jump", "several on jumps"],
)
def test_derivatives_are_finite_in_the_edge_cases(u):
    for slope in SLOPES.values():
        assert all(np.all(np.isfinite(part)) for part in slope(*numbers_of(u)))


def test_a_jump_of_no_height_is_never_hit_and_moves_nothing():
    target = piecewise(values=(1.0, 1.0, 2.0))
    hits = hit_times(GENERIC, target)
    assert np.isinf(hits[0])
    assert np.isfinite(hits[1])
    trajectory = run(GENERIC, target)
    np.testing.assert_array_equal(trajectory.params.u[:, :3], np.tile(GENERIC[:3], (TAUS.size, 1)))
    assert np.all(np.isfinite(trajectory.risk))


def test_it_is_one_trace_for_all_numbers_under_jit_and_vmap():
    traces = []

    @eqx.filter_jit
    def risks(us, values):
        traces.append(None)
        return jax.vmap(lambda u: run(u, piecewise(values=values)).risk)(us)

    us = np.stack([GENERIC, np.asarray(GENERIC) + 0.01])
    for values in ([0.0, 1.0, -0.5], [2.0, 1.0, 4.0]):
        found = risks(jnp.asarray(us), jnp.asarray(values))
        one_by_one = [run(u, piecewise(values=values)).risk for u in us]
        np.testing.assert_allclose(found, one_by_one, rtol=1e-13, atol=1e-16)
    assert len(traces) == 1
