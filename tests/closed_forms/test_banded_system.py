"""The flows of wide networks, by cells, against the same by all pairs of neurons."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import quickly

import tts_jax as tts
from tts_jax.closed_forms import banded_system as cell_descent
from tts_jax.closed_forms.banded import BandedRisk, CellState
from tts_jax.closed_forms.banded_system import BandedGradientSystem, from_cells, to_cells
from tts_jax.closed_forms.pairwise import PairwiseRisk, PairwiseState, params_of, state_of
from tts_jax.closed_forms.pairwise_system import PairwiseGradientSystem
from tts_jax.integrators import loop
from tts_jax.integrators.step_size import StepControl
from tts_jax.problems import population

WIDTH = 40
"""A width that is made to go by cells here; with bandwidths of 8, 16, 32 and 39."""


@pytest.fixture(autouse=True, scope="module")
def wide_from_here_on():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(population, "_BANDED_FROM", WIDTH)
        yield


JUMPS, VALUES = np.asarray([0.3, 0.65]), np.asarray([1.0, 3.0, 0.5])
RTOL, ATOL = 1e-10, 1e-12

EVEN = (np.arange(WIDTH) + 0.5) / WIDTH
RANDOM = np.sort(np.random.default_rng(0).uniform(size=WIDTH))
WEIGHTS = 0.3 * np.random.default_rng(1).normal(size=WIDTH + 1)

# eta, epsilon, the places and the last time.
BLOCK_RUNS = {
    "narrow steps": (0.02, 1.0, RANDOM, 0.05),
    "small epsilon": (0.02, 1e-4, RANDOM, 0.05),
    "wide steps": (0.3, 1.0, RANDOM, 0.2),
    "steps wider than the interval": (1.3, 0.1, EVEN, 0.1),
    "more and more overlap": (0.2, 0.1, EVEN, 0.3),
    "all together": (0.02, 0.1, 0.4 + 0.01 * RANDOM, 0.2),
    "all together, wide steps": (0.3, 1.0, 0.45 + 0.1 * EVEN, 0.5),
    "outside": (0.05, 1.0, 1.6 * RANDOM - 0.3, 0.3),
    "all cut by 1": (0.3, 1.0, 0.86 + 0.28 * EVEN, 0.2),
}


def problem_of(eta, jumps=JUMPS, values=VALUES):
    target = tts.PiecewiseConstant(jumps, values)
    return tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta)), target)


def make_params(a, u):
    return tts.Params(jnp.asarray(a, float), jnp.asarray(u, float))


def numbers_of(eta=0.02, epsilon=1.0, u=RANDOM, a=WEIGHTS):
    numbers = {"eta": eta, "epsilon": epsilon, "jumps": JUMPS, "values": VALUES, "a": a, "u": u}
    return {name: jnp.asarray(number, float) for name, number in numbers.items()}


def times(last):
    return jnp.linspace(0.0, last, 6)


def flow_of(numbers, taus):
    problem = problem_of(numbers["eta"], numbers["jumps"], numbers["values"])
    flow = tts.GradientFlow(numbers["epsilon"], rtol=RTOL, atol=ATOL, max_steps=4096)
    return tts.simulate(problem, flow, tts.Params(numbers["a"], numbers["u"]), taus)


by_cells = quickly(flow_of)


def step_risk(eta):
    return PairwiseRisk(tts.CubicStep(jnp.asarray(eta)), tts.PiecewiseConstant(JUMPS, VALUES))


def by_pairs(eta, epsilon, params, last, ridge=0.0):
    """(T, m+1) weights and (T, m) positions."""
    system = PairwiseGradientSystem(step_risk(eta), jnp.asarray(epsilon), jnp.asarray(ridge))
    ys, now = run_by_pairs(system, params, times(last))
    assert float(now.t) == last
    return ys


@eqx.filter_jit
def run_by_pairs(system, params, taus):
    control = StepControl(taus[-1], jnp.asarray(RTOL), jnp.asarray(ATOL), jnp.asarray(4096))
    records, now = loop.run(system, state_of(params), taus, control)
    return params_of(records.ys), now


@quickly
def quadrature(problem, params):
    return jax.lax.map(problem.risk, params)


def needed_bandwidth(u, eta):
    """Of neurons in order, how far apart by index two of them are that overlap inside [0, 1]."""
    u = np.sort(u)
    u = u[(u > -eta / 2) & (u < 1 + eta / 2)]
    near = np.abs(u[:, None] - u[None, :]) < eta
    index = np.arange(u.size)
    return int(np.max(near * np.abs(index[:, None] - index[None, :])))


@pytest.mark.thorough
@pytest.mark.parametrize("name", BLOCK_RUNS)
def test_the_run_is_that_by_all_pairs(name):
    eta, epsilon, u, last = BLOCK_RUNS[name]
    run = by_cells(numbers_of(eta, epsilon, u), times(last))
    expected = by_pairs(eta, epsilon, make_params(WEIGHTS, u), last)
    assert run.status == tts.Status.OK
    np.testing.assert_allclose(run.params.u, expected.u, rtol=0, atol=1e-9)
    np.testing.assert_allclose(run.params.a, expected.a, rtol=0, atol=1e-8)
    risks = quadrature(problem_of(jnp.asarray(eta)), run.params)
    np.testing.assert_allclose(run.risk, risks, rtol=0, atol=1e-11)


@pytest.mark.thorough
def test_runs_go_through_every_bandwidth_and_out_of_the_interval():
    """So that the runs above do test what they are for."""
    first, last, left = {}, {}, set()
    for name, (eta, epsilon, u, end) in BLOCK_RUNS.items():
        us = np.asarray(by_cells(numbers_of(eta, epsilon, u), times(end)).params.u)
        first[name], last[name] = (needed_bandwidth(us[i], eta) for i in (0, -1))
        if np.any((us[-1] < 0) | (us[-1] > 1)) and np.all((us[0] > 0) & (us[0] < 1)):
            left.add(name)
    assert first["narrow steps"] < 8
    assert first["more and more overlap"] <= 8 < last["more and more overlap"]
    assert last["all together"] < 32 < first["all together"] == WIDTH - 1
    assert first["steps wider than the interval"] == WIDTH - 1
    assert left >= {"narrow steps", "wide steps", "more and more overlap"}


@pytest.mark.thorough
def test_the_run_is_that_of_another_method_on_the_quadrature():
    """An explicit one of diffrax, by autodiff of the integral."""
    numbers, taus = numbers_of(0.2, 1.0, 1.1 * EVEN - 0.05), times(0.05)
    run = by_cells(numbers, taus)

    @quickly
    def explicit(params):
        flow = tts.GradientFlow(1.0, rtol=1e-8, atol=1e-10, solver=diffrax.Tsit5())
        return tts.simulate(problem_of(0.2), flow, params, taus)

    other = explicit(tts.Params(numbers["a"], numbers["u"]))
    assert run.status == other.status == tts.Status.OK
    np.testing.assert_allclose(run.params.u, other.params.u, rtol=0, atol=1e-6)
    np.testing.assert_allclose(run.params.a, other.params.a, rtol=0, atol=1e-6)
    np.testing.assert_allclose(run.risk, other.risk, rtol=0, atol=1e-6)


@pytest.mark.thorough
def test_a_start_in_another_order_gives_the_same_run_in_that_order():
    order = np.random.default_rng(2).permutation(WIDTH)
    run = by_cells(numbers_of(), times(0.05))
    shuffled = [WEIGHTS[0], *WEIGHTS[1:][order]]
    other = by_cells(numbers_of(u=RANDOM[order], a=shuffled), times(0.05))
    np.testing.assert_allclose(other.at(0).a, shuffled, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(other.at(0).u, RANDOM[order])
    np.testing.assert_array_equal(other.params.u, run.params.u[:, order])
    np.testing.assert_array_equal(other.params.a[:, 0], run.params.a[:, 0])
    np.testing.assert_array_equal(other.params.a[:, 1:], run.params.a[:, 1:][:, order])
    np.testing.assert_array_equal(other.risk, run.risk)


@pytest.mark.slow
def test_runs_of_a_batch_are_the_runs_alone():
    """One with narrow steps, one that needs the largest bandwidth."""
    each = [numbers_of(), numbers_of(0.3, 0.1, 0.45 + 0.1 * EVEN)]
    together = quickly(jax.vmap(flow_of, (0, None)))(stacked(each), times(0.05))
    for i, numbers in enumerate(each):
        alone = by_cells(numbers, times(0.05))
        assert together.status[i] == tts.Status.OK
        assert together.stats["steps"][i] == alone.stats["steps"]
        np.testing.assert_allclose(together.params.u[i], alone.params.u, rtol=0, atol=1e-11)
        np.testing.assert_allclose(together.params.a[i], alone.params.a, rtol=0, atol=1e-11)
        np.testing.assert_allclose(together.risk[i], alone.risk, rtol=0, atol=1e-11)


def stacked(each):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


# One bandwidth for all steps takes a third of the time to compile. What is traced with it has a
# width of its own, since JAX keeps what it has traced.
OTHER = 42


@pytest.fixture
def one_bandwidth(monkeypatch):
    monkeypatch.setattr(cell_descent, "_BANDWIDTHS", (8,))


@pytest.mark.thorough
@pytest.mark.usefixtures("one_bandwidth")
def test_runs_of_a_batch_are_those_by_all_pairs():
    a = 0.3 * np.random.default_rng(1).normal(size=OTHER + 1)
    u = (np.arange(OTHER) + 0.5) / OTHER
    cases = [(0.02, 1.0, u), (0.1, 0.1, 0.02 + u)]
    batch = stacked([numbers_of(*case, a) for case in cases])
    together = quickly(jax.vmap(flow_of, (0, None)))(batch, times(0.05))
    for i, (eta, epsilon, u) in enumerate(cases):
        expected = by_pairs(eta, epsilon, make_params(a, u), 0.05)
        assert together.status[i] == tts.Status.OK
        np.testing.assert_allclose(together.params.u[i], expected.u, rtol=0, atol=1e-9)
        np.testing.assert_allclose(together.params.a[i], expected.a, rtol=0, atol=1e-8)


# The reduced flow.

RIDGE = 1e-6


@pytest.fixture(scope="module")
def reduced():
    """The only run of its kind: with one bandwidth."""

    @quickly
    def run(eta, start):
        flow = tts.ReducedFlow(rtol=RTOL, atol=ATOL, ridge=RIDGE)
        return tts.simulate(problem_of(eta), flow, start, times(0.01))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_descent, "_BANDWIDTHS", (8,))
        return run(jnp.asarray(0.02), make_params(WEIGHTS, EVEN[::-1]))


@pytest.mark.thorough
def test_the_reduced_flow_is_that_by_all_pairs(reduced):
    expected = by_pairs(0.02, 0.0, reduced.at(0), 0.01, ridge=RIDGE)
    assert reduced.status == tts.Status.OK
    np.testing.assert_allclose(reduced.params.u, expected.u, rtol=0, atol=1e-8)
    np.testing.assert_allclose(reduced.params.a, expected.a, rtol=0, atol=1e-6)


@pytest.mark.thorough
def test_the_reduced_flow_records_the_best_outer_layer(reduced):
    problem = problem_of(jnp.asarray(0.02))
    best = quickly(jax.vmap(lambda u: problem.best_outer(u, ridge=RIDGE)))(reduced.params.u)
    np.testing.assert_allclose(reduced.params.a, best, rtol=0, atol=1e-6)
    risks = quadrature(problem, reduced.params)
    np.testing.assert_allclose(reduced.risk, risks, rtol=0, atol=1e-11)


@pytest.mark.thorough
def test_the_gradient_flow_tends_to_the_reduced_one(reduced):
    state_of = []
    for epsilon in (1e-4, 1e-5):
        start = reduced.at(0)
        run = by_cells(numbers_of(0.02, epsilon, start.u, start.a), times(0.01))
        state_of.append(float(np.max(np.abs(run.params.u - reduced.params.u))))
    assert state_of[1] < 0.2 * state_of[0] < 1e-3


# Derivatives of the final risk.


def final_risk(numbers, taus):
    return flow_of(numbers, taus).risk[-1]


reverse = quickly(jax.grad(final_risk))


@quickly
def forward(numbers, direction, taus):
    """The final risk and its derivative along a direction."""
    return jax.jvp(lambda numbers: final_risk(numbers, taus), (numbers,), (direction,))


def assert_derivatives(numbers, taus):
    """By each of the numbers along a direction, in reverse and forward.

    A derivative is that at the steps taken, a difference has other steps: 1e-6 apart, as by pairs.
    """
    slopes, h = reverse(numbers, taus), 1e-5
    rng = np.random.default_rng(3)
    for name, number in numbers.items():
        only = {other: jnp.zeros_like(value) for other, value in numbers.items()}
        direction = {**only, name: jnp.asarray(rng.normal(size=number.shape))}
        above, below = (
            forward(jax.tree.map(lambda n, d, s=s: n + s * h * d, numbers, direction), only, taus)
            for s in (1, -1)
        )
        difference = float(above[0] - below[0]) / (2 * h)
        along = float(jnp.sum(slopes[name] * direction[name]))
        assert abs(difference) > 1e-3, name
        assert along == pytest.approx(difference, rel=1e-5, abs=1e-6), name
        tangent = float(forward(numbers, direction, taus)[1])
        assert tangent == pytest.approx(along, rel=1e-9), name


@pytest.mark.thorough
@pytest.mark.usefixtures("one_bandwidth")
@pytest.mark.parametrize(
    ("eta", "places", "last"),
    [(0.03, np.arange(OTHER), 0.01), (0.1, 1.12 * np.roll(np.arange(OTHER), 7) - 2.5, 0.02)],
    ids=["narrow steps", "several cut, in another order"],
)
def test_derivatives_are_those_of_finite_differences(eta, places, last):
    u = (places + 0.5) / OTHER + 0.003 * np.sin(places)
    a = 0.3 * np.random.default_rng(1).normal(size=OTHER + 1)
    assert_derivatives(numbers_of(eta, 0.7, u, a), times(last))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["narrow steps", "wide steps", "all together", "all cut by 1"])
def test_derivatives_are_those_of_finite_differences_at_every_bandwidth(name):
    eta, epsilon, u, last = BLOCK_RUNS[name]
    assert_derivatives(numbers_of(eta, epsilon, u), times(0.1 * last))


# The system by itself.

NARROW = 7
SUMS = np.tril(np.ones((NARROW + 1, NARROW + 1)))


@eqx.filter_jit
def parts(system, y, other, shift):
    error = system.error_norm(other, y, y, jnp.asarray(1e-8), jnp.asarray(1e-10))
    solved = system.factorise(y, shift)(other)
    return system.vector_field(y), system.apply_mass(y), system.velocity(y), error, solved


def by_layers(dense, params, other, shift):
    """`parts` of a `PairwiseGradientSystem`, as parameters."""
    found = parts(dense, state_of(params), state_of(other), shift)
    return [params_of(part) if isinstance(part, PairwiseState) else part for part in found]


@pytest.mark.thorough
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize(
    ("u", "bandwidth"),
    [
        ([0.12, 0.11, 0.25, 0.5, 0.52, 0.8, 0.85], 2),
        ([-0.2, 0.01, 0.03, 0.5, 0.97, 1.02, 1.2], 2),
        ([0.4, 0.38, 0.41, 0.45, 0.4, 0.39, 0.42], NARROW - 1),
    ],
    ids=["pairs", "cut and outside", "together"],
)
def test_the_system_is_that_by_all_pairs_in_other_coordinates(u, bandwidth, epsilon):
    """Of c = S a: what is by a is S^T what is by c, and the matrix of a step as well."""
    rng = np.random.default_rng(4)
    a, r_a, r_u = rng.normal(size=NARROW + 1), rng.normal(size=NARROW + 1), rng.normal(size=NARROW)
    risk = step_risk(0.1)
    numbers = (jnp.asarray(epsilon), jnp.asarray(0.02))
    ours = BandedGradientSystem(BandedRisk(risk.activation, risk.target, bandwidth), *numbers)
    y, other = (CellState(jnp.asarray(SUMS @ v), jnp.asarray(w)) for v, w in ((a, u), (r_a, r_u)))
    # A force by c for the solve, a state for the error: these numbers serve as both.
    shift = jnp.asarray(30.0)
    vector_field, apply_mass, velocity, error, solved = parts(ours, y, other, shift)
    dense = PairwiseGradientSystem(risk, *numbers)
    wanted = by_layers(dense, make_params(a, u), make_params(r_a, r_u), shift)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
    for found, expected in zip((vector_field, apply_mass), wanted, strict=False):
        close(SUMS.T @ np.asarray(found.c), expected.a)
        close(found.u, expected.u)
    close(velocity.c, SUMS @ np.asarray(wanted[2].a))
    close(velocity.u, wanted[2].u)
    close(error, wanted[3])
    by_a = make_params(SUMS.T @ np.asarray(other.c), r_u)
    expected = by_layers(dense, make_params(a, u), by_a, shift)[4]
    close(solved.c, SUMS @ np.asarray(expected.a), atol=1e-9)
    close(solved.u, expected.u, atol=1e-9)


def test_cells_and_parameters_are_one_to_one():
    rng = np.random.default_rng(5)
    params = make_params(rng.normal(size=6), [0.5, 0.1, 0.9, 0.1, 0.3])
    cells, order = to_cells(params)
    np.testing.assert_array_equal(cells.u, np.sort(np.asarray(params.u)))
    # The value of a network of sharp steps between its neurons.
    middle = 0.5 * (np.asarray(cells.u)[2:-1] + np.asarray(cells.u)[3:])
    heights = [params.a[0] + params.a[1:] @ np.asarray(params.u < x, float) for x in middle]
    np.testing.assert_allclose(cells.c[3:-1], heights, rtol=1e-14)
    back = from_cells(jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), cells), order)
    np.testing.assert_allclose(back.a, [params.a, 2 * params.a], rtol=0, atol=1e-15)
    np.testing.assert_array_equal(back.u, [params.u, 2 * params.u])


# More neurons in one place than the largest bandwidth.


@pytest.fixture(scope="module")
def crowded():
    """Runs with a bandwidth of 14 at most, and one neuron more than the others, so that no other
    test has the same programs."""
    even = (np.arange(WIDTH + 1) + 0.5) / (WIDTH + 1)
    weights = jnp.asarray([*WEIGHTS, 0.2])

    @quickly
    def run(u):
        slow = tts.GradientFlow(1.0, max_steps=4096)
        return tts.simulate(problem_of(0.2), slow, tts.Params(weights, u), times(0.01))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_descent, "_BANDWIDTHS", (14,))
        return {name: run(jnp.asarray(s * even)) for name, s in (("start", 0.1), ("way", 0.6))}


def right_or_nan(run):
    risks = quadrature(problem_of(jnp.asarray(0.2)), run.params)
    np.testing.assert_allclose(np.where(np.isnan(run.risk), risks, run.risk), risks, atol=1e-10)


@pytest.mark.thorough
def test_a_start_that_is_too_crowded_stops_there_and_says_so(crowded):
    run = crowded["start"]
    assert needed_bandwidth(run.at(0).u, 0.2) > 14
    assert run.status == tts.Status.CROWDED
    np.testing.assert_array_equal(run.valid, np.arange(6) == 0)


def test_a_start_that_is_too_crowded_has_no_wrong_risk(crowded):
    right_or_nan(crowded["start"])


@pytest.mark.thorough
def test_a_run_that_gets_too_crowded_keeps_what_it_has(crowded):
    run = crowded["way"]
    reached = int(np.sum(run.valid))
    assert 1 < reached < 6
    assert needed_bandwidth(run.at(0).u, 0.2) <= 14
    expected = by_pairs(0.2, 1.0, run.at(0), 0.01)
    np.testing.assert_allclose(run.params.u[:reached], expected.u[:reached], rtol=0, atol=1e-6)
    assert needed_bandwidth(expected.u[reached], 0.2) > 14
    right_or_nan(run)


@pytest.mark.thorough
def test_a_run_that_gets_too_crowded_says_so(crowded):
    assert crowded["way"].status == tts.Status.CROWDED


@pytest.mark.slow
@pytest.mark.parametrize(("width", "expected"), [(513, "MAX_STEPS"), (514, "CROWDED")])
def test_more_than_a_bandwidth_of_512_within_eta_is_too_crowded(width, expected):
    start = make_params(0.01 * np.ones(width + 1), np.linspace(0.4, 0.45, width))
    flow = tts.GradientFlow(1.0, max_steps=2)
    run = tts.simulate(problem_of(0.1), flow, start, times(0.1), throw=False)
    assert tts.Status(int(run.status)).name == expected
