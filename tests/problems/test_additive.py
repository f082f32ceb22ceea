"""The exact risk of additive networks: against a grid, against samples, and by its own pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts

TARGET = tts.AdditiveSteps([0.3, 0.7], [1.0, -2.5])
NETWORK = tts.AdditiveNetwork(tts.CubicStep(eta=0.1))
PROBLEM = tts.AdditiveProblem(NETWORK, TARGET, 2)
RNG = np.random.default_rng(0)
PARAMS = tts.Params(RNG.normal(size=(2, 3)), RNG.uniform(-0.1, 1.1, size=(2, 3)))


def on_a_grid(params):
    """The risk by a product rule of midpoints, for two inputs. The jumps are between two cells."""
    axis = (np.arange(1000) + 0.5) / 1000
    parts = [
        np.asarray(NETWORK.activation((axis[:, None] - u[None]) / 0.1)) @ a
        - np.asarray((axis[:, None] >= np.array([0.3, 0.7])) @ np.array([1.0, -2.5]))
        for a, u in zip(*params, strict=True)
    ]
    return np.mean((parts[0][:, None] + parts[1][None, :]) ** 2)


def test_it_is_the_integral_over_the_square():
    assert float(PROBLEM.risk(PARAMS)) == pytest.approx(on_a_grid(PARAMS), rel=1e-6)
    smooth = tts.AdditiveProblem(NETWORK, tts.AdditiveSteps([0.5], [0.0]), 2)
    x = np.stack(np.meshgrid(*2 * [(np.arange(500) + 0.5) / 500]), axis=-1)
    values = np.asarray(NETWORK(PARAMS, x))
    assert float(smooth.risk(PARAMS)) == pytest.approx(np.mean(values**2), rel=1e-6)


@pytest.mark.thorough
def test_with_one_input_it_is_the_problem_of_one_input():
    params = tts.Params(PARAMS.a[:1], PARAMS.u[:1])
    target = tts.PiecewiseConstant([0.3, 0.7], [0.0, 1.0, -1.5])
    one = tts.Problem(tts.ShallowNetwork(NETWORK.activation, bias=False), target)
    expected = one.risk(tts.Params(PARAMS.a[0], PARAMS.u[0]))
    assert float(PROBLEM.risk(params)) == pytest.approx(float(expected), rel=1e-12)


def test_a_large_sample_has_about_the_same_risk():
    rng = np.random.default_rng(1)
    params = tts.Params(rng.normal(size=(10, 4)), rng.uniform(size=(10, 4)))
    x = rng.uniform(size=(40_000, 10))
    squares = (np.asarray(NETWORK(params, x)) - np.asarray(TARGET(x))) ** 2
    error = squares.std() / np.sqrt(squares.size)
    assert abs(float(PROBLEM.risk(params)) - squares.mean()) < 4 * error


def test_the_best_outer_layer_has_no_gradient_and_the_equations_are_the_hessian():
    gram, moments = PROBLEM.normal_equations(PARAMS.u)

    def risk(a):
        return PROBLEM.risk(tts.Params(a.reshape(2, 3), PARAMS.u))

    flat = jnp.zeros(6)
    np.testing.assert_allclose(2 * gram, jax.hessian(risk)(flat), atol=1e-12)
    np.testing.assert_allclose(-2 * moments, jax.grad(risk)(flat), atol=1e-12)
    best = PROBLEM.best_outer(PARAMS.u)
    np.testing.assert_allclose(jax.grad(risk)(best.ravel()), 0.0, atol=1e-8)


def test_a_penalty_is_added():
    heavier = tts.AdditiveProblem(NETWORK, TARGET, 2, penalty=0.5)
    more = float(heavier.risk(PARAMS) - PROBLEM.risk(PARAMS))
    assert more == pytest.approx(0.5 * np.sum(PARAMS.a**2))


@pytest.mark.parametrize(
    "dynamics",
    [
        tts.SGD(0.1, 0.01),
        pytest.param(tts.GradientFlow(0.1, rtol=1e-5), marks=pytest.mark.thorough),
        pytest.param(tts.ReducedFlow(rtol=1e-5), marks=pytest.mark.thorough),
    ],
    ids=lambda dynamics: type(dynamics).__name__,
)
def test_the_dynamics_run_on_it(dynamics):
    run = tts.simulate(PROBLEM, dynamics, PARAMS, [0.0, 0.02], key=jax.random.key(0))
    assert run.risk[-1] < run.risk[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((tts.ShallowNetwork(tts.Tanh()), TARGET), "`network` must be"),
        ((NETWORK, tts.PiecewiseConstant([0.5], [0.0, 1.0])), "`target` must be"),
    ],
)
def test_other_parts_are_refused(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        tts.AdditiveProblem(*given, 2)


@pytest.mark.parametrize(("u", "message"), [((3,), r"\(d, m\)"), ((3, 4), r"\(2, m\)")])
def test_parameters_of_another_shape_are_refused(u, message):
    with pytest.raises(ValueError, match="`params.u` must be of shape " + message):
        PROBLEM.check(tts.Params(jnp.ones(u), jnp.ones(u)))
