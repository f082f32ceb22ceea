"""What is compiled is known by what it does: made anew it compiles nothing, changed it does."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_problems import spread_start
from small_studies import compilations

import tts_jax as tts
from tts_jax._programs import compiled
from tts_jax.dynamics.base import RunOutputs

START = spread_start()
NETWORK = tts.ShallowNetwork(tts.CubicStep(eta=0.08))


class Still(tts.AbstractDynamics):
    """A user's dynamics that compiles in no time: nothing moves, and there is one risk."""

    def check(self, given):
        pass

    def run(self, given):
        count = given.taus.size
        params = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), given.params
        )
        risk = jnp.broadcast_to(given.problem.risk(given.params), (count,))
        return RunOutputs(params, risk, jnp.asarray(tts.Status.OK, jnp.int32), {})


def risk_of_run(problem):
    return float(tts.simulate(problem, Still(), START, [0.0]).risk[0])


def to_target(function):
    return tts.Problem(NETWORK, tts.Function(function, degree=1))


def line(k, shift=0.0):
    return to_target(lambda x: k * x + shift)


class Sloped:
    def __init__(self, k):
        self.k = k

    def __call__(self, x):
        return self.k * x


@pytest.mark.parametrize(
    "make", [line, lambda k: to_target(Sloped(k)), lambda k: to_target(Sloped(k).__call__)]
)
def test_equal_functions_made_anew_compile_nothing(make):
    first = risk_of_run(make(2.0))
    with compilations() as found:
        assert risk_of_run(make(2.0)) == first
    # A function is traced, once and alone, for the shape of what it returns.
    assert [what for what in found if "trace" not in what] == []
    with compilations() as found:
        assert risk_of_run(make(3.0)) != first
    assert found


def test_an_equal_optimiser_made_anew_compiles_nothing():
    import optax

    problem, key = line(2.0, 0.5), jax.random.key(0)

    def risk(rate):
        sgd = tts.SGD(0.1, 0.1, optimiser=optax.sgd(rate))
        return tts.simulate(problem, sgd, START, [0.05], key=key).risk

    first = risk(0.1)
    with compilations() as found:
        np.testing.assert_array_equal(risk(0.1), first)
    assert found == []
    assert risk(0.2) != first


GLOBAL = 1.0


class Held:
    value = 1.0


class Ramp(tts.AbstractActivation):
    eta: float
    top: ClassVar = 1.0
    knots: ClassVar = (-0.5, 0.5)
    degree: ClassVar = 1
    limits: ClassVar = None

    def __call__(self, z):
        return self.top * jnp.clip(z + 0.5, 0.0, 1.0)


@jax.jit
def jitted(x):
    return GLOBAL * x


@jax.checkpoint
def checkpointed(x):
    return GLOBAL * x


def added(total, x):
    return total, GLOBAL * x


def scanned(x):
    return jax.lax.scan(added, 0.0, x.ravel())[1].reshape(x.shape)


HELD, ROW = Held(), [1.0]


def set_global(value):
    globals()["GLOBAL"] = value


CHANGES = {
    "a global": set_global,
    "an attribute": lambda value: setattr(HELD, "value", value),
    "a list": lambda value: ROW.__setitem__(0, value),
    "a constant of a class": lambda value: setattr(Ramp, "top", value),
}


def risks_as_values_change(problem, change):
    """The risks of runs, each of which must be what `problem.risk` has at that time."""
    start, found = tts.Params(START.a + 1.0, START.u), []
    for value in (1.0, 9.0, 1.0):
        change(value)
        run = tts.simulate(problem, Still(), start, [0.0])
        now = jax.jit(lambda params: problem.risk(params))(start)
        np.testing.assert_allclose(run.risk[0], now, rtol=1e-13)
        found.append(float(now))
    return found


