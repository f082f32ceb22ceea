"""A sweep holds what `simulate` returns, run for run, whatever else is swept beside."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from small_problems import TRACED, CountedRamp, small_problem
from small_studies import (
    Apart,
    Drift,
    compilations,
    files,
    same,
    same_but_for_rounding,
    sessions,
    start_of,
)

import tts_jax as tts
from tts_jax.sweeps.storage.arrays import PENDING
from tts_jax.sweeps.storage.store import open_store
from tts_jax.sweeps.study.grid import stream
from tts_jax.sweeps.sweep import plan_of

TAUS = np.linspace(0.0, 0.3, 4)
FLOW = tts.GradientFlow(1.0, rtol=1e-6, atol=1e-8)
SGD = tts.SGD(0.05, 1e-3, noise=0.3)

# Few shapes, so that one program serves many checks: units of 14 flows, as in FLOW_STUDY, and of 9
# runs of SGD.
FLOW_GRID = {"epsilon": [0.1, 1.0], "eta": [0.08, 0.05], "seed": range(7), "width": 6}
SGD_GRID = {"epsilon": [0.05, 0.1], "seed": range(9), "width": 6}


def noise_key(seed: int, **coordinates):
    number = stream({**coordinates, "seed": seed})
    key = jax.random.fold_in(jax.random.key(seed), 1)
    key = jax.random.fold_in(key, np.uint32(number >> 32))
    return jax.random.fold_in(key, np.uint32(number % 2**32))


@pytest.mark.thorough
def test_a_flow_is_that_of_simulate_at_every_point():
    data = tts.sweep(small_problem(), FLOW, FLOW_GRID, TAUS)
    sizes = {"epsilon": 2, "eta": 2, "seed": 7, "tau": 4, "outer": 7, "neuron": 6}
    assert dict(data.sizes) == sizes
    for epsilon, eta, seed in ((0.1, 0.05, 2), (1.0, 0.08, 0)):
        problem = small_problem(eta=eta)
        flow = tts.GradientFlow(epsilon, rtol=1e-6, atol=1e-8)
        run = tts.simulate(problem, flow, start_of(seed, 6), jnp.asarray(TAUS))
        ours = data.sel(epsilon=epsilon, eta=eta, seed=seed)
        # Rounding only: the two are compiled as parts of other programs.
        assert np.allclose(ours.risk, run.risk, rtol=1e-10, atol=0)
        assert np.allclose(ours.u, run.params.u, rtol=0, atol=1e-11)
        assert np.allclose(ours.a, run.params.a, rtol=0, atol=1e-9)
        assert int(ours.steps) == int(run.stats["steps"])
        assert float(ours.floor) == pytest.approx(float(tts.metrics.floor(problem)))


@pytest.mark.thorough
def test_sgd_hears_the_stream_of_its_coordinates():
    data = tts.sweep(small_problem(), SGD, SGD_GRID, TAUS)
    sgd = tts.SGD(0.1, 1e-3, noise=0.3)
    key = noise_key(4, epsilon=0.1, width=6)
    run = tts.simulate(small_problem(), sgd, start_of(4, 6), jnp.asarray(TAUS), key=key)
    ours = data.sel(epsilon=0.1, seed=4)
    assert np.allclose(ours.u, run.params.u, rtol=0, atol=1e-10)
    assert np.allclose(ours.risk, run.risk, rtol=1e-8)
    # Another epsilon is not the same noise, faster.
    assert not np.allclose(ours.u, data.sel(epsilon=0.05, seed=4).u, atol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("dynamics", "grid"), [(FLOW, FLOW_GRID), (SGD, SGD_GRID)], ids=["flow", "sgd"]
)
def test_more_values_change_no_other_run(dynamics, grid):
    few = tts.sweep(small_problem(), dynamics, {**grid, "epsilon": [0.2, 0.1]}, TAUS)
    more = {**grid, "epsilon": [0.05, 0.1, 0.2], "seed": range(11)}
    many = tts.sweep(small_problem(), dynamics, more, TAUS)
    part = many.sel(epsilon=[0.1, 0.2], seed=grid["seed"])
    assert few.epsilon.values.tolist() == [0.1, 0.2]  # in order, however they were given
    if dynamics is SGD:
        assert same(few.drop_attrs(), part.drop_attrs())
    else:
        same_but_for_rounding(few, part)


def again(dynamics, grid, **options):
    """The grid with as many other numbers, everywhere, a second time."""
    other = {
        name: [3 * value for value in values] if name != "seed" else range(50, 50 + len(values))
        for name, values in grid.items()
        if name != "width"
    }
    problem = small_problem(eta=0.06, jumps=(0.25, 0.7), values=(0.0, 2.0, 1.0))
    return tts.sweep(problem, dynamics, {**grid, **other}, 0.5 * TAUS, **options)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::tts_jax.CoarseStepsWarning")
def test_other_numbers_compile_nothing():
    """Nor if another study comes between, with or without a store."""
    tts.sweep(small_problem(), FLOW, FLOW_GRID, TAUS)
    tts.sweep(small_problem(), SGD, SGD_GRID, TAUS)
    with compilations() as found:
        flows = again(tts.GradientFlow(1.0, rtol=1e-5, atol=1e-7), FLOW_GRID)
        sgd = again(tts.SGD(0.1, 2e-3, noise=0.1), SGD_GRID)
        tts.sweep(small_problem(), FLOW, FLOW_GRID, TAUS)
    assert found == []
    assert np.all(flows.status == 0)
    assert np.all(sgd.status == 0)


def test_other_numbers_of_a_target_compile_nothing(tmp_path):
    def swept(shift, **options):
        up = tts.PiecewiseConstant([0.4 + shift, 0.7], [shift, 1.0, 2.0])
        down = tts.PiecewiseConstant([0.5], [3.0 - shift, 0.0])
        grid = {"target": {"up": up, "down": down}, "seed": range(3), "width": 3}
        return tts.sweep(small_problem(), Drift(), grid, TAUS, **options)

    first = swept(0.1)
    with compilations() as found:
        second = swept(0.2)
        stored = swept(0.2, store=tmp_path / "s.zarr")
    assert found == []
    assert same(stored.load().drop_attrs(), second.drop_attrs())
    assert np.all(first.risk != second.risk)


def test_a_users_activation_is_traced_once():
    def swept(eta):
        problem = tts.Problem(tts.ShallowNetwork(CountedRamp(eta=0.1)), small_problem().target)
        grid = {"eta": [eta, 2 * eta], "seed": range(3), "width": 3}
        tts.sweep(problem, Drift(), grid, TAUS)
        return plan_of(tts.Study(problem, Drift(), grid, TAUS))

    swept(0.1)
    TRACED.clear()
    assert swept(0.3).runs == 6
    assert TRACED == []


def test_widths_are_filled_up_and_start_where_a_single_run_does():
    grid = {"width": [3, 6], "seed": [1, 2]}
    data = tts.sweep(small_problem(), Drift(), grid, TAUS)
    narrow = data.sel(width=3, seed=1)
    assert np.array_equal(narrow.u.isel(tau=0, neuron=slice(0, 3)), start_of(1, 3).u)
    assert np.all(np.isnan(narrow.u.isel(neuron=slice(3, None))))
    assert np.array_equal(data.sel(width=6, seed=2).u.isel(tau=0), start_of(2, 6).u)


@pytest.mark.thorough
def test_zipped_axes_and_targets_and_single_values():
    stairs = tts.PiecewiseConstant([0.5], [0.0, 1.0])
    grid = {
        ("width", "eta"): [(4, 0.1), (5, 0.05)],
        "target": {"stairs": stairs, "two": small_problem().target},
        "epsilon": 0.5,
        "seed": [0],
    }
    data = tts.sweep(small_problem(), Drift(), grid, TAUS)
    assert data.risk.dims == ("width_eta", "target", "seed", "tau")
    assert data.coords["eta"].dims == ("width_eta",)
    assert float(data.coords["epsilon"]) == 0.5
    problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=0.05)), stairs)
    run = tts.simulate(problem, Drift(0.5), start_of(0, 5), jnp.asarray(TAUS))
    ours = data.isel(width_eta=1, seed=0).sel(target="stairs")
    assert np.allclose(ours.risk, run.risk, rtol=1e-10)
    assert np.all(data.status == 0)


def test_one_run_without_any_axis():
    data = tts.sweep(small_problem(), Drift(), {"width": 6, "seed": 3}, TAUS)
    run = tts.simulate(small_problem(), Drift(), start_of(3, 6), jnp.asarray(TAUS))
    assert data.risk.dims == ("tau",)
    assert np.allclose(data.risk, run.risk, rtol=1e-10)


def test_the_last_parameters_are_those_of_the_whole_record():
    grid = {"seed": range(3), "width": 6}
    whole = tts.sweep(small_problem(), Drift(), grid, TAUS)
    last = tts.sweep(small_problem(), Drift(), grid, TAUS, keep="last")
    assert last.u.dims == ("seed", "neuron")
    assert np.array_equal(last.risk, whole.risk)
    assert np.array_equal(last.u, whole.u.isel(tau=-1))
    assert np.array_equal(last.a, whole.a.isel(tau=-1))


@pytest.mark.thorough
def test_single_precision_moves_as_double():
    double = tts.sweep(small_problem(), SGD, SGD_GRID, TAUS)
    single = tts.sweep(small_problem(), SGD, SGD_GRID, TAUS, precision="float32")
    assert single.u.dtype == np.float32
    assert single.attrs["precision"] == "float32"
    moved = np.abs(double.u.isel(tau=-1) - double.u.isel(tau=0)).max()
    assert np.abs(single.u - double.u).max() < 0.05 * moved


@pytest.mark.filterwarnings("ignore::tts_jax.CoarseStepsWarning")
def test_a_run_that_fails_is_labelled_and_spoils_no_other():
    grid = {"epsilon": [0.05], "step_size": [1e-2, 2.0], "seed": range(3), "width": 6}
    data = tts.sweep(small_problem(), SGD, grid, [0.0, 40.0])
    assert np.all(data.status.sel(step_size=1e-2) == tts.Status.OK)
    assert np.all(data.status.sel(step_size=2.0) == tts.Status.NON_FINITE)
    assert np.all(np.isfinite(data.risk.sel(step_size=1e-2)))


def test_coarse_runs_are_counted():
    """Those with h times the largest rate above 1, but for those that failed."""
    grid = {"step_size": [1e-2, 0.5, 2.0], "seed": range(3), "width": 6}
    how = tts.SGD(0.05, 1e-2, noise=0.3)
    with pytest.warns(tts.CoarseStepsWarning) as told:
        data = tts.sweep(small_problem(), how, grid, [0.0, 0.5])
    well = data.status == tts.Status.OK
    for name, limit in (("fast_rate", 1.0), ("largest_jump", 0.5)):
        count = int(((data[name] > limit) & well).sum())
        said = [str(w.message) for w in told if f"{count} of 9 runs: " in str(w.message)]
        assert bool(said) == (count > 0)
    assert int(((data.fast_rate > 1.0) & well).sum()) > 0
    assert not np.any((data.fast_rate > 1.0).sel(step_size=1e-2))


def test_the_runs_of_a_seed_are_the_same_whatever_generator_is_the_default():
    """And however many there are: what "rbg" draws depends on the batch."""
    grid = {"seed": range(3), "width": 4}
    usual = tts.sweep(small_problem(), Drift(), grid, TAUS)
    with jax.default_prng_impl("rbg"):
        other = tts.sweep(small_problem(), Drift(), grid, TAUS)
        alone = tts.sweep(small_problem(), Drift(), {**grid, "seed": [2]}, TAUS)
    with jax.threefry_partitionable(False):
        older = tts.sweep(small_problem(), Drift(), grid, TAUS)
    assert same(other.drop_attrs(), usual.drop_attrs())
    assert same(older.drop_attrs(), usual.drop_attrs())
    assert same(alone.drop_attrs(), usual.sel(seed=[2]).drop_attrs())


def start_high(key, width):
    u = jax.random.uniform(key, (2, width), minval=0.5)
    return tts.Params(jnp.zeros((2, width)), u)


def test_a_problem_and_a_start_of_ones_own():
    network = tts.AdditiveNetwork(tts.CubicStep(eta=0.2))
    x = jax.random.uniform(jax.random.key(0), (40, 2))
    problem = tts.EmpiricalProblem(network, x, jnp.sum(x > 0.5, axis=1).astype(float))
    data = tts.sweep(problem, Drift(), {"seed": [0, 1], "width": 3}, TAUS, start=start_high)
    assert data.u.dims == ("seed", "tau", "input", "neuron")
    params = start_high(jax.random.fold_in(jax.random.key(1), 0), 3)
    run = tts.simulate(problem, Drift(), params, jnp.asarray(TAUS))
    assert np.allclose(data.risk.sel(seed=1), run.risk, rtol=1e-8)


@pytest.mark.thorough
def test_only_what_is_new_is_run(tmp_path):
    store = tmp_path / "flow.zarr"
    grid = {"epsilon": [0.1, 1.0], "seed": range(4), "width": [4]}
    tts.sweep(small_problem(), Drift(), grid, TAUS, store=store)
    before, chunks = files(store), open_store(store).attributes["layout"]["chunks"]
    tts.sweep(small_problem(), Drift(), grid, TAUS, store=store)
    unchanged = files(store)
    runs = {name for name in before if name.startswith(("risk", "u/", "a/", "status", "steps"))}
    assert runs
    assert all(unchanged[name] == before[name] for name in runs)
    more = {"epsilon": [0.1, 0.3, 1.0], "seed": range(6), "width": [4, 7]}
    data = tts.sweep(small_problem(), Drift(), more, TAUS, store=store)
    assert [session["runs"] for session in sessions(data)] == [8, 0, 36 - 8]
    assert open_store(store).attributes["layout"]["chunks"] == chunks
    fresh = tts.sweep(small_problem(), Drift(), more, TAUS)
    assert same(data.load().drop_attrs(), fresh.drop_attrs())
    # Asked for less, it returns less, and has all the same.
    assert tts.sweep(small_problem(), Drift(), grid, TAUS, store=store).sizes["epsilon"] == 2
    assert xr.open_zarr(store, chunks=None).sizes["width"] == 2


def test_what_is_asked_is_run_and_returned_and_no_more(tmp_path):
    store = tmp_path / "s.zarr"
    grid = {"epsilon": [0.1, 1.0], ("width", "eta"): [(3, 0.1), (4, 0.05)], "seed": range(2)}
    tts.sweep(small_problem(), Drift(), grid, TAUS, store=store)
    for chunk in (store / "status" / "c").iterdir():
        for file in chunk.rglob("*"):
            if file.is_file():
                file.unlink()  # as if it had been cut off
    less = {"epsilon": [1.0], ("width", "eta"): [(4, 0.05)], "seed": range(2)}
    data = tts.sweep(small_problem(), Drift(), less, TAUS, store=store)
    assert sessions(data)[-1]["runs"] == 2
    assert data.risk.shape == (1, 1, 2, 4)
    assert data.width.values.tolist() == [4]
    assert np.all(data.status == 0)


def test_targets_with_a_floor_and_without(tmp_path):
    store, first = tmp_path / "s.zarr", small_problem().target
    wave = tts.Function(lambda x: jnp.sin(6 * x))
    grid = {"target": {"steps": first}, "seed": range(2), "width": 4}
    tts.sweep(small_problem(), Drift(), grid, TAUS, store=store)
    both = {**grid, "target": {"steps": first, "wave": wave}}
    data = tts.sweep(small_problem(), Drift(), both, TAUS, store=store)
    assert np.isfinite(data.floor.sel(target="steps"))
    assert np.isnan(data.floor.sel(target="wave"))
    assert np.all(data.status == 0)
    with pytest.raises(tts.SweepError, match="has the target `wave`, too"):
        tts.sweep(small_problem(), Drift(), grid, TAUS, store=store)
    other = {"steps": first, "wave": tts.Function(lambda x: jnp.cos(6 * x))}
    with pytest.raises(tts.SweepError, match="belongs to another study"):
        tts.sweep(small_problem(), Drift(), {**grid, "target": other}, TAUS, store=store)


def test_another_study_is_refused(tmp_path):
    store = tmp_path / "flow.zarr"
    tts.sweep(small_problem(), Drift(), {"seed": [0], "width": 4}, TAUS, store=store)
    longer = [*TAUS, 0.5]
    with pytest.raises(tts.SweepError, match="recorded times are fixed") as told:
        tts.sweep(small_problem(), Drift(), {"seed": [0], "width": 4}, longer, store=store)
    assert "taus: stored 4 from 0.0 to 0.3, asked 5 from 0.0 to 0.5;" in str(told.value)
    others = [*TAUS[:2], 0.15, TAUS[3]]
    with pytest.raises(tts.SweepError, match=re.escape("98], asked [0.15];")):
        tts.sweep(small_problem(), Drift(), {"seed": [0], "width": 4}, others, store=store)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(tts.SweepError, match="holds no sweep"):
        tts.sweep(small_problem(), Drift(), {"width": 4}, TAUS, store=tmp_path / "other")
    assert (tmp_path / "other" / "file").read_text() == "mine"


def test_progress_ends_at_one_and_never_falls():
    seen: list[float] = []
    grid = {"epsilon": [0.1, 0.2, 0.5], "seed": range(16), "width": 4}
    tts.sweep(small_problem(), Apart(), grid, TAUS, progress=seen.append)
    assert len(seen) == 3
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="`progress`"):
        tts.sweep(small_problem(), Drift(), grid, TAUS, progress=3)


@pytest.mark.parametrize("stored", [False, True])
def test_an_error_of_a_users_progress_is_not_taken_for_one_of_the_disk(tmp_path, stored):
    def broken(fraction):
        raise ConnectionError("the dashboard is away")

    store = {"store": tmp_path / "s.zarr"} if stored else {}
    grid = {"seed": [0], "width": 3}
    with pytest.raises(ConnectionError, match="dashboard"):
        tts.sweep(small_problem(), Drift(), grid, TAUS, progress=broken, **store)


def test_what_it_was_made_with_is_kept(tmp_path):
    store = tmp_path / "s.zarr"
    tts.sweep(small_problem(), tts.LimitFlow(), {"seed": range(2), "width": 6}, TAUS, store=store)
    data = xr.open_zarr(store, chunks=None)
    (session,) = sessions(data)
    assert session["versions"]["jax"] == jax.__version__
    assert session["runs"] == 2
    assert session["seconds"] > 0
    assert session["device"]
    assert data.attrs["precision"] == "float64"
    study, statuses = (json.loads(data.attrs[name]) for name in ("study", "statuses"))
    assert study["dynamics"] == {"type": "LimitFlow"}
    assert statuses["PENDING"] == PENDING
    assert open_store(store).study().description() == study
