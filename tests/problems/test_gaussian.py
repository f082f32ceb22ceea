"""Exact risks over Gaussian inputs: against samples, known plateaus, and in every dynamics."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import tts_jax as tts

ERF, RELU, PROBIT = tts.Erf(0.8), tts.ReLU(1.3), tts.Probit(0.5)
SERIES = tts.HermiteSeries([0.3, 0.5, -0.4, 0.2], 1.5)


def params_of(network, width, inputs=3, outputs=None, seed=0):
    rng = np.random.default_rng(seed)
    p = width + int(network.outer_bias)
    u = {"w": jnp.asarray(rng.normal(size=(width, inputs)))}
    if network.bias:
        u["b"] = jnp.asarray(rng.normal(size=width))
    a = rng.normal(size=p if outputs is None else (p, outputs))
    return tts.Params(jnp.asarray(a), u)


def covariance(inputs=3):
    root = np.random.default_rng(5).normal(size=(inputs, inputs))
    return root @ root.T + 0.1 * np.eye(inputs)


def problem_of(activation, *, bias=True, outputs=None, other=None, **options):
    student = tts.TwoLayerNetwork(activation, bias=bias, outer_bias=bias)
    taught = tts.TwoLayerNetwork(other or activation, bias=bias, scaling="ntk")
    teacher = tts.Teacher(taught, params_of(taught, 2, outputs=outputs, seed=1))
    problem = tts.GaussianProblem(student, teacher, covariance(), **options)
    return problem, params_of(student, 4, outputs=outputs, seed=2)


@jax.jit
def parts(problem, params):
    """What a problem tells at some parameters, in one compilation."""
    zero = tts.Params(0 * params.a, params.u)
    best = problem.best_outer(params.u)
    risks = [problem.risk(at) for at in (params, zero, tts.Params(best, params.u))]
    return (*risks, *problem.normal_equations(params.u), best)


RISK = jax.jit(lambda problem, params: problem.risk(params))
LABEL = jax.jit(lambda problem, x: problem.label(x))
SLOPE = jax.jit(lambda problem, params: jax.value_and_grad(problem.risk)(params))


@pytest.mark.parametrize(
    ("activation", "other"),
    [
        (ERF, PROBIT),
        (RELU, tts.ReLU(0.6)),
        pytest.param(PROBIT, PROBIT, marks=pytest.mark.thorough),
    ],
    ids=["erf", "relu", "probit"],
)
@pytest.mark.parametrize("outputs", [2, pytest.param(None, marks=pytest.mark.thorough)])
def test_the_risk_is_the_mean_over_samples(activation, other, outputs):
    problem, params = problem_of(activation, other=other, outputs=outputs)
    count = 200_000
    x, y = problem.draw(jax.random.key(0), count)
    with jax.numpy_rank_promotion("allow"):
        residual = np.asarray(problem.predict(params, x) - y).reshape(count, -1)
    losses = np.sum(residual**2, axis=1)
    error = losses.std() / np.sqrt(count)
    risk = RISK(problem, params)
    assert abs(losses.mean() - risk) < 4 * error
    np.testing.assert_allclose(problem.sample_loss(params, x, y), losses.mean(), rtol=1e-12)


@pytest.mark.parametrize(
    ("activation", "bias", "outputs"),
    [
        (ERF, False, 2),
        (RELU, False, None),
        pytest.param(ERF, True, None, marks=pytest.mark.thorough),
        pytest.param(RELU, True, 2, marks=pytest.mark.thorough),
    ],
)
def test_the_normal_equations_are_those_of_the_risk(activation, bias, outputs):
    """Their quadratic form is the risk, up to the risk of a = 0."""
    problem, params = problem_of(activation, bias=bias, outputs=outputs)
    risk, zero, least, gram, moments, best = parts(problem, params)
    assert moments.shape == params.a.shape
    form = jnp.sum(params.a * (gram @ params.a - 2 * moments))
    np.testing.assert_allclose(zero + form, risk, rtol=1e-12)
    assert least < risk
    np.testing.assert_allclose(gram @ best, moments, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("outputs", [None, pytest.param(2, marks=pytest.mark.thorough)])
def test_a_ridge_does_not_pull_the_outer_bias_to_0(outputs):
    """A number that is added to the target is added to the bias, and changes nothing else."""
    problem, params = problem_of(ERF, outputs=outputs)
    taught = problem.target.params
    a = jnp.asarray(taught.a).at[0].add(1e6)
    raised = eqx.tree_at(lambda p: p.target.params.a, problem, a)
    best = jax.jit(lambda problem, u: problem.best_outer(u, ridge=1e-3))
    found, wanted = best(raised, params.u), best(problem, params.u)
    np.testing.assert_allclose(found.at[0].add(-1e6), wanted, atol=1e-8)


def test_the_penalty_is_added_and_the_noise_is_not():
    problem, params = problem_of(ERF, bias=False)
    other = problem_of(ERF, bias=False, penalty=0.3, noise=0.5)[0]
    square = jnp.sum(params.a**2)
    risk, _, _, gram, moments, _ = parts(problem, params)
    penalised, *_, best = parts(other, params)
    np.testing.assert_allclose(penalised, risk + 0.3 * square)
    x, y = other.draw(jax.random.key(1), 20_000)
    np.testing.assert_allclose(jnp.std(y - other.label(x)), 0.5, rtol=0.03)
    np.testing.assert_allclose(x.T @ x / 20_000, other.covariance, atol=0.3)
    np.testing.assert_allclose(other.covariance, covariance())
    np.testing.assert_array_equal(problem.label(x), other.label(x))
    np.testing.assert_allclose(gram @ best + 0.3 * best, moments, atol=1e-10)


@pytest.mark.parametrize("activation", [tts.Erf(0.8), tts.ReLU(1.3)], ids=["erf", "relu"])
def test_the_risk_of_the_teacher_is_0_and_finite_in_its_derivatives(activation):
    """Every student lies on a neuron of the teacher, or opposite to it, or vanishes."""
    network = tts.TwoLayerNetwork(activation, bias=False)
    best = params_of(network, 2)
    problem = tts.GaussianProblem(network, tts.Teacher(network, best))
    w = best.u["w"]
    more = tts.Params(
        jnp.concatenate([best.a, jnp.zeros(3)]),
        {"w": jnp.concatenate([w, w[:1], -w[:1], 0 * w[:1]])},
    )
    at, back = ravel_pytree(more)
    value, slope = SLOPE(problem, more)
    assert 0 <= value < 1e-14
    np.testing.assert_allclose(ravel_pytree(slope)[0], 0.0, atol=1e-14)
    bend = jax.jit(jax.hessian(lambda v: problem.risk(back(v))))(at)
    assert np.all(np.isfinite(bend))
    assert np.linalg.eigvalsh(bend)[0] > -1e-12


PLATEAUS = {2: 0.011611, 3: 0.020297, 4: 0.028377}
"""Half the risk of K equal students of K orthonormal teachers, D. Saad and S. Solla, 1995."""


@pytest.mark.parametrize("count", list(PLATEAUS))
def test_the_symmetric_plateau_has_its_height(count):
    network = tts.TwoLayerNetwork(tts.Erf(2**0.5), bias=False, outer_bias=False)
    teacher = tts.Teacher(network, tts.Params(np.ones(count), {"w": np.eye(count)}))
    problem = tts.GaussianProblem(network, teacher)

    def risk(length):
        return problem.risk(tts.Params(jnp.ones(count), {"w": jnp.full((count, count), length)}))

    value, slope = jax.jit(jax.value_and_grad(risk))(1 / np.sqrt(count * (2 * count - 1)))
    height = 2 * count / np.pi * (np.pi / 6 - count * np.arcsin(1 / (2 * count)))
    np.testing.assert_allclose(value, height, rtol=1e-12)
    np.testing.assert_allclose(value, 2 * PLATEAUS[count], atol=1e-6)
    np.testing.assert_allclose(slope, 0.0, atol=1e-14)


def test_a_rotation_and_more_inputs_change_nothing():
    network = tts.TwoLayerNetwork(RELU, bias=False)
    best, start = params_of(network, 2, seed=1), params_of(network, 4, seed=2)
    plane = np.linalg.qr(np.random.default_rng(0).normal(size=(784, 3)))[0].T

    def turned(params):
        return tts.Params(params.a, {"w": params.u["w"] @ plane})

    small = SLOPE(tts.GaussianProblem(network, tts.Teacher(network, best)), start)
    large = SLOPE(tts.GaussianProblem(network, tts.Teacher(network, turned(best))), turned(start))
    np.testing.assert_allclose(large[0], small[0], rtol=1e-12)
    np.testing.assert_allclose(large[1].u["w"], small[1].u["w"] @ plane, atol=1e-13)


def test_a_covariance_is_a_change_of_inputs():
    problem, params = problem_of(ERF, bias=False)
    root = np.linalg.cholesky(covariance())
    assert problem.inputs == 3
    taught = problem.target.params
    white = tts.GaussianProblem(
        problem.network,
        tts.Teacher(problem.target.network, tts.Params(taught.a, {"w": taught.u["w"] @ root})),
    )
    changed = tts.Params(params.a, {"w": params.u["w"] @ root})
    np.testing.assert_allclose(RISK(white, changed), RISK(problem, params), rtol=1e-13)
    assert white.covariance is None

    def of(scale):
        return tts.GaussianProblem(
            problem.network, problem.target, scale * jnp.asarray(covariance())
        ).risk(params)

    of = jax.jit(of)
    slope = jax.jit(jax.grad(of))(1.0)
    np.testing.assert_allclose(slope, (of(1 + 1e-5) - of(1 - 1e-5)) / 2e-5, rtol=1e-7)


def test_of_series_it_is_the_problem_of_a_sample_whose_rule_is_exact():
    """A grid of Gauss nodes integrates polynomials exactly: all the sample's results are known."""
    student = tts.TwoLayerNetwork(SERIES)
    taught = tts.TwoLayerNetwork(tts.HermiteSeries([0.2, 1.0, 0.5]), scaling="ntk")
    best, params = params_of(taught, 2, inputs=2, seed=1), params_of(student, 3, inputs=2, seed=2)
    exact = tts.GaussianProblem(student, tts.Teacher(taught, best), covariance(2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)  # exact up to degree 7
    x = np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2) @ np.linalg.cholesky(covariance(2)).T
    sample = tts.EmpiricalProblem(
        student, x, LABEL(exact, x), weights=np.outer(weights, weights).ravel()
    )

    @jax.jit
    def results(problem, params):
        slope = jax.value_and_grad(problem.risk)(params)
        return jax.tree.leaves((slope, problem.normal_equations(params.u)))

    for found, wanted in zip(results(exact, params), results(sample, params), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "activation", [ERF, RELU, PROBIT, SERIES], ids=["erf", "relu", "probit", "series"]
)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_it_keeps_the_contract_of_a_problem(activation, bias):
    problem, params = problem_of(activation, bias=bias)
    with jax.numpy_rank_promotion("allow"):
        assert tts.check_problem(problem, params) < 1e-8


