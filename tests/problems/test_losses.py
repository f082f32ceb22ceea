"""The losses against their formulas in NumPy, in runs, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

import tts_jax as tts
from tts_jax.problems.losses import LOSSES

RNG = np.random.default_rng(0)
F, Y = RNG.normal(size=(9, 3)) * 2, RNG.normal(size=(9, 3))
CLASSES = RNG.integers(0, 3, 9)
X = RNG.normal(size=(9, 2))


def cross_entropy(f, y):
    return -y * np.log(expit(f)) - (1 - y) * np.log(expit(-f))


def huber(r):
    return np.where(np.abs(r) <= 1, r**2 / 2, np.abs(r) - 0.5)


CASES = {
    "squared": ("squared", F, Y, np.sum((F - Y) ** 2, axis=1)),
    "squared, one output": ("squared", F[:, 0], Y[:, 0], (F[:, 0] - Y[:, 0]) ** 2),
    "huber": ("huber", F, Y, np.sum(huber(F - Y), axis=1)),
    "logistic": ("logistic", F[:, 0], expit(Y[:, 0]), cross_entropy(F[:, 0], expit(Y[:, 0]))),
    "softmax": ("softmax", F, CLASSES, -log_softmax(F, axis=1)[np.arange(9), CLASSES]),
    "shares": (
        "softmax",
        F,
        np.eye(3)[CLASSES],
        -log_softmax(F, axis=1)[np.arange(9), CLASSES],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_they_are_their_formulas(case):
    name, f, y, expected = CASES[case]
    found = LOSSES[name](jnp.asarray(f), jnp.asarray(y, float))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


NETWORK = tts.TwoLayerNetwork(tts.Tanh())
WEIGHTS = RNG.uniform(size=9)


def start(outputs=None):
    draw = {"outputs": outputs, "bias_scale": 1.0, "outer_scale": 1.0}
    return tts.init_two_layer(jax.random.key(0), NETWORK, 2, 3, **draw)


@pytest.mark.parametrize(
    ("case", "outputs"), [("huber", 3), ("logistic", None), ("softmax", 3), ("shares", 3)]
)
def test_a_risk_is_their_weighted_mean(case, outputs):
    name, _, y, _ = CASES[case]
    problem = tts.EmpiricalProblem(NETWORK, X, y, loss=name, weights=WEIGHTS, penalty=0.2)
    params = start(outputs)
    problem.check(params)
    losses = LOSSES[name](NETWORK(params, X), jnp.asarray(y, float))
    expected = np.average(losses, weights=WEIGHTS) + 0.2 * np.sum(np.asarray(params.a) ** 2)
    np.testing.assert_allclose(problem.risk(params), expected, rtol=1e-13)


@pytest.mark.parametrize(
    "dynamics",
    [
        pytest.param(tts.GradientFlow(0.1, rtol=1e-5), marks=pytest.mark.thorough),
        tts.SGD(0.1, 0.1, batch_size=3),
    ],
)
def test_classes_are_learnt(dynamics):
    y = np.argmax(X @ np.array([[1.0, -1.0, 0.3], [0.0, 1.0, -2.0]]), axis=1)
    problem = tts.EmpiricalProblem(NETWORK, X, y, loss="softmax")
    run = tts.simulate(problem, dynamics, start(3), [0.0, 1.0, 5.0], key=jax.random.key(1))
    assert np.mean(np.argmax(problem.predict(run.final, X), axis=1) == y) == 1.0
    assert run.risk[-1] < 0.3 * run.risk[0]


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        ("logistic", Y[:, 0], "`y` must be from 0 to 1"),
        ("logistic", np.abs(np.sin(Y)), r"`y` must be of shape \(N,\) for a logistic loss"),
        ("softmax", Y[:, 0], "`y` must be classes 0, 1, ... for a softmax loss"),
        ("softmax", Y, "`y` must be shares of classes that sum to 1"),
        ("hinge", Y[:, 0], "`loss` must be"),
    ],
)
def test_targets_that_a_loss_does_not_take_are_refused(loss, y, message):
    with pytest.raises(ValueError, match=message):
        tts.EmpiricalProblem(NETWORK, X, y, loss=loss)


def test_what_classes_do_not_allow_is_refused():
    problem = tts.EmpiricalProblem(NETWORK, X, CLASSES, loss="softmax")
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="`y` must be classes below 2"):
        problem.check(start(2))
    with pytest.raises(ValueError, match=r"`params.a` must be of shape \(p, K\)"):
        problem.check(start())
    with pytest.raises(ValueError, match="`noise` must be 0 where the targets are classes"):
        tts.simulate(problem, tts.SGD(0.1, 0.1, noise=0.1), start(3), [0.0, 1.0], key=key)
    with pytest.raises(ValueError, match=r"`problem` must be .* with the loss 'softmax'"):
        tts.simulate(problem, tts.ReducedFlow(), start(3), [0.0, 1.0])


def test_noise_on_replayed_classes_and_a_penalty_of_the_norm_are_refused():
    problem = tts.EmpiricalProblem(NETWORK, X, CLASSES, loss="softmax")
    samples = (np.zeros(10, int), np.full(10, 0.7))
    with pytest.raises(ValueError, match="`samples` must be without noise"):
        tts.simulate(problem, tts.SGD(1.0, 0.1), start(3), [0.5], samples=samples)
    with pytest.raises(ValueError, match='`penalty` must be 0 for the loss "norm"'):
        tts.EmpiricalProblem(NETWORK, X, Y[:, 0], loss="norm", penalty=0.1)
    with pytest.raises(ValueError, match="`loss` must be .* for a best outer layer"):  # noqa: RUF043
        problem.best_outer(start(3).u)
    with pytest.raises(ValueError, match=r"`y` must be of shape \(N,\) for classes"):
        tts.EmpiricalProblem(NETWORK, X, CLASSES[:, None], loss="softmax")
