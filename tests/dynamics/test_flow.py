"""What the gradient flow promises at the public face, whichever method integrates it."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import quickly
from small_problems import slow_times, small_problem

import tts_jax as tts
from tts_jax._numbers import real
from tts_jax._types import Real
from tts_jax.models.activations import AbstractStep

TAUS = slow_times(0.05)
WEIGHTS = jnp.asarray([0.5, 1.0, -2.0, 0.7, 1.5, -1.1, 0.3])


def nth(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def starts(count):
    """Different positions, all within the bandwidth of one compiled program."""
    shift = 0.004 * jnp.arange(float(count))[:, None]
    u = jnp.asarray([0.07, 0.19, 0.38, 0.49, 0.76, 0.97])
    return tts.Params(jnp.tile(WEIGHTS, (count, 1)), jnp.tile(u, (count, 1)) + shift)


def assert_equal_runs(found, expected, *, atol=1e-11):
    np.testing.assert_allclose(found.params.a, expected.params.a, rtol=0, atol=atol)
    np.testing.assert_allclose(found.params.u, expected.params.u, rtol=0, atol=atol)
    np.testing.assert_allclose(found.risk, expected.risk, rtol=0, atol=atol)
    np.testing.assert_array_equal(found.status, expected.status)
    for name in found.stats:
        np.testing.assert_array_equal(found.stats[name], expected.stats[name])


# Compilation.

TRACED = []


class CountedStep(AbstractStep):
    """The cubic step, which notes whenever it is traced."""

    eta: Real = eqx.field(converter=real("eta"))
    knots: ClassVar = tts.CubicStep.knots
    degree: ClassVar = tts.CubicStep.degree
    limits: ClassVar = tts.CubicStep.limits

    def __call__(self, z):
        TRACED.append("value")
        return tts.CubicStep(1.0)(z)

    def primitive(self, z):
        TRACED.append("primitive")
        return tts.CubicStep(1.0).primitive(z)

    def overlap(self, t):
        TRACED.append("overlap")
        return tts.CubicStep(1.0).overlap(t)


def counted_run(flow, *, eta=0.08, jumps=(0.3, 0.65), values=(1.0, 3.0, 0.5), last=0.01, start=0):
    target = tts.PiecewiseConstant(jumps, values)
    problem = tts.Problem(tts.ShallowNetwork(CountedStep(eta)), target)
    return tts.simulate(problem, flow, nth(starts(4), start), slow_times(last))


@pytest.mark.thorough
def test_new_numbers_of_one_shape_are_traced_once():
    counted_run(tts.GradientFlow(0.1))
    traced = len(TRACED)
    assert set(TRACED) == {"value", "primitive", "overlap"}
    counted_run(tts.GradientFlow(1))
    counted_run(tts.GradientFlow(np.float32(0.5)))
    counted_run(tts.GradientFlow(jnp.asarray(2.0)))
    counted_run(tts.GradientFlow(0.1, rtol=1e-4, atol=jnp.asarray(1e-5)))
    counted_run(tts.GradientFlow(0.1), last=0.02)
    counted_run(tts.GradientFlow(0.1), eta=0.05)
    counted_run(tts.GradientFlow(0.1), eta=jnp.asarray(0.11))
    counted_run(tts.GradientFlow(0.1), jumps=[0.25, 0.7], values=[0, 2, 1])
    counted_run(tts.GradientFlow(0.1), jumps=jnp.asarray([0.2, 0.6]))
    for start in (1, 2, 3):
        counted_run(tts.GradientFlow(0.1), start=start)
    assert len(TRACED) == traced
    # Another shape is another program, so that the count does count.
    jax.eval_shape(lambda: counted_run(tts.GradientFlow(0.1), jumps=[0.5], values=[0.0, 1.0]).risk)
    assert len(TRACED) > traced


@pytest.mark.thorough
def test_a_step_of_ones_own_runs_as_the_cubic_one():
    run = counted_run(tts.GradientFlow(0.1))
    same = tts.simulate(small_problem(), tts.GradientFlow(0.1), nth(starts(4), 0), slow_times(0.01))
    assert_equal_runs(run, same)


# The method of the package and one of diffrax.


@pytest.fixture(scope="module")
def kvaerno():
    @quickly
    def run(epsilon, start):
        flow = tts.GradientFlow(epsilon, rtol=1e-9, atol=1e-11, solver=tts.stiff_solver())
        return tts.simulate(small_problem(), flow, start, TAUS)

    return run


@pytest.mark.thorough
@pytest.mark.parametrize("epsilon", [1e-4, 0.3])
def test_the_default_agrees_with_a_solver_of_diffrax(kvaerno, epsilon):
    """Also where 1 cuts a neuron: one by the closed form, the other by quadrature."""
    start = nth(starts(2), 1)
    ours = tts.simulate(
        small_problem(), tts.GradientFlow(epsilon, rtol=1e-9, atol=1e-11), start, TAUS
    )
    theirs = kvaerno(jnp.asarray(epsilon), start)
    assert ours.status == theirs.status == tts.Status.OK
    np.testing.assert_allclose(ours.params.u, theirs.params.u, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.params.a, theirs.params.a, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours.risk, theirs.risk, rtol=0, atol=1e-6)


# Batches and failures.

EPSILONS = jnp.asarray([1e-1, 1e-7, 1.0, 1e-3])
LIMIT = 140


def limited(epsilon, start):
    flow = tts.GradientFlow(epsilon, max_steps=LIMIT)
    return tts.simulate(small_problem(), flow, start, TAUS)


alone, together = quickly(limited), quickly(jax.vmap(limited))


@pytest.fixture(scope="module")
def batch():
    """The run at 1e-7 does not get to the end in so many steps."""
    return together(EPSILONS, starts(4))


@pytest.mark.thorough
@pytest.mark.parametrize("i", range(4))
def test_every_run_of_a_batch_is_the_run_alone_with_its_own_steps(batch, i):
    assert_equal_runs(nth(batch, i), alone(EPSILONS[i], nth(starts(4), i)))


def test_the_runs_of_a_batch_take_different_numbers_of_steps(batch):
    assert len(set(np.asarray(batch.stats["steps"]).tolist())) == 4
    expected = [tts.Status.OK, tts.Status.MAX_STEPS, tts.Status.OK, tts.Status.OK]
    np.testing.assert_array_equal(batch.status, expected)
    np.testing.assert_array_equal(
        batch.stats["steps"], batch.stats["accepted"] + batch.stats["rejected"]
    )


def test_a_bad_run_leaves_its_neighbours_as_they_are(batch):
    good = together(EPSILONS.at[1].set(1e-2), starts(4))
    infinite = starts(4)._replace(a=starts(4).a.at[1].set(1e200))
    broken = together(EPSILONS.at[1].set(1e-2), infinite)
    assert good.status[1] == tts.Status.OK
    assert broken.status[1] == tts.Status.NON_FINITE
    assert batch.status[1] == tts.Status.MAX_STEPS
    for i in (0, 2, 3):
        assert_equal_runs(nth(batch, i), nth(good, i), atol=0)
        assert_equal_runs(nth(broken, i), nth(good, i), atol=0)


def test_out_of_steps_keeps_the_data_so_far():
    """The numbers of the whole run, then NaN."""
    start = nth(starts(4), 1)
    short = alone(EPSILONS[1], start)
    whole = tts.simulate(small_problem(), tts.GradientFlow(1e-7), start, TAUS)
    assert short.status == tts.Status.MAX_STEPS
    assert int(short.stats["steps"]) == LIMIT
    reached = int(np.sum(short.valid))
    assert 0 < reached < TAUS.size
    np.testing.assert_array_equal(short.valid, np.arange(TAUS.size) < reached)
    np.testing.assert_allclose(short.params.u[:reached], whole.params.u[:reached], atol=1e-10)
    np.testing.assert_allclose(short.risk[:reached], whole.risk[:reached], atol=1e-10)
    assert np.all(np.isnan(short.params.a[reached:]))
    assert np.all(np.isnan(short.risk[reached:]))


def test_a_start_without_a_finite_velocity_is_kept_and_nothing_else():
    start = nth(starts(4), 0)._replace(a=1e200 * jnp.ones(7))
    run = alone(EPSILONS[0], start)
    assert run.status == tts.Status.NON_FINITE
    np.testing.assert_array_equal(run.valid, np.arange(TAUS.size) == 0)
    np.testing.assert_array_equal(run.at(0).a, start.a)
    np.testing.assert_array_equal(run.final.u, start.u)
    assert int(run.stats["accepted"]) == 0
    with pytest.raises(tts.SimulationError, match="NON_FINITE"):
        tts.simulate(small_problem(), tts.GradientFlow(EPSILONS[0]), start, TAUS)


# Derivatives of batches.


class Plain(tts.AbstractProblem):
    """A problem of one's own that compiles in a second."""

    def risk(self, params):
        return (params.a[0] + params.a[1:] @ params.u**2 - 1.0) ** 2 + jnp.sum(params.u**3)


