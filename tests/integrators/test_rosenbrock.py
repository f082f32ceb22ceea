"""The Rosenbrock step: its coefficients by theory, its orders and its stability by numbers."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from small_systems import any_system

from tts_jax.integrators import rosenbrock
from tts_jax.integrators.rosenbrock import GAMMA, interpolate, last_stage, rosenbrock_step

PARTS = (0.0, 0.3, 0.75, 1.0)


@eqx.filter_jit
def one_step(system, y, h):
    """The new state, the error estimate, and the states at `PARTS` of the step."""
    step = rosenbrock_step(system, y, h)
    return step.after, last_stage(step), [interpolate(y, step, jnp.asarray(p)) for p in PARTS]


@eqx.filter_jit
def many_steps(system, y, h, count):
    """After `count` steps of size h, and at 0.3 of the step before."""

    def body(i, state):
        y, _ = state
        step = rosenbrock_step(system, y, h)
        return step.after, interpolate(y, step, jnp.asarray(0.3))

    return jax.lax.fori_loop(0, count, body, (y, y))


def slope(steps, errors):
    return np.polyfit(np.log(steps), np.log(errors), 1)[0]


def size(error):
    return float(np.max(np.abs(error)))


# The coefficients, in the form of theory: k_i = h f(y + sum alpha_ij k_j) + h J sum gamma_ij k_j.

INNER = np.linalg.inv(np.eye(8) / GAMMA - rosenbrock.TABLEAU_C)
ALPHA = rosenbrock.TABLEAU_A @ INNER
BETA = ALPHA + INNER
TABLEAU_M = rosenbrock.TABLEAU_M @ INNER
EMBEDDED = (rosenbrock.TABLEAU_M - np.eye(8)[7]) @ INNER


def dense_weights(part):
    first, second, third = rosenbrock.TABLEAU_H
    bend = first + part * (second + part * third)
    return part * (rosenbrock.TABLEAU_M + (1 - part) * bend) @ INNER


@functools.cache
def trees(order):
    """All rooted trees with `order` nodes, each the sorted tuple of its branches."""
    if order == 1:
        return [()]
    found = set()

    def branch(left, branches):
        if left == 0:
            found.add(tuple(sorted(branches)))
        for k in range(1, left + 1):
            for tree in trees(k):
                branch(left - k, (*branches, tree))

    branch(order - 1, ())
    return sorted(found)


def nodes(tree):
    return 1 + sum(map(nodes, tree))


def density(tree):
    return nodes(tree) * np.prod([density(branch) for branch in tree])


def stage_sums(tree):
    """The elementary weight at every stage: by beta where one branch grows, else by alpha."""
    matrix = BETA if len(tree) == 1 else ALPHA
    return np.prod([np.ones(8), *(matrix @ stage_sums(branch) for branch in tree)], axis=0)


def defects(weights, order, part=1.0):
    return [weights @ stage_sums(t) - part**order / density(t) for t in trees(order)]


def test_the_coefficients_fulfil_all_conditions_of_order_five():
    assert [len(trees(order)) for order in range(1, 6)] == [1, 1, 2, 4, 9]
    for order in range(1, 6):
        np.testing.assert_allclose(defects(TABLEAU_M, order), 0.0, atol=1e-13)
    assert size(defects(TABLEAU_M, 6)) > 1e-5


def test_the_embedded_method_is_of_order_four():
    for order in range(1, 5):
        np.testing.assert_allclose(defects(EMBEDDED, order), 0.0, atol=1e-13)
    assert size(defects(EMBEDDED, 5)) > 1e-5


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.9])
def test_the_dense_output_is_of_order_four(part):
    for order in range(1, 5):
        np.testing.assert_allclose(defects(dense_weights(part), order, part), 0.0, atol=1e-13)


def test_the_stages_stand_at_the_published_times():
    """The row sums of alpha; the last three stages stand at the end of the step."""
    times = np.sum(ALPHA, axis=1)
    expected = [0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664]
    np.testing.assert_allclose(times, [*expected, 1, 1, 1], rtol=0, atol=1e-13)
    np.testing.assert_allclose(times[1], 3 * GAMMA, rtol=1e-14)


def test_the_method_is_stiffly_accurate_and_stable():
    """The last row of beta is the weights; |R(iy)| <= 1, and R vanishes at infinity."""
    np.testing.assert_allclose(BETA[7], TABLEAU_M, rtol=0, atol=1e-13)
    np.testing.assert_allclose(np.diag(BETA), GAMMA, rtol=1e-14)

    def growth(z):
        return 1 + z * TABLEAU_M @ np.linalg.solve(np.eye(8) - z * BETA, np.ones(8))

    assert all(abs(growth(1j * y)) <= 1 + 1e-12 for y in np.geomspace(1e-3, 1e6, 400))
    assert abs(growth(-1e12)) < 1e-9


# Orders, on a problem with a known solution.


def winding(y, number):
    """A nonlinear rotation: y = e^(sin t) (cos t, sin t), with t as the third unknown."""
    x, z, t = y[0], y[1], y[2]
    rate = jnp.cos(t) * (x**2 + z**2) / jnp.exp(2 * jnp.sin(t))
    return jnp.stack([rate * x - z, rate * z + x, jnp.ones_like(t)])


def winding_at(t):
    return np.exp(np.sin(t)) * np.asarray([np.cos(t), np.sin(t), t / np.exp(np.sin(t))])


SMOOTH = any_system(winding, masses=[1, 1, 1])
COUNTS = np.asarray([20, 40, 80, 160])


def errors_after_steps(system, solution, last):
    """At the end, and at 0.3 of the last step, for `COUNTS` steps."""
    ends, between = [], []
    for count in COUNTS:
        h = last / count
        y, inside = many_steps(system, jnp.asarray(solution(0.0)), jnp.asarray(h), count)
        ends.append(size(y - solution(last)))
        between.append(size(inside - solution(last - 0.7 * h)))
    return ends, between


def test_it_converges_with_order_five_and_its_dense_output_with_four():
    ends, between = errors_after_steps(SMOOTH, winding_at, 2.0)
    assert 4.7 < slope(1 / COUNTS, ends) < 5.5
    assert slope(1 / COUNTS, between) > 4.0


def test_one_step_errs_by_order_six_its_estimate_and_dense_output_by_five():
    steps = [0.1, 0.05, 0.025, 0.0125]
    start = winding_at(1.0)
    true, estimate, inside = [], [], []
    for h in steps:
        after, error, at = one_step(SMOOTH, jnp.asarray(start), jnp.asarray(h))
        true.append(size(after - winding_at(1.0 + h)))
        estimate.append(size(error))
        inside.append(size(at[1] - winding_at(1.0 + 0.3 * h)))
    assert slope(steps, true) == pytest.approx(6.0, abs=0.3)
    assert slope(steps, estimate) == pytest.approx(5.0, abs=0.3)
    assert slope(steps, inside) == pytest.approx(5.0, abs=0.3)


def test_the_ends_of_the_dense_output_are_those_of_the_step():
    start = jnp.asarray(winding_at(0.0))
    after, _, at = one_step(SMOOTH, start, jnp.asarray(0.3))
    np.testing.assert_array_equal(at[0], start)
    np.testing.assert_array_equal(at[-1], after)


# Algebraic equations: a singular mass.


def constrained(y, number):
    """x' = -x z, 0 = z + z^3 - 2 x, from x = z = 1."""
    x, z = y[0], y[1]
    return jnp.stack([-x * z, z + z**3 - 2 * x])