SMALL = tts.TwoLayerNetwork(tts.Erf(2**0.5), bias=False, outer_bias=False)
TAUGHT = tts.Params(np.array([1.0, -0.5]), {"w": np.array([[1.0, 0.2], [-0.3, 1.0]])})
START = tts.Params(jnp.array([0.1, 0.2]), {"w": jnp.array([[0.5, 0.0], [0.1, 0.6]])})
TAUS = jnp.linspace(0.0, 1.0, 3)


@pytest.fixture(scope="module")
def small():
    return tts.GaussianProblem(SMALL, tts.Teacher(SMALL, TAUGHT))


def test_the_gradient_flow_goes_down(small):
    run = tts.simulate(small, tts.GradientFlow(0.1), START, TAUS)
    assert np.all(np.diff(run.risk) < 0)


@pytest.mark.thorough
def test_the_gradient_flow_meets_the_reduced_flow(small):
    reduced = tts.simulate(small, tts.ReducedFlow(ridge=1e-10), START, TAUS)
    assert np.all(np.diff(reduced.risk) < 0)
    best = parts(small, jax.tree.map(lambda leaf: leaf[-1], reduced.params))[-1]
    np.testing.assert_allclose(reduced.params.a[-1], best, rtol=1e-6)
    run = tts.simulate(small, tts.GradientFlow(1e-4), START, TAUS)
    np.testing.assert_allclose(run.params.u["w"][-1], reduced.params.u["w"][-1], atol=1e-3)
    np.testing.assert_allclose(run.risk[1:], reduced.risk[1:], rtol=1e-2)


