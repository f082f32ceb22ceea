"""Rates as they are given: what fits u, and what is refused by its name, before anything runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.dynamics.rates import as_rates, check_rates_fit, is_by_leaf, rates_like

U = {"w": np.ones((3, 2)), "b": [np.ones(3), np.ones(())]}
MADE = [
    lambda rates: tts.GradientFlow(0.1, rates=rates),
    lambda rates: tts.ReducedFlow(rates=rates),
    lambda rates: tts.SGD(0.1, 0.1, rates=rates),
]


def test_they_are_spread_over_the_leaves_below_them():
    found = rates_like({"w": np.asarray([[1.0], [2.0], [0.0]]), "b": 0.5}, U)
    expected = {"w": np.asarray([[1.0, 1], [2, 2], [0, 0]]), "b": [np.full(3, 0.5), 0.5]}
    assert jax.tree.structure(found) == jax.tree.structure(U)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(found))
    assert {leaf.shape for leaf in jax.tree.leaves(rates_like(2.0, U))} == {(3, 2), (3,), ()}


def test_numbers_are_plain_and_arrays_are_copies():
    given = {"w": jnp.float32(2.0), "b": [np.ones(3), 1]}
    rates = as_rates(given)
    given["b"][0][0] = 7.0
    assert rates["w"] == 2.0
    assert isinstance(rates["b"][1], float)
    np.testing.assert_array_equal(rates["b"][0], np.ones(3))
    assert not is_by_leaf(rates)
    assert is_by_leaf({"w": 2.0, "b": jnp.asarray(1.0)})


@pytest.mark.parametrize("made", MADE, ids=["GradientFlow", "ReducedFlow", "SGD"])
def test_what_is_no_rate_is_named_by_its_path(made):
    positive = "must be finite, and 0 or at least 2.23e-308, but is"
    for bad in (-1.0, np.nan, np.inf, 1e-310):
        with pytest.raises(ValueError, match=rf"`rates\['b'\]\[0\]` {positive} {bad}") as told:
            made({"w": 1.0, "b": [np.asarray([1.0, bad, 2.0]), 1.0]})
        assert "`rates['b'][0]`" in str(told.value)
    with pytest.raises(ValueError, match=f"Argument `rates` {positive} -2.0"):
        made(-2.0)
    with pytest.raises(ValueError, match=r"Argument `rates\['w'\]` must be real numbers"):
        made({"w": "fast"})


REFUSED = {
    "another name": (
        {"w": 1.0, "c": 1.0},
        r"`rates` must be a number for all of u, or a tree like u, with leaves at \['b'\]\[0\], "
        r"\['b'\]\[1\], \['w'\], but is a tree with leaves at \['c'\], \['w'\]",
    ),
    "more than u": ({"w": {"x": 1.0}, "b": 1.0}, "`rates` must be a number for all of u"),
    "another shape": (
        {"w": np.ones(3), "b": 1.0},
        r"`rates\['w'\]` must be a number, or of a shape that broadcasts to \(3, 2\), that of "
        r"u\['w'\], but is of shape \(3,\)",
    ),
    "a shape that would widen u": ({"w": 1.0, "b": np.ones(3)}, r"of u\['b'\]\[1\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_u_is_refused(case):
    rates, told = REFUSED[case]
    with pytest.raises(ValueError, match=told):
        check_rates_fit(rates, U)


def test_what_fits_goes_through_with_values_that_nobody_knows():
    def fits(number):
        check_rates_fit(as_rates({"w": number, "b": [number, 1.0]}), U)
        check_rates_fit(as_rates(number), U)
        return number

    check_rates_fit(None, U)
    jax.eval_shape(fits, jnp.ones(()))


PROBLEM = tts.EmpiricalProblem(tts.TwoLayerNetwork(tts.Tanh()), np.ones((4, 2)), np.ones(4))
START = tts.Params(np.zeros(4), {"w": np.ones((3, 2)), "b": np.ones(3)})


@pytest.mark.parametrize("made", MADE, ids=["GradientFlow", "ReducedFlow", "SGD"])
def test_a_simulation_refuses_rates_of_another_network(made):
    with pytest.raises(ValueError, match=r"with leaves at \['b'\], \['w'\], but is a tree with no"):
        tts.simulate(PROBLEM, made({}), START, [0.1], key=jax.random.key(0))
    longer = made({"w": 1.0, "b": np.ones(4)})
    with pytest.raises(ValueError, match=r"`rates\['b'\]` must be .* but is of shape \(4,\)"):
        tts.simulate(PROBLEM, longer, START, [0.1], key=jax.random.key(0))


def test_an_optimiser_has_rates_of_its_own():
    import optax

    with pytest.raises(ValueError, match="`rates` must be None beside an `optimiser`"):
        tts.SGD(0.1, 0.1, rates=2.0, optimiser=optax.adam(1e-3))


@pytest.mark.parametrize("made", MADE, ids=["GradientFlow", "ReducedFlow", "SGD"])
def test_they_are_told_only_where_they_are_given(made):
    assert "rates={'b': 0.1, 'w': 1.0}" in repr(made({"w": 1, "b": 0.1}))
    assert "rates" not in repr(made(None))