STARTS = (
    jnp.asarray([0.3, 1e-2, 1e-3]),
    tts.Params(
        jnp.asarray([[0.4, 0.2, -0.3, 0.5], [0.0, 0.0, 0.0, 0.0], [0.1, 2.0, 1.0, -1.0]]),
        jnp.asarray([[0.12, 0.4, 0.9], [0.2, 0.5, 0.7], [0.3, 0.02, 0.6]]),
    ),
)


@pytest.fixture(
    scope="module",
    params=[Plain(), pytest.param(small_problem(eta=0.1), marks=pytest.mark.slow)],
    ids=["one's own", "steps"],
)
def outcome(request):
    """A number that a run gives, as a function of epsilon and the start."""

    def of(epsilon, start):
        flow = tts.GradientFlow(epsilon, rtol=1e-7, atol=1e-9, max_steps=200)
        run = tts.simulate(request.param, flow, start, jnp.asarray([0.0, 0.01, 0.02]))
        return run.risk[-1] + jnp.sum(run.params.u[1] ** 2)

    return of


@pytest.fixture(scope="module")
def single_slopes(outcome):
    """By epsilon, a and u, run by run."""
    slopes = quickly(jax.grad(outcome, (0, 1)))
    each = [slopes(*nth(STARTS, i)) for i in range(3)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def assert_close(found, expected):
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        largest = float(np.max(np.abs(e)))
        assert largest > 1e-3
        np.testing.assert_allclose(f, e, rtol=0, atol=1e-10 * largest)


@pytest.mark.thorough
def test_vmap_of_grad_is_grad_one_by_one(outcome, single_slopes):
    assert_close(quickly(jax.vmap(jax.grad(outcome, (0, 1))))(*STARTS), single_slopes)


@pytest.mark.thorough
def test_grad_of_vmap_is_grad_one_by_one(outcome, single_slopes):
    def total(epsilons, params):
        return jnp.sum(jax.vmap(outcome)(epsilons, params))

    assert_close(quickly(jax.grad(total, (0, 1)))(*STARTS), single_slopes)


@pytest.mark.thorough
def test_forward_mode_of_a_batch_is_the_product_with_the_gradient(outcome, single_slopes):
    direction = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(0).normal(size=leaf.shape)), STARTS
    )
    found = quickly(lambda at, d: jax.jvp(jax.vmap(outcome), at, d)[1])(STARTS, direction)
    products = jax.tree.map(
        lambda s, d: np.sum(np.reshape(s * d, (3, -1)), axis=1), single_slopes, direction
    )
    np.testing.assert_allclose(found, sum(jax.tree.leaves(products)), rtol=1e-10)


@pytest.mark.parametrize(
    "second",
    [
        lambda f: jax.grad(jax.grad(f)),
        lambda f: jax.jacfwd(jax.grad(f)),
        lambda f: jax.grad(jax.jacfwd(f)),
        lambda f: jax.jacfwd(jax.jacfwd(f)),
    ],
    ids=["reverse twice", "forward over reverse", "reverse over forward", "forward twice"],
)
def test_second_derivatives_say_that_they_are_not_there(outcome, second):
    with pytest.raises(NotImplementedError, match="Second derivatives of a run are not there"):
        second(lambda epsilon: outcome(epsilon, nth(STARTS[1], 0)))(jnp.asarray(0.3))