@pytest.mark.thorough
def test_the_gradient_flow_runs_to_where_small_steps_run(small):
    run = tts.simulate(small, tts.GradientFlow(0.1, rtol=1e-7, atol=1e-7), START, TAUS)
    assert run.risk[-1] < run.risk[0]

    def step(params, _):
        def velocity(params):
            slope = jax.grad(small.risk)(params)
            return tts.Params(-slope.a / 0.1, {"w": -slope.u["w"]})

        def moved(by, size):
            return jax.tree.map(lambda x, v: x + size * v, params, by)

        # The classical method of order 4.
        h = 1 / 400
        one = velocity(params)
        two = velocity(moved(one, h / 2))
        three = velocity(moved(two, h / 2))
        four = velocity(moved(three, h))
        mean = jax.tree.map(
            lambda *k: (k[0] + 2 * k[1] + 2 * k[2] + k[3]) / 6, one, two, three, four
        )
        return moved(mean, h), None

    end = jax.jit(lambda params: jax.lax.scan(step, params, None, length=400)[0])(START)
    np.testing.assert_allclose(run.params.u["w"][-1], end.u["w"], atol=1e-5)
    np.testing.assert_allclose(run.params.a[-1], end.a, atol=1e-5)


@pytest.mark.thorough
def test_a_risk_that_is_no_number_any_more_ends_a_flow_with_its_status():
    """That of a rectifier grows with the square of the weights, that of an erf does not."""
    far = START._replace(u={"w": 1e155 * START.u["w"]})
    problem = tts.GaussianProblem(OTHER, tts.Teacher(OTHER, TAUGHT))
    run = tts.simulate(problem, tts.GradientFlow(0.1), far, TAUS, throw=False)
    assert run.status == tts.Status.NON_FINITE


