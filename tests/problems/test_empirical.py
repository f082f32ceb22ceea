"""Empirical problems against NumPy: both losses, d inputs, minibatches, least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.problems.sample import BLOCK

ETA = 0.2


def cubic(z):
    rising = np.where(z <= 0, 4 * (z + 0.5) ** 3, 1 - 4 * (0.5 - z) ** 3)
    return np.where(z <= -0.5, 0.0, np.where(z >= 0.5, 1.0, rising))


def slope(z):
    return np.where(np.abs(z) < 0.5, 12 * (0.5 - np.abs(z)) ** 2, 0.0)


def shallow(count, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(size=count), rng.normal(size=count)
    a, u = rng.normal(size=5), rng.uniform(size=4)
    features = np.column_stack([np.ones(count), cubic((x[:, None] - u) / ETA)])
    return tts.ShallowNetwork(tts.CubicStep(ETA)), x, y, a, u, features


def additive(count, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(size=(count, 3)), rng.normal(size=count)
    a, u = rng.normal(size=(3, 4)), rng.uniform(size=(3, 4))
    return tts.AdditiveNetwork(tts.CubicStep(ETA)), x, y, a, u, cubic((x[:, :, None] - u) / ETA)


def params_of(a, u):
    return tts.Params(jnp.asarray(a), jnp.asarray(u))


@pytest.mark.parametrize("make", [shallow, additive])
@pytest.mark.parametrize("count", [37, 2 * BLOCK + 6], ids=["small", "in blocks"])
@pytest.mark.parametrize("loss", ["squared", "norm"])
def test_the_risk_and_its_gradient_are_those_of_numpy(make, count, loss):
    network, x, y, a, u, features = make(count)
    problem = tts.EmpiricalProblem(network, x, y, loss=loss)
    r = features.reshape(count, -1) @ a.ravel() - y
    if loss == "squared":
        expected, by_r = np.mean(r**2), 2 * r / count
    else:
        size = np.sqrt(np.sum(r**2))
        expected, by_r = size / count, r / size / count
    inner = (x[..., None] - u) / ETA
    weights = a[1:] if make is shallow else a
    by_u = np.tensordot(by_r, -weights / ETA * slope(inner), axes=1)
    risk, found = jax.jit(jax.value_and_grad(lambda p: problem.risk(p)))(params_of(a, u))
    np.testing.assert_allclose(risk, expected, rtol=1e-12)
    np.testing.assert_allclose(found.a, np.tensordot(by_r, features, axes=1), rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(found.u, by_u, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("make", [shallow, additive])
@pytest.mark.parametrize("loss", ["squared", "norm"])
def test_the_best_outer_layer_is_least_squares(make, loss):
    network, x, y, a, u, features = make(200)
    problem = tts.EmpiricalProblem(network, x, y, loss=loss)
    expected = np.linalg.lstsq(features.reshape(200, -1), y, rcond=None)[0].reshape(a.shape)
    np.testing.assert_allclose(
        jax.jit(lambda u: problem.best_outer(u, ridge=1e-12))(jnp.asarray(u)),
        expected,
        rtol=1e-7,
        atol=1e-9,
    )


def test_the_norm_loss_at_an_exact_fit_is_zero_with_a_derivative_of_zero():
    # Neurons on the inputs: every feature is 0, 1/2 or 1, so that the fit is exact in floats.
    u = np.asarray([0.25, 0.5, 0.75])
    params = params_of(np.asarray([1.0, 2.0, -4.0, 6.0]), u)
    network = tts.ShallowNetwork(tts.CubicStep(ETA))
    problem = tts.EmpiricalProblem(network, u, [2.0, 1.0, 2.0], loss="norm")
    assert abs(problem.risk(params._replace(a=2 * params.a))) > 0
    risk, found = jax.jit(jax.value_and_grad(lambda p: problem.risk(p)))(params)
    assert risk == 0
    np.testing.assert_array_equal(found.a, 0.0)
    np.testing.assert_array_equal(found.u, 0.0)


def test_minibatches_are_samples_with_their_labels_drawn_with_replacement():
    network, x, y, *_ = additive(10)
    problem = tts.EmpiricalProblem(network, x, y)
    drawn, labels = map(np.asarray, problem.draw(jax.random.key(0), 5000))
    assert drawn.shape == (5000, 3)
    index = np.argmin(np.abs(drawn[:, None, 0] - x[None, :, 0]), axis=1)
    np.testing.assert_array_equal(drawn, x[index])
    np.testing.assert_array_equal(labels, y[index])
    # chi squared with 9 degrees of freedom, p = 0.001
    assert np.sum((np.bincount(index, minlength=10) - 500.0) ** 2 / 500) < 27.9


def test_the_loss_of_a_batch_is_the_risk_on_that_batch():
    network, x, y, a, u, features = shallow(20)
    problem = tts.EmpiricalProblem(network, x, y, loss="norm")
    found = problem.sample_loss(params_of(a, u), jnp.asarray(x[:6]), jnp.asarray(y[:6]))
    np.testing.assert_allclose(found, np.linalg.norm(features[:6] @ a - y[:6]) / 6, rtol=1e-13)


@pytest.mark.parametrize(
    ("network", "target", "inputs", "label"),
    [
        (
            tts.ShallowNetwork(tts.CubicStep(ETA)),
            tts.PiecewiseConstant([0.5], [1.0, 3.0]),
            None,
            lambda x: 1.0 + 2.0 * (x >= 0.5),
        ),
        (
            tts.AdditiveNetwork(tts.CubicStep(ETA)),
            tts.AdditiveSteps([0.3, 0.7]),
            2,
            lambda x: np.sum(x >= 0.3, axis=1) + np.sum(x >= 0.7, axis=1),
        ),
    ],
)
def test_a_sampled_problem_is_labelled_by_the_target(network, target, inputs, label):
    problem = tts.sample_problem(
        jax.random.key(3), network, target, 400, inputs=inputs, loss="norm"
    )
    x = np.asarray(problem.x)
    assert x.shape == ((400,) if inputs is None else (400, inputs))
    assert problem.loss == "norm"
    np.testing.assert_array_equal(problem.y, label(x))
    assert 0 <= x.min() < 0.02
    assert 0.98 < x.max() < 1


def test_predict_is_the_network_at_any_inputs():
    network, x, y, a, u, features = additive(12)
    problem = tts.EmpiricalProblem(network, x[:5], y[:5])
    expected = features.reshape(12, -1) @ a.ravel()
    np.testing.assert_allclose(problem.predict(params_of(a, u), jnp.asarray(x)), expected)


@pytest.mark.parametrize("make", [shallow, additive])
def test_inputs_off_the_scale_of_the_neurons_are_told_with_their_range(make):
    network, x, y, a, u, _ = make(20)
    wide = np.copy(x)
    wide.flat[[3, 5]] = -3.0, 7.0
    problem = tts.EmpiricalProblem(network, wide, y)
    wanted = r"`x` lie in \[-3, 7\], but all neurons start in \[0, 1\].*Scale the inputs"
    with (
        pytest.warns(tts.OffScaleWarning, match=wanted) as told,
        pytest.raises(ValueError, match="`samples` must be None"),  # nothing is to be compiled
    ):
        tts.simulate(problem, tts.GradientFlow(0.1), params_of(a, u), [0.1], samples=(x, y))
    assert [warning.filename for warning in told] == [__file__]


def test_inputs_in_a_small_part_of_the_scale_are_told_too():
    network, _, y, a, u, _ = shallow(20)
    close = tts.EmpiricalProblem(network, np.linspace(0.5, 0.5001, 20), y)
    with pytest.warns(tts.OffScaleWarning, match=r"lie in \[0.5, 0.5001\]"):
        close.check(params_of(a, u))


def test_inputs_on_the_scale_and_starts_that_cover_others_are_not_warned_of():
    network, x, y, a, u, _ = shallow(20)
    tts.EmpiricalProblem(network, x, y).check(params_of(a, u))
    problem = tts.EmpiricalProblem(network, 10 * x - 3, y)
    problem.check(params_of(a, 10 * u - 3))
    with pytest.warns(tts.OffScaleWarning):
        tts.Study(problem, tts.GradientFlow(0.1), {"width": 4}, [0.1])

    def start(key, width):
        return params_of(a, 10 * u - 3)

    tts.Study(problem, tts.GradientFlow(0.1), {"width": 4}, [0.1], start=start)


def test_the_ridge_does_not_pull_the_bias_also_inside_a_run_and_with_a_penalty():
    network = tts.TwoLayerNetwork(tts.Tanh())
    keys = jax.random.split(jax.random.key(5), 2)
    x = jax.random.normal(keys[0], (40, 2))
    start = tts.init_two_layer(keys[1], network, 2, 3, bias_scale=1.0)
    low = tts.EmpiricalProblem(network, x, jnp.sin(x[:, 0]))
    high = tts.EmpiricalProblem(network, x, jnp.sin(x[:, 0]) + 1000.0)
    risks = [
        jax.jit(lambda p, u: p.risk(tts.Params(p.best_outer(u, ridge=1e-4), u)))(each, start.u)
        for each in (low, high)
    ]
    np.testing.assert_allclose(risks[1], risks[0], rtol=1e-6)
    heavy = tts.EmpiricalProblem(network, x, jnp.sin(x[:, 0]) + 3.0, penalty=0.1)
    best = heavy.best_outer(start.u)
    slope = jax.grad(lambda a: heavy.risk(tts.Params(a, start.u)))(best)
    np.testing.assert_allclose(slope, 0.0, atol=1e-9)
