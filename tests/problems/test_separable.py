"""Problems that are linear in their outer weights: a user's own features, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.problems import sample

KEYS = jax.random.split(jax.random.key(1), 6)
COUNT = 37
X = jax.random.normal(KEYS[0], (COUNT, 3))
Y = jax.random.normal(KEYS[1], (COUNT, 2))
WEIGHTS = jax.random.uniform(KEYS[2], (COUNT,))
NETWORK = tts.TwoLayerNetwork(tts.Tanh(), outer_bias=False)
START = tts.init_two_layer(KEYS[3], NETWORK, 3, 4, outputs=2, bias_scale=1.0, outer_scale=1.0)


class Mine(tts.SeparableProblem):
    def features(self, u, x):
        return jnp.tanh(x @ u["w"].T + u["b"][None])


def least_squares(penalty):
    """The best outer layer by NumPy, as a least squares problem of more rows."""
    root = np.sqrt(np.asarray(WEIGHTS / WEIGHTS.sum()))[:, None]
    phi = np.asarray(Mine(X, Y).features(START.u, X))
    rows = np.concatenate([root * phi, np.sqrt(penalty) * np.eye(4)])
    return np.linalg.lstsq(rows, np.concatenate([root * np.asarray(Y), np.zeros((4, 2))]))[0]


@pytest.mark.parametrize("block", [sample.BLOCK, 10], ids=["at once", "in blocks"])
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_the_risk_and_its_minimiser_are_those_of_numpy(penalty, block, monkeypatch):
    monkeypatch.setattr(sample, "BLOCK", block)
    problem = Mine(X, Y, weights=WEIGHTS, penalty=penalty)
    residual = np.asarray(problem.features(START.u, X) @ START.a - Y)
    shares = np.asarray(WEIGHTS / WEIGHTS.sum())
    risk = shares @ np.sum(residual**2, axis=1) + penalty * np.sum(np.asarray(START.a) ** 2)
    np.testing.assert_allclose(problem.risk(START), risk, rtol=1e-13)
    best = problem.best_outer(START.u)
    np.testing.assert_allclose(best, least_squares(penalty), rtol=1e-8, atol=1e-9)
    gradient = jax.grad(lambda a: problem.risk(tts.Params(a, START.u)))(best)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-9)


TIGHT = {"rtol": 1e-9, "atol": 1e-11}


@pytest.mark.parametrize(
    "dynamics",
    [
        pytest.param(tts.GradientFlow(0.1, **TIGHT), id="flow", marks=pytest.mark.thorough),
        pytest.param(tts.ReducedFlow(**TIGHT), id="reduced flow", marks=pytest.mark.thorough),
        pytest.param(tts.SGD(0.1, 0.01), id="SGD"),
    ],
)
def test_it_moves_as_the_network_of_the_package(dynamics):
    mine = Mine(X, Y, weights=WEIGHTS, penalty=0.1)
    known = tts.EmpiricalProblem(NETWORK, X, Y, weights=WEIGHTS, penalty=0.1)
    runs = [
        tts.simulate(problem, dynamics, START, [0.0, 0.05], key=KEYS[4])
        for problem in (mine, known)
    ]
    for found, wanted in zip(*(jax.tree.leaves(run.params) for run in runs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-7)
    np.testing.assert_allclose(runs[0].risk, runs[1].risk, rtol=1e-8)


def test_one_feature_twice_shares_its_weight():
    class Twins(tts.SeparableProblem):
        def features(self, u, x):
            one = jnp.tanh(x @ u)
            return jnp.stack([one, one, jnp.zeros_like(one)], axis=1)

    problem = Twins(X, Y[:, 0])
    best = problem.best_outer(jnp.ones(3))
    assert float(best[0]) == pytest.approx(float(best[1]), rel=1e-3)  # the ridge decides
    assert best[2] == 0.0


def test_parameters_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"`params.a` must be of shape \(4, 2\), as the features"):
        tts.simulate(Mine(X, Y), tts.GradientFlow(1.0), START._replace(a=jnp.ones(4)), [0.0, 1.0])
    with pytest.raises(ValueError, match=r"`y` must be of shape \(37,\)"):
        tts.EmpiricalProblem(NETWORK, X, Y).check(START._replace(a=jnp.ones(4)))
    with pytest.raises(ValueError, match=r"`params.u` must be such that .* fail with KeyError"):
        Mine(X, Y).check(START._replace(u={"b": START.u["b"]}))
    with pytest.raises(ValueError, match="`weights` must be None for the loss"):
        tts.EmpiricalProblem(NETWORK, X, Y, weights=WEIGHTS, loss="norm")

    class Flat(tts.SeparableProblem):
        def features(self, u, x):
            return x[:, 0]

    with pytest.raises(ValueError, match=r"with features of shape \(37, p\)"):
        Flat(X, Y).check(START)