def test_the_risk_of_steps_is_one_at_weights_of_any_length(small):
    risks = [RISK(small, START._replace(u={"w": s * START.u["w"]})) for s in (1e20, 1e80, 1e300)]
    np.testing.assert_allclose(risks, risks[0], rtol=1e-14)


@pytest.mark.thorough
def test_sgd_goes_down(small):
    sgd = tts.SGD(epsilon=0.5, step_size=0.02, batch_size=8)
    run = tts.simulate(small, sgd, START, jnp.array([0.0, 5.0]), key=jax.random.key(0))
    assert run.risk[-1] < 0.5 * run.risk[0]


def expect(*parts):
    return ".*".join(re.escape(part) for part in parts)


OTHER = tts.TwoLayerNetwork(tts.ReLU(), bias=False, outer_bias=False)
TEACHER = tts.Teacher(SMALL, TAUGHT)
WRONG = {
    "network": (
        lambda: tts.GaussianProblem(tts.ShallowNetwork(tts.Erf()), TEACHER),  # pyright: ignore
        ("`network` must be of type TwoLayerNetwork", "ShallowNetwork"),
    ),
    "activation": (
        lambda: tts.GaussianProblem(tts.TwoLayerNetwork(tts.Tanh()), TEACHER),
        ("`network` must be one with the activation Erf, Probit, ReLU or HermiteSeries", "Tanh"),
    ),
    "target": (
        lambda: tts.GaussianProblem(SMALL, tts.AdditiveSteps([0.5])),  # pyright: ignore
        ("`target` must be of type Teacher", "AdditiveSteps"),
    ),
    "kinds": (
        lambda: tts.GaussianProblem(OTHER, TEACHER),
        ("`target` must be one of a network with the activation ReLU", "Erf"),
    ),
    "a series and a step": (
        lambda: tts.GaussianProblem(
            tts.TwoLayerNetwork(SERIES, bias=False, outer_bias=False), TEACHER
        ),
        ("`target` must be one of a network with the activation HermiteSeries", "Erf"),
    ),
    "noise": (lambda: tts.GaussianProblem(SMALL, TEACHER, noise=-1.0), ("`noise`", ">= 0", "-1.0")),
    "penalty": (
        lambda: tts.GaussianProblem(SMALL, TEACHER, penalty=-1.0),
        ("`penalty` must be >= 0", "-1.0"),
    ),
    "covariance of another shape": (
        lambda: tts.GaussianProblem(SMALL, TEACHER, np.eye(3)),
        ("`covariance` must be of shape (2, 2) for a teacher of 2 inputs", "(3, 3)"),
    ),
    "covariance with one axis": (
        lambda: tts.GaussianProblem(SMALL, TEACHER, np.ones(2)),
        ("`covariance` must be of shape (d, d)", "(2,)"),
    ),
    "covariance not symmetric": (
        lambda: tts.GaussianProblem(SMALL, TEACHER, [[1.0, 0.5], [0.0, 1.0]]),  # pyright: ignore
        ("`covariance` must be symmetric",),
    ),
    "covariance indefinite": (
        lambda: tts.GaussianProblem(SMALL, TEACHER, [[1.0, 2.0], [2.0, 1.0]]),  # pyright: ignore
        ("`covariance` must be positive definite", "least eigenvalue is -1"),
    ),
    "covariance not finite": (
        lambda: tts.GaussianProblem(SMALL, TEACHER, [[np.inf, 0.0], [0.0, 1.0]]),  # pyright: ignore
        ("`covariance` must be finite",),
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_arguments_are_named(name):
    call, parts = WRONG[name]
    with pytest.raises(ValueError, match=expect(*parts)):
        call()


def test_wrong_parameters_and_samples_are_named(small):
    with pytest.raises(
        ValueError, match=expect('`params.u["w"]` must be of shape (m, 2)', "(2, 3)")
    ):
        small.check(tts.Params(jnp.zeros(2), {"w": jnp.zeros((2, 3))}))
    with pytest.raises(ValueError, match=expect("`params.a` must be of shape (2,)", "(2, 4)")):
        small.check(tts.Params(jnp.zeros((2, 4)), START.u))
    with pytest.raises(ValueError, match=expect("`samples` must be with x of 2 inputs", "(5, 3)")):
        small.check_samples(jnp.zeros((5, 3)))
    small.check_samples(jnp.zeros((5, 2)))
    small.check(START)
