"""The risk by cells against the one by all pairs of neurons, wherever these are."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import gradient_of, hessian_of

import tts_jax as tts
from tts_jax.closed_forms.banded import BandedRisk, CellState
from tts_jax.closed_forms.pairwise import PairwiseRisk

ETA = 0.1
WIDTH = 6
WEIGHTS = [0.3, 1.5, -2.0, 0.7, 2.5, -1.1, 0.9]
TARGET = ((0.2, 0.35, 0.5, 0.65, 0.8), (1.0, 5.0, 1.0, 3.0, 1.0, 5.0))
FEW = settings(max_examples=60, deadline=None, derandomize=True)

# Places and the least bandwidth that holds every pair closer than eta.
INSIDE = {
    "apart": ([0.08, 0.2, 0.33, 0.52, 0.71, 0.9], 0),
    "touching": ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 1),
    "pairs closer than eta": ([0.11, 0.15, 0.4, 0.47, 0.8, 0.83], 1),
    "a chain": ([0.3, 0.36, 0.42, 0.48, 0.54, 0.6], 1),
    "three closer than eta": ([0.11, 0.13, 0.15, 0.47, 0.8, 0.83], 2),
    "coincident": ([0.4, 0.4, 0.4, 0.7, 0.7, 0.9], 2),
    "all in one place": ([0.37] * WIDTH, 5),
    "crossed": ([0.15, 0.11, 0.4, 0.47, 0.83, 0.8], 1),
    "crossed, closer and further than eta": ([0.7, 0.2, 0.66, 0.24, 0.3, 0.9], 4),
    "in reverse": ([0.9, 0.71, 0.52, 0.33, 0.2, 0.08], 5),
    "on jumps": ([0.2, 0.35, 0.35, 0.5, 0.65, 0.8], 1),
}
CUT = {
    "cut by 0": ([0.02, 0.3, 0.5, 0.65, 0.8, 0.9], 0),
    "several cut by 0": ([-0.03, 0.01, 0.04, 0.16, 0.6, 0.9], 2),
    "several cut by 1": ([0.1, 0.4, 0.84, 0.96, 0.99, 1.03], 2),
    "all cut by 0": ([-0.04, -0.02, -0.01, 0.0, 0.02, 0.04], 5),
    "all cut by 1": ([0.96, 0.98, 0.99, 1.0, 1.02, 1.04], 5),
    "cut by both": ([-0.02, 0.03, 0.3, 0.6, 0.97, 1.01], 1),
    "coincident, cut by both": ([0.01, 0.01, 0.4, 0.6, 0.99, 0.99], 1),
    "crossed, cut by 0": ([0.03, -0.02, 0.04, 0.01, 0.6, 0.9], 3),
    "crossed, cut by 1": ([0.1, 0.4, 0.98, 0.96, 1.03, 0.99], 3),
    "a cut one behind one that is not": ([0.09, 0.03, 0.5, 0.6, 0.97, 0.91], 1),
    "at 0 and 1": ([0.0, 0.0, 0.4, 0.6, 1.0, 1.0], 1),
    "where steps begin to be seen": ([-ETA / 2, 0.2, 0.4, 0.6, 0.8, 1 + ETA / 2], 0),
}
OUTSIDE = {
    "one on either side": ([-0.2, 0.2, 0.4, 0.6, 0.8, 1.3], 0),
    "several on either side": ([-0.7, -0.2, 0.3, 0.5, 1.3, 1.4], 0),
    "in any order and coincident": ([-0.2, -0.7, -0.7, 1.4, 1.3, 1.3], 0),
    "some outside, some cut": ([-0.3, -0.02, 0.03, 0.97, 1.04, 1.2], 1),
    "left before one with a lower index": ([0.04, -0.2, 0.4, 0.6, 1.3, 0.97], 1),
    "several left before ones with a lower index": ([0.02, -0.1, 0.01, -0.3, 1.2, 0.95], 3),
    "left before one that is not cut": ([0.09, -0.2, 0.4, 0.6, 0.8, 0.9], 1),
    "left before one that is not cut, by 1": ([0.1, 0.2, 0.4, 0.6, 1.3, 0.91], 1),
    "all on the left": ([-0.2, -0.3, -0.4, -1.0, -0.6, -0.06], 0),
    "all on the right": ([1.2, 1.3, 1.4, 2.0, 1.6, 1.06], 0),
    "all but one": ([-0.2, -0.3, -0.4, 0.6, 1.2, 1.1], 0),
    "on the wrong sides": ([1.2, 0.3, 0.02, 0.98, 0.5, -0.1], 5),
}
EVERYWHERE = {**INSIDE, **CUT, **OUTSIDE}
places = pytest.mark.parametrize(("u", "needed"), EVERYWHERE.values(), ids=EVERYWHERE)


def activation_and_target(eta, target=TARGET):
    return tts.CubicStep(jnp.asarray(eta)), tts.PiecewiseConstant(*target)


def risk_of(eta, bandwidth, target=TARGET):
    return BandedRisk(*activation_and_target(eta, target), bandwidth)


def cells_of(a, u):
    """From weights a, with the bias first."""
    return CellState(jnp.cumsum(jnp.asarray(a, float)), jnp.asarray(u, float))


def banded(rows, size, first):
    """(size, size) with rows[k] at (i, i + first + k), by single entries."""
    matrix = np.zeros((size, size))
    for k, row in enumerate(np.asarray(rows)):
        for i in range(size):
            if 0 <= i + first + k < size:
                matrix[i, i + first + k] = row[i]
    return matrix


def dense(blocks):
    """The blocks of the Hessian by a (the bias first) and u, as `Blocks` says."""
    width, bandwidth = blocks.hess_uu.shape[1], blocks.hess_uu.shape[0] - 1
    sums = np.tril(np.ones((width + 1, width + 1)))
    upper = banded(blocks.hess_aa, width, 0)
    by_a = sums.T @ np.diag(np.asarray(blocks.hess_cc)) @ sums
    by_a[1:, 1:] += upper + np.triu(upper, 1).T
    by_c_u = np.zeros((width + 1, width))
    for i in range(width):
        by_c_u[[i, i + 1], i] = blocks.hess_cu[i]
    by_a_u = sums.T @ by_c_u
    by_a_u[1:] += banded(blocks.hess_au, width, -bandwidth).T
    upper = banded(blocks.hess_uu, width, 0)
    return by_a, by_a_u, upper + np.triu(upper, 1).T


@eqx.filter_jit
def by_cells(risk, y):
    return risk(y), risk.gradient(y), risk.hessian(y)


@eqx.filter_jit
def by_pairs(risk, params):
    return risk(params), gradient_of(risk, params), hessian_of(risk, params)


@eqx.filter_jit
def by_quadrature(problem, params):
    return problem.risk(params), jax.grad(problem.risk)(params)


@eqx.filter_jit
def slack(risk, u):
    return risk.slack(u)


def assert_exact(eta, bandwidth, a, u):
    """To rounding; a gradient has terms of size |a|^2, a Hessian |a|^2 / eta^2."""
    activation, target = activation_and_target(eta)
    params = tts.Params(jnp.asarray(a, float), jnp.asarray(u, float))
    value, gradient, blocks = by_cells(risk_of(eta, bandwidth), cells_of(a, u))
    expected, slopes, hessian = by_pairs(PairwiseRisk(activation, target), params)
    problem = tts.Problem(tts.ShallowNetwork(activation), target)
    integral, integral_slopes = by_quadrature(problem, params)
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(value, integral, rtol=1e-12, atol=1e-12)
    by_a = np.cumsum(np.asarray(gradient.c)[::-1])[::-1]
    for wanted in (slopes, integral_slopes):
        np.testing.assert_allclose(by_a, wanted.a, rtol=0, atol=1e-11)
        np.testing.assert_allclose(gradient.u, wanted.u, rtol=0, atol=1e-11)
    largest = max(float(np.max(np.abs(block))) for block in hessian)
    for found, block in zip(dense(blocks), hessian, strict=True):
        np.testing.assert_allclose(found, block, rtol=0, atol=1e-12 * largest)


@pytest.mark.thorough
@places
@pytest.mark.parametrize("more", [0, 1, WIDTH], ids=["needed", "one more", "all"])
def test_value_gradient_and_hessian_are_those_of_all_pairs(u, needed, more):
    """With the bandwidth that is needed, one more, and the largest."""
    assert_exact(ETA, min(needed + more, WIDTH - 1), WEIGHTS, u)


@places
def test_there_is_slack_from_the_bandwidth_on_that_is_needed(u, needed):
    if u == EVERYWHERE["touching"][0]:
        return  # By a rounding or not: it makes no difference.
    for bandwidth in range(WIDTH):
        found = float(slack(risk_of(ETA, bandwidth), jnp.asarray(u)))
        assert (found >= 0.0) == (bandwidth >= needed)


@pytest.mark.parametrize("eta", [4e-3, 0.03, 0.3, 0.7, 1.5])
@pytest.mark.parametrize("name", ["apart", "coincident", "crossed", "cut by both", "outside"])
def test_they_are_exact_at_any_width_of_the_steps(eta, name):
    """From 1 on a step is cut by 0 and 1 at once."""
    place = EVERYWHERE.get(name, OUTSIDE["some outside, some cut"])[0]
    assert_exact(eta, WIDTH - 1, WEIGHTS, place)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "u",
    [
        *([u] for u in (0.5, 0.27, 0.01, 0.0, -0.05, -0.3, 0.99, 1.0, 1.05, 1.3)),
        *([0.3, 0.34], [0.34, 0.3], [-0.02, 0.01], [1.01, 0.99], [0.02, 0.98], [-1.0, 2.0]),
        *([1.3, -0.1], [-0.02, 0.5, 1.01], [0.4, 0.4, 0.4], [1.2, 0.5, -0.2], [-0.1, -0.2, 0.03]),
    ],
)
def test_they_are_exact_for_up_to_three_neurons(u):
    """With the bandwidth of all of them; one neuron has none."""
    assert_exact(ETA, len(u) - 1, WEIGHTS[: len(u) + 1], u)


# What a limited bandwidth asks of the positions, by brute force.


def outside(u, eta):
    """Neurons that no other with a lower (from the right: higher) index has inside."""
    unseen_left, unseen_right = u <= -eta / 2, u >= 1 + eta / 2
    first = np.argmax(~unseen_left) if not unseen_left.all() else u.size
    last = u.size - 1 - np.argmax(~unseen_right[::-1]) if not unseen_right.all() else -1
    index = np.arange(u.size)
    return (index < first) | (index > last)


def least_gap(u, eta, bandwidth):
    """The least distance, in order, of neurons further apart by index than that, less eta."""
    seen = np.clip(u, -eta / 2, 1 + eta / 2)
    exempt = outside(u, eta)
    gaps = [
        seen[j] - seen[i] - eta
        for i, j in itertools.combinations(range(u.size), 2)
        if j - i > bandwidth and not exempt[i] and not exempt[j]
    ]
    return min(gaps, default=np.inf)


def roughly_sorted(seed, width):
    """Positions from 0 to 1 and beyond, of which some cross; also what eta would suit them."""
    rng = np.random.default_rng(seed)
    u = np.sort(rng.uniform(-rng.uniform(0, 0.4), 1 + rng.uniform(0, 0.4), width))
    u += rng.normal(scale=rng.choice([0.0, 0.02, 0.1]), size=width)
    u[rng.integers(width)] = u[rng.integers(width)]
    return u, 10 ** rng.uniform(-2.4, -0.5)


@pytest.mark.parametrize(
    ("width", "bandwidth"), [(12, 2), (12, 5), (12, 11), (7, 3), (3, 1), (2, 0)]
)
def test_there_is_slack_where_no_pair_beyond_the_bandwidth_is_closer_than_eta(width, bandwidth):
    signs = []
    for seed in range(150):
        u, eta = roughly_sorted(seed, width)
        gap = least_gap(u, eta, bandwidth)
        assert abs(gap) > 1e-12
        found = float(slack(risk_of(eta, bandwidth), jnp.asarray(u)))
        assert (found >= 0.0) == (gap >= 0.0)
        signs.append(gap >= 0.0)
        if 0.0 <= gap < 1.0 and not np.any(outside(u, eta)):
            # More than the least gap never: what is far is a sum of what is near.
            assert found == pytest.approx(gap, abs=1e-12)
    assert bandwidth == width - 1 or 5 < sum(signs) < 145


@pytest.mark.thorough
@pytest.mark.parametrize(("width", "bandwidth"), [(7, 1), (12, 3)])
def test_where_there_is_slack_the_risk_is_exact(width, bandwidth):
    weights = np.random.default_rng(width).normal(size=width + 1)
    held = cut = gone = 0
    for seed in range(120):
        u, eta = roughly_sorted(seed, width)
        if float(slack(risk_of(eta, bandwidth), jnp.asarray(u))) < 0.0:
            continue
        assert_exact(eta, bandwidth, weights, u)
        held += 1
        cut += bool(np.any(np.abs(np.concatenate([u, u - 1])) < eta / 2))
        gone += bool(np.any((u < -eta / 2) | (u > 1 + eta / 2)))
    assert min(held, cut, gone) > 10


def test_without_slack_the_risk_may_be_wrong():
    """So that the tests of the bandwidth do see it."""
    u = EVERYWHERE["three closer than eta"][0]
    with pytest.raises(AssertionError):
        assert_exact(ETA, 1, WEIGHTS, u)


@FEW
@given(
    a=st.lists(st.floats(-3.0, 3.0), min_size=WIDTH + 1, max_size=WIDTH + 1),
    u=st.lists(st.floats(-0.2, 1.2), min_size=WIDTH, max_size=WIDTH),
    eta=st.floats(0.004, 0.4),
)
def test_with_the_largest_bandwidth_they_are_exact_wherever_hypothesis_puts_the_neurons(a, u, eta):
    assert_exact(eta, WIDTH - 1, a, u)


@FEW
@given(
    u=st.lists(st.floats(-0.2, 1.2), min_size=WIDTH, max_size=WIDTH).map(sorted),
    eta=st.floats(0.004, 0.4),
    bandwidth=st.sampled_from([1, 2]),
)
def test_in_order_they_are_exact_if_there_is_slack(u, eta, bandwidth):
    if float(slack(risk_of(eta, bandwidth), jnp.asarray(u))) >= 0.0:
        assert_exact(eta, bandwidth, WEIGHTS, u)


# Derivatives by autodiff: what the derivative of a run asks for.

# None on a jump, at 0 or 1 or where a step begins to be seen: there a third derivative jumps, and
# what is outside is cut off. No more than 3 pairs, so that one program does for all.
REACH = 3
SMOOTH = {
    name: (np.asarray(u) + 1.7e-3, needed)
    for name, (u, needed) in EVERYWHERE.items()
    if needed <= REACH
}
smooth = pytest.mark.parametrize("u", [u for u, _ in SMOOTH.values()], ids=SMOOTH)


@eqx.filter_jit
def slopes_of_the_value(risk, y):
    return jax.grad(risk)(y), jax.jacfwd(risk)(y)


@pytest.mark.thorough
@smooth
def test_the_gradient_is_that_of_the_value(u):
    risk, y = risk_of(ETA, REACH), cells_of(WEIGHTS, u)
    found = by_cells(risk, y)[1]
    for slopes in slopes_of_the_value(risk, y):
        np.testing.assert_allclose(slopes.c, found.c, rtol=0, atol=1e-11)
        np.testing.assert_allclose(slopes.u, found.u, rtol=0, atol=1e-11)


PULL = np.random.default_rng(1).normal(size=2 * WIDTH + 1)
NUMBERS = ("eta", "jumps", "values", "c", "u")


@eqx.filter_jit
def pulled(numbers, share):
    """Of the gradient and of the Hessian, one number of all that they depend on."""
    eta, jumps, values, c, u = numbers
    risk, y = risk_of(eta, REACH, (jumps, values)), CellState(c, u)
    by_c, by_u = risk.gradient(y)
    bend = sum(jnp.sum(rows**2) for rows in risk.hessian(y))
    return PULL[: WIDTH + 1] @ by_c + PULL[WIDTH + 1 :] @ by_u + share * bend


pulled_back = eqx.filter_jit(jax.grad(pulled))


@eqx.filter_jit
def pushed(numbers, share, direction):
    return jax.jvp(lambda numbers: pulled(numbers, share), (numbers,), (direction,))


@pytest.mark.thorough
@smooth
@pytest.mark.parametrize("share", [0.0, 1e-4], ids=["gradient", "Hessian too"])
def test_their_derivatives_are_those_of_finite_differences(share, u):
    """Forward and reverse, by the positions and cells, eta and the target, one after the other."""
    numbers = (jnp.asarray(ETA), *(jnp.asarray(v) for v in TARGET), *cells_of(WEIGHTS, u))
    share, h, rng = jnp.asarray(share), 1e-6, np.random.default_rng(2)
    slopes = pulled_back(numbers, share)
    for k in range(len(numbers)):
        direction = tuple(
            jnp.asarray(rng.normal(size=leaf.shape) * (i == k)) for i, leaf in enumerate(numbers)
        )
        above, below = (
            pulled(jax.tree.map(lambda n, d, s=s: n + s * h * d, numbers, direction), share)
            for s in (1, -1)
        )
        difference = float(above - below) / (2 * h)
        along = float(jnp.sum(slopes[k] * direction[k]))
        scale = max(abs(difference), float(jnp.max(jnp.abs(slopes[k]))), 1.0)
        assert along == pytest.approx(difference, abs=2e-6 * scale), NUMBERS[k]
        tangent = float(pushed(numbers, share, direction)[1])
        assert tangent == pytest.approx(along, abs=1e-10 * scale), NUMBERS[k]


@pytest.mark.thorough
def test_a_batch_some_of_which_are_cut_equals_one_by_one():
    risk = risk_of(ETA, REACH)
    us = [u for u, _ in SMOOTH.values()]
    batch = jax.vmap(lambda u: cells_of(WEIGHTS, u))(jnp.asarray(us))
    values, gradients, blocks = eqx.filter_jit(
        jax.vmap(lambda y: (risk(y), risk.gradient(y), risk.hessian(y)))
    )(batch)
    slacks = jax.vmap(risk.slack)(batch.u)
    for i, u in enumerate(us):
        value, gradient, single = by_cells(risk, cells_of(WEIGHTS, u))
        np.testing.assert_allclose(values[i], value, rtol=1e-13)
        np.testing.assert_allclose(gradients.c[i], gradient.c, rtol=0, atol=1e-13)
        np.testing.assert_allclose(gradients.u[i], gradient.u, rtol=0, atol=1e-13)
        np.testing.assert_allclose(slacks[i], risk.slack(jnp.asarray(u)), rtol=1e-14)
        for found, wanted in zip(blocks, single, strict=True):
            np.testing.assert_allclose(found[i], wanted, rtol=0, atol=1e-10)
