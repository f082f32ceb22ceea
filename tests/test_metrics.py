"""Metrics on parameters and trajectories whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import tts_jax as tts
from tts_jax import metrics

TARGET = tts.PiecewiseConstant([0.3, 0.6], [1.0, 3.0, 2.0])
NETWORK = tts.ShallowNetwork(tts.CubicStep(0.01))
PROBLEM = tts.Problem(NETWORK, TARGET)


def record(u, risk=None, a=None, taus=None):
    """A trajectory with given positions (T, m)."""
    u = np.asarray(u, float)
    count, width = u.shape
    return tts.Trajectory(
        jnp.arange(count, dtype=float) if taus is None else jnp.asarray(taus, float),
        tts.Params(jnp.zeros((count, width + 1)) if a is None else jnp.asarray(a), jnp.asarray(u)),
        jnp.zeros(count) if risk is None else jnp.asarray(risk, float),
        jnp.zeros((), jnp.int32),
        {},
        method="made up",
    )


def test_the_nearest_neuron_of_each_jump_with_any_leading_axes():
    u = jnp.asarray([[0.7, 0.25, 0.32], [0.0, 1.0, 0.6]])
    expected = [[0.02, 0.1], [0.3, 0.0]]
    np.testing.assert_allclose(metrics.nearest_neuron(u, TARGET), expected, atol=1e-15)
    np.testing.assert_allclose(metrics.nearest_neuron(u[0], TARGET), expected[0], atol=1e-15)


def test_a_jump_is_covered_by_a_neuron_within_half_a_width():
    u = jnp.asarray([[0.26, 0.9], [0.2499, 0.64], [0.35, 0.6]])
    found = metrics.covered(u, TARGET, eta=0.09)
    np.testing.assert_array_equal(found, [[True, False], [False, True], [False, True]])


def test_the_floor_is_eta_times_the_sum_of_squares_over_28(problem):
    np.testing.assert_allclose(floor_of(problem), 0.008, rtol=1e-13)
    np.testing.assert_allclose(floor_of(PROBLEM), 0.01 * (4 + 1) / 28, rtol=1e-12)


def floor_of(problem):
    return jax.jit(lambda: metrics.floor(problem))()


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        # int over all z of (sigma - [z > 0] (high - low) - low)^2 dz, per height squared.
        (tts.Logistic, 2 * np.log(2) - 1),
        (tts.Tanh, (2 * np.log(2) - 1) / 2),
        (tts.Erf, (2 - np.sqrt(2)) / np.sqrt(np.pi) / 2),
    ],
)
def test_the_floor_of_smooth_steps(activation, expected):
    smooth = tts.Problem(tts.ShallowNetwork(activation(2e-3)), TARGET)
    np.testing.assert_allclose(floor_of(smooth), 2e-3 * 5 * expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (tts.Problem(NETWORK, tts.Function(jnp.sin)), "`problem.target` must be a PiecewiseConst"),
        (tts.Problem(tts.ShallowNetwork(tts.ReLU()), TARGET), "`problem.network` must be a"),
        (
            tts.Problem(tts.ShallowNetwork(tts.CubicStep(0.1), bias=False), TARGET),
            "`problem.network` must be a ShallowNetwork of steps with a bias",
        ),
    ],
)
def test_there_is_no_floor_without_steps(problem, reason):
    with pytest.raises(ValueError, match=reason):
        metrics.floor(problem)


def test_recovered_is_below_a_multiple_of_the_floor():
    floor = 0.01 * 5 / 28
    risks = floor * jnp.asarray([[0.9, 2.4, 2.6]])
    found = jax.jit(lambda: metrics.recovered(risks, PROBLEM))()
    np.testing.assert_array_equal(found, [[True, True, False]])
    found = jax.jit(lambda: metrics.recovered(risks, PROBLEM, multiple=2.0))()
    np.testing.assert_array_equal(found, [[True, False, False]])


@pytest.mark.thorough
def test_what_misses_a_jump_has_not_recovered_the_target_where_eta_is_large(problem):
    """Neurons on all jumps but the one at 0.5 of the paper, beside neurons on all jumps."""
    jumps = np.asarray(problem.target.jumps)
    eta = 0.08
    wide = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta)), problem.target)

    def best(*more):
        u = jnp.asarray([*jumps[jumps != 0.5], 0.05, 0.95, *more])
        return wide.risk(tts.Params(wide.best_outer(u), u))

    assert not metrics.recovered(best(), wide)
    beside = [jump + part * eta for jump in jumps for part in (-0.45, -0.2, 0.2, 0.45)]
    assert metrics.recovered(best(*jumps, *beside), wide)


def test_an_untrained_network_has_not_recovered_a_narrow_pulse():
    eta = 0.05
    for width in (0.02 * eta, 0.1 * eta, 0.15 * eta, 0.5 * eta):
        pulse = tts.PiecewiseConstant([0.5, 0.5 + width], [0.0, 1.0, 0.0])
        narrow = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta)), pulse)
        untrained = narrow.risk(tts.Params(jnp.zeros(3), jnp.asarray([0.5, 0.5 + width])))
        assert float(untrained) == pytest.approx(width)
        assert not metrics.recovered(untrained, narrow)
        assert metrics.floor(narrow) < untrained


def test_the_threshold_is_half_of_the_cost_of_the_cheapest_jump_at_most():
    """Of pieces of lengths 0.3, 0.3 and 0.4 with jumps of 2 and 1: 4 * 0.15, and 12/70."""
    wide = tts.Problem(tts.ShallowNetwork(tts.CubicStep(0.9)), TARGET)
    assert float(metrics.recovery_threshold(wide)) == pytest.approx(0.5 * 0.12 / 0.7, rel=1e-12)
    assert float(metrics.recovery_threshold(PROBLEM)) == pytest.approx(2.5 * 0.01 * 5 / 28)


def test_a_jump_of_no_height_cannot_be_missed():
    flat = tts.PiecewiseConstant([0.3, 0.6], [1.0, 1.0, 2.0])
    one = tts.PiecewiseConstant([0.6], [1.0, 2.0])
    found = [metrics.recovery_threshold(tts.Problem(NETWORK, target)) for target in (flat, one)]
    assert float(found[0]) == pytest.approx(float(found[1]))


def test_positions_that_fill_up_do_not_count():
    """As in a sweep over widths, in memory or as an xarray object."""
    rows = [[0.31, 0.6, np.nan, np.nan], [0.1, 0.2, 0.3, 0.9], [np.nan] * 4]
    expected = [[True, True], [True, False], [False, False]]
    np.testing.assert_array_equal(metrics.covered(np.asarray(rows), TARGET, eta=0.03), expected)
    found = metrics.covered(xr.DataArray(rows, dims=("seed", "neuron")), TARGET, eta=0.03)
    np.testing.assert_array_equal(found, expected)
    turned = xr.DataArray(rows, dims=("seed", "neuron")).T
    np.testing.assert_array_equal(metrics.covered(turned, TARGET, eta=0.03), expected)
    np.testing.assert_allclose(metrics.nearest_neuron(rows[0], TARGET), [0.01, 0.0], atol=1e-15)
    assert np.all(np.isnan(metrics.nearest_neuron(rows[2], TARGET)))
    both = metrics.conserved_cubes(np.asarray([[0.1, 0.35, 0.5, 0.8, np.nan]]), TARGET)
    np.testing.assert_allclose(both, [[0.2**3 - 0.05**3, 0.1**3 - 0.2**3]])


def test_a_sweep_over_widths_is_covered_where_its_runs_are():
    grid = {"width": [4, 8], "seed": range(2)}
    data = tts.sweep(PROBLEM, tts.LimitFlow(), grid, [0.0, 1e-3])
    found = metrics.covered(data.u, TARGET, eta=0.2)
    for i, width in enumerate(grid["width"]):
        for seed in grid["seed"]:
            u = data.u.sel(width=width, seed=seed).values[:, :width]
            expected = np.min(np.abs(u[:, None, :] - np.asarray([[0.3], [0.6]])), -1) <= 0.1
            np.testing.assert_array_equal(found[i, seed], expected)


@pytest.mark.thorough
def test_metrics_of_batches_are_those_of_each_run():
    u = [[[0.1, 0.35, 0.5], [0.2, 0.3, 0.55]], [[0.05, 0.4, 0.9], [0.1, 0.5, 0.8]]]
    runs = [record(rows, risk=[1.0, 2.0 + i]) for i, rows in enumerate(u)]
    others = [record(0.9 * np.asarray(rows), risk=[1.5, 0.5]) for rows in u]
    batch, other = (jax.tree.map(lambda *v: jnp.stack(v), *rows) for rows in (runs, others))
    for whole, single in (
        (
            metrics.conserved_drift(batch, TARGET),
            [metrics.conserved_drift(r, TARGET) for r in runs],
        ),
        (metrics.slaving_gap(PROBLEM, batch), [metrics.slaving_gap(PROBLEM, r) for r in runs]),
        (
            metrics.covered(batch.params.u, TARGET, eta=0.1),
            [metrics.covered(r.params.u, TARGET, eta=0.1) for r in runs],
        ),
    ):
        np.testing.assert_allclose(whole, jnp.stack(single))
    for k, whole in enumerate(metrics.distance(batch, other)):
        single = [metrics.distance(*pair)[k] for pair in zip(runs, others, strict=True)]
        np.testing.assert_allclose(whole, jnp.stack(single))


def test_the_distance_of_two_runs_is_that_of_risks_and_of_the_farthest_neuron():
    first = record([[0.1, 0.2], [0.3, 0.4]], [5.0, 1.0])
    second = record([[0.1, 0.25], [0.0, 0.5]], [4.0, 3.0])
    by_risk, by_u = metrics.distance(first, second)
    np.testing.assert_allclose(by_risk, [1.0, 2.0])
    np.testing.assert_allclose(by_u, [0.05, 0.3])


@pytest.mark.parametrize("taus", [[0.0, 2.0], [0.0, 1.0, 2.0]])
def test_runs_on_different_clocks_have_no_distance(taus):
    other = record([[0.1]] * len(taus), taus=taus)
    with pytest.raises(ValueError, match="`second` must be recorded at the same taus as first"):
        metrics.distance(record([[0.1], [0.2]]), other)


def test_the_slaving_gap_is_the_excess_over_the_best_fit():
    """L is quadratic in a: moving a by d from its minimum costs d.H.d."""
    u = jnp.asarray([0.25, 0.4, 0.7])
    gram, moments = map(np.asarray, jax.jit(lambda: PROBLEM.normal_equations(u))())
    best = np.linalg.solve(gram, moments)
    moved = np.asarray([0.3, -1.0, 0.5, 2.0])
    a = np.stack([best, best + moved])
    risk = jax.jit(lambda row: PROBLEM.risk(tts.Params(row, u)))
    risks = [risk(jnp.asarray(row)) for row in a]
    trajectory = record(np.tile(u, (2, 1)), risks, a)
    found = jax.jit(lambda: metrics.slaving_gap(PROBLEM, trajectory))()
    np.testing.assert_allclose(found, [0.0, moved @ gram @ moved], rtol=1e-9, atol=1e-11)


def test_the_cubes_are_those_of_the_nearest_neurons_on_either_side():
    u = jnp.asarray([0.9, 0.1, 0.45, 0.2])
    expected = [0.1**3 - 0.15**3, 0.15**3 - 0.3**3]
    np.testing.assert_allclose(metrics.conserved_cubes(u, TARGET), expected, rtol=1e-12)


def test_the_drift_is_relative_to_the_width():
    u = np.asarray([[0.1, 0.45, 0.9], [0.2, 0.45, 0.9]])
    drift = metrics.conserved_drift(record(u), TARGET)
    np.testing.assert_allclose(drift[0], 0.0, atol=1e-15)
    np.testing.assert_allclose(drift[1], [27 * (0.1**3 - 0.2**3), 0.0], rtol=1e-12, atol=1e-15)