def constrained_at(t):
    """By z, in which the time is an integral of a rational function: t = ... of z."""
    # x = (z + z^3) / 2, so that x' = z' (1 + 3 z^2) / 2 = -(z^2 + z^4) / 2, and
    # dt = -(1 + 3 z^2) / (z^2 + z^4) dz = -(1 / z^2 + 2 / (1 + z^2)) dz.
    z = 0.05
    for _ in range(30):
        excess = 1 / z - 1 + 2 * (np.pi / 4 - np.arctan(z)) - t
        z += excess / (1 / z**2 + 2 / (1 + z**2))
    return np.asarray([(z + z**3) / 2, z])


def test_it_keeps_order_five_with_an_algebraic_equation():
    system = any_system(constrained, masses=[1, 0])
    ends, between = errors_after_steps(system, constrained_at, 2.0)
    assert 4.7 < slope(1 / COUNTS, ends) < 5.5
    assert slope(1 / COUNTS, between) > 4.0


def test_the_algebraic_equation_holds_after_a_step_as_well_as_the_step_is_exact():
    system = any_system(constrained, masses=[1, 0])
    after, error, _ = one_step(system, jnp.ones(2), jnp.asarray(0.1))
    assert size(system.vector_field(after)[1]) < size(error)


# Stiffness.


