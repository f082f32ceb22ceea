"""Problems of users' models: least squares against NumPy, samples, and what a problem must keep."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.models.adapters import FAST
from tts_jax.problems.affine import Head
from tts_jax.problems.sample import BLOCK

RANDOM = np.random.default_rng(1)
COUNT, WIDTH = 20, 4


def features(u, x):
    return jnp.tanh(x @ u)


def apply(params, x):
    """K outputs with features in common."""
    return features(params["u"], x) @ params["w"] + params["b"][None]


def one_output(params, x):
    return features(params["u"], x) @ params["w"] + params["b"]


def apart(params, x):
    """Two outputs, and the first has twice the features and an offset."""
    rows = features(params["u"], x)
    offset = jnp.stack([jnp.sum(params["u"]), 0.0 * jnp.sum(params["u"])])[None]
    return offset + rows @ params["w"] * jnp.asarray([[2.0, 1.0]])


def data(count, outputs):
    x = RANDOM.normal(size=(count, 3))
    return x, RANDOM.normal(size=(count, *outputs)) + 5.0


def values(outputs):
    return {
        "u": RANDOM.normal(size=(3, WIDTH)),
        "w": RANDOM.normal(size=(WIDTH, *outputs)),
        "b": RANDOM.normal(size=outputs),
    }


def fast(path):
    return path[0] != "u"


CASES = {
    "one": (one_output, (), fast),
    "shared": (apply, (3,), fast),
    "single-column": (apply, (1,), fast),
    "apart": (apart, (2,), "w"),
}


def problem_of(name, count=COUNT, **more):
    function, outputs, choice = CASES[name]
    x, y = data(count, outputs)
    given = values(outputs)
    if name == "apart":
        del given["b"]
    return tts.from_apply(function, given, x, y, choice, **more)


def best(problem, u, ridge=1e-14):
    return jax.jit(lambda u: problem.best_outer(u, ridge=ridge))(u)


def jacobian(problem, params):
    """The predictions where all fast leaves are 0, flat, and their derivative (N K, p)."""
    flat, back = jax.flatten_util.ravel_pytree(params.a)

    def outputs(flat):
        return problem.predict(tts.Params(back(flat), params.u), problem.x).ravel()

    at_zero, slope = jax.jit(lambda: (outputs(0 * flat), jax.jacfwd(outputs)(flat)))()
    return np.asarray(at_zero), np.asarray(slope), back


@pytest.mark.parametrize(
    ("weighted", "penalty"),
    [
        (True, 0.3),
        pytest.param(False, 0.0, marks=pytest.mark.thorough),
        pytest.param(True, 0.0, marks=pytest.mark.thorough),
        pytest.param(False, 0.3, marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        *("shared", "apart"),
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("one", "single-column")),
    ],
)
def test_best_outer_is_least_squares(name, weighted, penalty):
    weights = RANDOM.uniform(size=COUNT) if weighted else None
    problem, start = problem_of(name, weights=weights, penalty=penalty)
    assert type(problem) is tts.SeparableModelProblem
    assert (problem.head.axes is not None) == (name == "shared")
    assert problem.head.has_offset == (name == "apart")
    assert (problem.head.bias is not None) == (name != "apart")
    offset, slope, back = jacobian(problem, start)
    shares = np.ones(COUNT) if weights is None else weights
    rows = np.sqrt(np.repeat(shares / shares.sum(), problem.y.size // COUNT))[:, None]
    more = np.sqrt(penalty) * np.eye(slope.shape[1])
    targets = np.concatenate([rows[:, 0] * (problem.y.ravel() - offset), np.zeros(len(more))])
    wanted = np.linalg.lstsq(np.concatenate([rows * slope, more]), targets, rcond=None)[0]
    found = best(problem, start.u)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(back(wanted)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)
    risk = np.sum((rows * (slope @ wanted + offset - problem.y.ravel())[:, None]) ** 2)
    np.testing.assert_allclose(
        problem.risk(tts.Params(found, start.u)), risk + penalty * np.sum(wanted**2), rtol=1e-11
    )


@pytest.mark.parametrize("name", CASES)
def test_a_flow_has_the_fast_leaves_as_a_matrix(name):
    problem, start = problem_of(name)
    # Outputs that do not share their features, and an offset, are no matrix times features.
    assert problem.suits_collocation(10) == (name != "apart")
    if name == "apart":
        return
    matrix = problem.outer_matrix(start.a)
    back = problem.outer_layer(matrix, start.a)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), back, start.a)
    found = problem.features(start.u, jnp.asarray(problem.x)) @ matrix
    wanted = problem.predict(start, jnp.asarray(problem.x))
    np.testing.assert_allclose(found, wanted.reshape(found.shape), rtol=1e-12, atol=1e-13)


def test_kinks_and_subclasses_keep_the_other_methods():
    x, y = data(COUNT, ())
    bent, _ = tts.from_apply(lambda p, x: jax.nn.relu(x @ p["u"]) @ p["w"], BENT, x, y, "w")
    assert not bent.suits_collocation(10)
    problem, _ = problem_of("one")

    class Own(tts.SeparableModelProblem):
        pass

    fields = {f.name: getattr(problem, f.name) for f in dataclasses.fields(problem)}
    assert not Own(**fields).suits_collocation(10)


BENT = {"u": RANDOM.normal(size=(3, WIDTH)), "w": RANDOM.normal(size=WIDTH)}


def test_a_ridge_does_not_pull_the_bias():
    problem, start = problem_of("shared", penalty=0.1)
    far = dataclasses.replace(problem, y=problem.y + 1e6, penalty=0.0)
    near = dataclasses.replace(problem, penalty=0.0)
    one, other = (best(p, start.u, 1e-3) for p in (far, near))
    np.testing.assert_allclose(one["w"], other["w"], rtol=1e-6)
    np.testing.assert_allclose(one["b"] - 1e6, other["b"], rtol=1e-6)


@pytest.mark.parametrize("name", [pytest.param("shared", marks=pytest.mark.thorough), "apart"])
def test_blocks_and_features_of_their_own_change_nothing(name):
    problem, start = problem_of(name, count=BLOCK + 70)
    gram, moments = jax.jit(lambda u: problem.normal_equations(u))(start.u)
    offset, slope, _ = jacobian(problem, start)
    count = problem.x.shape[0]
    flat = slope.T @ (problem.y.ravel() - offset) / count
    if name == "apart":
        np.testing.assert_allclose(gram, slope.T @ slope / count, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(moments, flat, rtol=1e-10)
        return
    assert gram.shape == (WIDTH + 1, WIDTH + 1)
    np.testing.assert_allclose(np.ravel(moments), flat, rtol=1e-10)
    dense = dataclasses.replace(problem, head=Head())
    assert dense.features(start.u, problem.x[:5]).shape == (5, 3, 3 * (WIDTH + 1))
    one, other = (best(p, start.u) for p in (problem, dense))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)


@pytest.mark.thorough
def test_the_contract_of_a_problem_is_kept():
    problem, start = problem_of("one", count=40, penalty=0.1)
    assert tts.check_problem(problem, start) < 1e-6
    bent, start = tts.from_apply(
        lambda p, x: jnp.tanh(one_output(p, x)), values(()), *data(40, ()), fast, separable=False
    )
    assert tts.check_problem(bent, start) < 1e-6


def test_samples_are_drawn_by_their_weights_and_replayed_by_their_numbers():
    problem, _ = problem_of("shared", weights=1.0 * (np.arange(COUNT) == 3))
    x, y = problem.draw(jax.random.key(0), 4)
    np.testing.assert_array_equal(x, np.tile(problem.x[3], (4, 1)))
    np.testing.assert_array_equal(y, np.tile(problem.y[3], (4, 1)))
    np.testing.assert_array_equal(problem.replayed(jnp.asarray([3, 3, 3, 3]))[0], x)
    with pytest.raises(ValueError, match="`samples` must be with an index from 0 to 19"):
        problem.check_samples(np.asarray([20]))
    with pytest.raises(ValueError, match="`samples`"):
        problem.check_samples(np.asarray([0.5]))


def test_parameters_that_do_not_fit_are_refused_before_anything_runs():
    problem, start = problem_of("one")
    assert len(problem.halves.skeleton.places(FAST)) == 2
    for wrong in (start._replace(a=start.u), tts.Params(jnp.ones(3), start.u)):
        with pytest.raises(ValueError, match=r"`params.a` must be of the structure"):
            tts.simulate(problem, tts.GradientFlow(0.1), wrong, [0.1])
    longer = jax.tree.map(lambda v: jnp.stack([v, v]), start)
    with pytest.raises(ValueError, match=r"`params.a\['b'\]` must be of shape \(\)"):
        tts.simulate(problem, tts.GradientFlow(0.1), longer, [0.1])


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["shared", "apart"])
def test_the_reduced_flow_goes_down_the_risk_of_the_best_outer_layer(name):
    problem, start = problem_of(name, penalty=0.01)

    def least(u):
        return problem.risk(tts.Params(problem.best_outer(u, ridge=1e-14), u))

    def slopes(u):
        a = problem.best_outer(u, ridge=1e-14)
        return jax.grad(least)(u), jax.grad(lambda u: problem.risk(tts.Params(a, u)))(u)

    whole, partial = jax.jit(slopes)(start.u)
    np.testing.assert_allclose(whole["u"], partial["u"], rtol=1e-9)
    run = tts.simulate(problem, tts.ReducedFlow(), start, jnp.linspace(0.0, 0.05, 6))
    assert np.all(np.diff(run.risk) < 0)
    np.testing.assert_allclose(run.risk, jax.vmap(least)(run.params.u), rtol=1e-6)


def test_a_feature_that_is_one_at_most_inputs_is_no_bias():
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(size=(400, 2)), np.ones((400, 1))], axis=1)
    x[[6, 17, 55, 80, 205, 310], 2] = 0.0
    y = 10.0 + np.sin(x[:, 0])

    def apply(params, x):
        return jnp.concatenate([jnp.tanh(x[:, :2] @ params["w"]), x[:, 2:]], axis=1) @ params["a"]

    params = {"w": rng.normal(size=(2, 3)), "a": np.zeros(4)}
    problem, start = tts.from_apply(apply, params, x, y, "a")
    phi = np.concatenate([np.tanh(x[:, :2] @ params["w"]), x[:, 2:]], axis=1)
    least = np.mean((phi @ np.linalg.lstsq(phi, y)[0] - y) ** 2)
    found = problem.risk(tts.Params(problem.best_outer(start.u), start.u))
    np.testing.assert_allclose(found, least, rtol=1e-9)


def test_a_model_that_mixes_samples_is_refused_also_where_its_last_layer_is_zero():
    rng = np.random.default_rng(3)
    params = {"w": rng.normal(size=(2, 3)), "a": np.zeros(3)}

    def apply(params, x):
        return jnp.tanh((x - x.mean(0, keepdims=True)) @ params["w"]) @ params["a"]

    with pytest.raises(ValueError, match="`apply` must be one that predicts for each input"):
        tts.from_apply(apply, params, rng.normal(size=(40, 2)), rng.normal(size=40), "a")