@pytest.mark.parametrize("what", CHANGES)
def test_simulate_and_the_risk_agree_after_a_change_of_what_a_function_reads(what, monkeypatch):
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # so that it is the key that does it
    target = tts.Function(lambda x: GLOBAL * HELD.value * ROW[0] * x, degree=1)
    problem = tts.Problem(tts.ShallowNetwork(Ramp(eta=0.1)), target)
    first, other, again = risks_as_values_change(problem, CHANGES[what])
    assert first == again != other


@pytest.mark.thorough
def test_they_agree_where_jax_keeps_what_it_has_traced():
    problem = to_target(lambda x: jitted(x) + checkpointed(x) + scanned(x))
    first, other, again = risks_as_values_change(problem, set_global)
    assert first == again

    def left(slope):
        return float(to_target(lambda x: slope * x).risk(tts.Params(START.a + 1.0, START.u)))

    np.testing.assert_allclose([first, other], [left(3.0), left(27.0)], rtol=1e-12)


def test_a_sweep_is_made_with_what_is_read_now_and_compiles_nothing_for_equals():
    grid = {"width": 3, "seed": range(2)}

    def risks(k):
        return tts.sweep(to_target(Sloped(k).__call__), Still(), grid, [0.0]).risk.values

    first = risks(1.0)
    assert not np.allclose(risks(9.0), first)
    with compilations() as found:
        np.testing.assert_array_equal(risks(1.0), first)
    assert [what for what in found if "backend" in what] == []


def test_a_program_that_is_kept_is_not_traced_again_of_what_has_changed():
    """A function is changed in place, and met; then comes an equal of what it was."""
    grid, cell = {"seed": [0], "width": 3}, {"k": 2.0}

    def risk(problem):
        return float(tts.sweep(problem, Still(), grid, [0.0]).risk.values.ravel()[0])

    first = to_target(lambda x: cell["k"] * x)
    before = risk(first)
    cell["k"] = 5.0
    assert risk(first) > 2 * before

    def made_anew(cell):
        return to_target(lambda x: cell["k"] * x)

    assert risk(made_anew({"k": 2.0})) == pytest.approx(before)


def test_a_store_of_another_constant_is_refused(tmp_path):
    grid = {"width": 3, "seed": range(2)}
    tts.sweep(to_target(Sloped(1.0).__call__), Still(), grid, [0.0], store=tmp_path / "s")
    with pytest.raises(RuntimeError, match="belongs to another study"):
        tts.sweep(to_target(Sloped(9.0).__call__), Still(), grid, [0.0], store=tmp_path / "s")


def test_a_sweep_of_what_cannot_be_told_apart_is_refused_before_it_begins():
    names = (name for name in ("a", "b"))
    problem = to_target(lambda x: 2 * x if next(names) else x)
    with pytest.raises(ValueError, match=r"Argument `problem\.target\.function reads names` must"):
        tts.sweep(problem, Still(), {"width": 3}, [0.0])


def test_functions_around_traced_numbers_are_compiled_for():
    def risk(k):
        return tts.simulate(line(k), Still(), START, [0.0]).risk[0]

    slope = jax.grad(risk)(2.0)
    step = 1e-6
    difference = (risk_of_run(line(2.0 + step)) - risk_of_run(line(2.0 - step))) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(risk)(jnp.array([2.0, 3.0]))[0], risk_of_run(line(2.0)))


def test_numbers_compile_nothing_and_all_else_does():
    traced = []

    @compiled
    def total(tree, factor):
        traced.append(None)
        return factor * sum(tree["f"](row) for row in tree["rows"])

    def double(x):
        return 2 * x

    rows = [np.arange(3.0), 1.0]
    for numbers, factor in ((rows, 2.0), ([row + 1 for row in rows], np.float64(3.0))):
        found = total({"f": double, "rows": numbers}, factor)
        np.testing.assert_allclose(found, factor * 2 * sum(numbers))
    assert len(traced) == 1
    assert total({"f": jnp.cos, "rows": [0.0]}, 1.0) == 1.0
    assert total({"f": double, "rows": [np.arange(4.0)]}, 1.0).shape == (4,)
    assert len(traced) == 3