def test_one_huge_step_damps_what_is_fast():
    system = any_system(lambda y, rate: -rate * y, 1e8, masses=[1])
    after, _, at = one_step(system, jnp.ones(1), jnp.ones(()))
    assert size(after) < 1e-6
    assert all(size(y) <= 1.0 for y in at)


def prothero_robinson(y, rate):
    """y' = -rate (y - sin t) + cos t, whose slow solution is sin t."""
    return jnp.stack([-rate * (y[0] - jnp.sin(y[1])) + jnp.cos(y[1]), jnp.ones_like(y[1])])


@pytest.mark.parametrize("rate", [1.0, 1e2, 1e4, 1e6, 1e8])
def test_the_error_on_a_slow_solution_does_not_grow_with_the_stiffness(rate):
    system = any_system(prothero_robinson, rate, masses=[1, 1])
    y, inside = many_steps(system, jnp.asarray([0.0, 0.0]), jnp.asarray(0.05), 40)
    assert abs(float(y[0]) - np.sin(2.0)) < 5e-9
    assert abs(float(inside[0]) - np.sin(2.0 - 0.7 * 0.05)) < 5e-9


def test_linear_decay_at_rates_from_one_to_a_hundred_million():
    """Coupled; after the fast parts are gone the slow one is right."""
    rates = np.asarray([1.0, 1e3, 1e5, 1e8])
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    matrix = -(basis * rates) @ basis.T
    system = any_system(lambda y, _: jnp.asarray(matrix) @ y, masses=np.ones(4))
    start = basis @ np.ones(4)
    y, _ = many_steps(system, jnp.asarray(start), jnp.asarray(0.05), 20)
    np.testing.assert_allclose(basis.T @ np.asarray(y), [np.exp(-1), 0, 0, 0], rtol=0, atol=1e-7)


def test_any_pytree_steps_as_its_vector_does():
    class Pair(type(SMOOTH)):
        def vector_field(self, y):
            return jax.tree.map(lambda leaf: self.number * leaf**2, y)

        def apply_mass(self, y):
            return y

        def factorise(self, y, shift):
            scale = jax.tree.map(lambda leaf: 1 / (shift - 2 * self.number * leaf), y)
            return lambda r: jax.tree.map(jnp.multiply, scale, r)

    leaves = (jnp.asarray([0.2, -0.5]), {"w": jnp.asarray([[0.7], [0.1]])})
    tree = Pair(winding, jnp.asarray(-1.0), jnp.ones(()))
    flat = any_system(lambda y, number: number * y**2, -1.0, masses=np.ones(4))
    h = jnp.asarray(0.3)
    after, error, at = one_step(tree, leaves, h)
    expected = one_step(flat, ravel_pytree(leaves)[0], h)
    for found, vector in zip((after, error, *at), (*expected[:2], *expected[2]), strict=True):
        np.testing.assert_allclose(ravel_pytree(found)[0], vector, rtol=0, atol=1e-15)
    # y' = -y^2 has the solution y / (1 + y t).
    np.testing.assert_allclose(after[0], leaves[0] / (1 + 0.3 * leaves[0]), rtol=0, atol=1e-5)
