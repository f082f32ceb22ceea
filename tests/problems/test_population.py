"""The exact risk, its gradient and its Hessian, against mathematics written a second time."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import erf, expit

import tts_jax as tts

ETA = 0.1
JUMPS = (0.3, 0.45, 0.8)
VALUES = (1.0, -2.0, 3.0, 0.5)
WIDTH = 5
FEW = settings(max_examples=25, deadline=None, derandomize=True)


def as_arrays(tree):
    """Python numbers as arrays, so that one compilation serves all of them."""
    return jax.tree.map(lambda v: jnp.asarray(v) if eqx.is_inexact_array_like(v) else v, tree)


@eqx.filter_jit
def risk(problem, params):
    return problem.risk(params)


@eqx.filter_jit
def gradient(problem, params):
    return jax.grad(problem.risk)(params)


@eqx.filter_jit
def normal_equations(problem, u):
    return problem.normal_equations(u)


@eqx.filter_jit
def hessian(problem, flat):
    """Of the risk, in the coordinates (a, u) of one vector."""
    return jax.hessian(lambda v: problem.risk(split(v)))(flat)


def split(flat):
    return tts.Params(flat[: WIDTH + 1], flat[WIDTH + 1 :])


def step_problem(eta=ETA, jumps=JUMPS, values=VALUES):
    target = tts.PiecewiseConstant(jumps, values)
    return as_arrays(tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta)), target))


# The mathematics, in NumPy and piece by piece as in the definition.


def cubic(z):
    rising = np.where(z <= 0, 4 * (z + 0.5) ** 3, 1 - 4 * (0.5 - z) ** 3)
    return np.where(z <= -0.5, 0.0, np.where(z >= 0.5, 1.0, rising))


def cubic_slope(z):
    return np.where(np.abs(z) < 0.5, 12 * (0.5 - np.abs(z)) ** 2, 0.0)


def steps(x, jumps=JUMPS, values=VALUES):
    total = np.full(np.shape(x), values[0])
    for jump, below, above in zip(jumps, values[:-1], values[1:], strict=True):
        total = total + (above - below) * (x >= jump)
    return total


def output(sigma, eta, a, u, x):
    assert len(a) == len(u) + 1
    return a[0] + sum(weight * sigma((x - inner) / eta) for weight, inner in zip(a[1:], u))  # noqa: B905


def pieces(points):
    inside = [float(p) for p in np.ravel(points) if 0 < p < 1]
    edges = sorted({0.0, 1.0, *inside})
    # SciPy gives up between points that are a rounding apart, where nothing is to be found.
    return [(low, high) for low, high in itertools.pairwise(edges) if high - low > 1e-15]


def integral(function, points):
    """Adaptive, on each piece of [0, 1] between the points."""
    return sum(quad(function, low, high, epsabs=1e-15)[0] for low, high in pieces(points))


def gauss(function, points):
    """A rule of 12 points on every piece: exact for the polynomials below, and vectorised."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    total = 0.0
    for low, high in pieces(points):
        x = (low + high) / 2 + (high - low) / 2 * nodes
        total += (high - low) / 2 * np.sum(weights * function(x))
    return total


def cubic_points(u, eta=ETA, jumps=JUMPS):
    return [*np.add.outer(u, [-eta / 2, 0.0, eta / 2]).ravel(), *jumps]


def written_gradient(a, u):
    """2 int (f - f*) df/dtheta, with every factor from the definition."""
    points = cubic_points(u)

    def moment(feature):
        def integrand(x):
            return 2 * (output(cubic, ETA, a, u, x) - steps(x)) * feature(x)

        return gauss(integrand, points)

    by_a = [moment(np.ones_like), *(moment(lambda x, v=v: cubic((x - v) / ETA)) for v in u)]
    by_u = [
        moment(lambda x, w=w, v=v: -w / ETA * cubic_slope((x - v) / ETA))
        for w, v in zip(a[1:], u, strict=True)
    ]
    return np.asarray(by_a), np.asarray(by_u)


# Any order, coincident, on a jump, with a knot on a jump, cut by a border, outside.
special = [*JUMPS, 0.0, 1.0, ETA / 2, 1 - ETA / 2, 0.5, 0.3 + ETA / 2, 0.45 - ETA / 2, -0.05, 1.2]
positions = st.lists(
    st.one_of(st.sampled_from(special), st.floats(-0.3, 1.3)), min_size=WIDTH, max_size=WIDTH
)
outer = st.lists(st.floats(-3, 3), min_size=WIDTH + 1, max_size=WIDTH + 1)

HARD = {
    "in any order": [0.7, 0.1, 0.9, 0.33, 0.5],
    "coincident": [0.6, 0.6, 0.6, 0.2, 0.9],
    "on jumps": [0.8, 0.3, 0.3, 0.45, 0.6],
    "a knot on a jump": [0.35, 0.25, 0.5, 0.75, 0.1],
    "cut by a border": [0.01, 0.98, -0.03, 1.04, 0.5],
    "touching a border": [0.0, 1.0, 0.05, 0.95, 0.5],
    "outside": [-0.2, 1.3, -0.06, 1.06, 0.4],
}
WEIGHTS = [0.3, 1.5, -2.0, 0.7, 2.5, -1.1]
hard = pytest.mark.parametrize("u", HARD.values(), ids=HARD)


def params_of(a, u):
    return tts.Params(jnp.asarray(a, float), jnp.asarray(u, float))


@FEW
@given(outer, positions)
@example([1.5, 0.0, 0.0, 0.0, 0.0, 2.75], [0.3, 0.3, 0.3, 0.3, 1.1125369292536007e-308])
def test_risk_is_the_integral_wherever_the_neurons_are(a, u):
    def integrand(x):
        return (output(cubic, ETA, a, u, x) - steps(x)) ** 2

    expected = integral(integrand, cubic_points(u))
    np.testing.assert_allclose(
        risk(step_problem(), params_of(a, u)), expected, rtol=1e-12, atol=1e-12
    )


@FEW
@given(outer, positions)
def test_gradient_is_the_written_one_wherever_the_neurons_are(a, u):
    found = gradient(step_problem(), params_of(a, u))
    by_a, by_u = written_gradient(a, u)
    # Terms of size |a|^2 / eta cancel.
    np.testing.assert_allclose(found.a, by_a, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(found.u, by_u, rtol=1e-11, atol=1e-10)


@hard
def test_gradient_matches_finite_differences(u):
    problem, flat = step_problem(), np.asarray([*WEIGHTS, *u])
    found = gradient(problem, split(jnp.asarray(flat)))
    h = 1e-6
    differences = [
        (risk(problem, split(jnp.asarray(flat + e))) - risk(problem, split(jnp.asarray(flat - e))))
        / (2 * h)
        for e in h * np.eye(flat.size)
    ]
    # The third derivative jumps where knots meet: the differences err by h^2 / eta^2 |a|^2.
    np.testing.assert_allclose(np.concatenate(found), differences, rtol=1e-7, atol=2e-8)


@hard
def test_hessian_matches_finite_differences_of_the_gradient(u):
    problem, flat = step_problem(), np.asarray([*WEIGHTS, *u])
    found = np.asarray(hessian(problem, jnp.asarray(flat)))
    np.testing.assert_allclose(found, found.T, atol=1e-11)
    h = 1e-7

    def slope(v):
        return np.concatenate(gradient(problem, split(jnp.asarray(v))))

    differences = [(slope(flat + e) - slope(flat - e)) / (2 * h) for e in h * np.eye(flat.size)]
    # Entries reach 1e3 = |a|^2 / eta^2, and jumps of the third derivative 1e4: h times that.
    np.testing.assert_allclose(found, differences, rtol=1e-6, atol=5e-3)
    gone = [WIDTH + 1 + j for j, v in enumerate(u) if not -ETA / 2 < v < 1 + ETA / 2]
    np.testing.assert_array_equal(found[gone], 0.0)


@FEW
@given(st.lists(st.floats(ETA / 2, 1 - ETA / 2), min_size=WIDTH, max_size=WIDTH))
def test_normal_equations_are_the_closed_form_inside(u):
    """The Gram matrix depends on distances alone while no transition is cut by a border."""
    u = np.asarray(u)
    t = np.abs(u[:, None] - u[None, :]) / ETA
    near, nearer = np.maximum(1 - t, 0), np.maximum(0.5 - t, 0)
    inner = 1 - np.maximum(u[:, None], u[None, :])
    inner -= ETA * (0.8 / 7 * near**7 - 1.6 * nearer**6)
    gram = np.block([[np.ones((1, 1)), 1 - u[None, :]], [1 - u[:, None], inner]])
    found, moments = normal_equations(step_problem(), jnp.asarray(u))

    def primitive(z):
        """Of the cubic step: 0 below its transition and z above it."""
        return np.where(z <= 0, np.maximum(z + 0.5, 0) ** 4, z + np.maximum(0.5 - z, 0) ** 4)

    edges = np.asarray([0.0, *JUMPS, 1.0])
    parts = ETA * np.diff(primitive((edges[None, :] - u[:, None]) / ETA), axis=1)
    by_hand = np.concatenate([[np.diff(edges) @ VALUES], parts @ np.asarray(VALUES)])
    np.testing.assert_allclose(found, gram, rtol=0, atol=1e-14)
    np.testing.assert_allclose(moments, by_hand, rtol=0, atol=1e-14)


# Other activations and other targets.


def relu(z):
    return np.maximum(z, 0.0)


@pytest.mark.parametrize("u", [HARD["in any order"], HARD["on jumps"], HARD["outside"]])
@pytest.mark.parametrize("eta", [1.0, 0.2])
def test_risk_of_relu_units_is_the_integral(u, eta):
    problem = as_arrays(
        tts.Problem(tts.ShallowNetwork(tts.ReLU(eta)), tts.PiecewiseConstant(JUMPS, VALUES))
    )

    def integrand(x):
        return (output(relu, eta, WEIGHTS, u, x) - steps(x)) ** 2

    expected = integral(integrand, [*u, *JUMPS])
    np.testing.assert_allclose(risk(problem, params_of(WEIGHTS, u)), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("activation", "sigma"),
    [(tts.Logistic, expit), (tts.Tanh, np.tanh), (tts.Erf, erf)],
    ids=["logistic", "tanh", "erf"],
)
def test_risk_of_smooth_units_errs_less_than_stated(activation, sigma):
    scale = np.sum(np.square(WEIGHTS)) + np.sum(np.square(VALUES))
    for eta in (4e-3, 0.05, 0.6):
        problem = as_arrays(
            tts.Problem(tts.ShallowNetwork(activation(eta)), tts.PiecewiseConstant(JUMPS, VALUES))
        )
        for u in (HARD["in any order"], HARD["cut by a border"], HARD["outside"]):
            points = [*np.add.outer(u, eta * np.linspace(-40, 40, 41)).ravel(), *JUMPS]

            def integrand(x, eta=eta, u=u):
                return (output(sigma, eta, WEIGHTS, u, x) - steps(x)) ** 2

            error = risk(problem, params_of(WEIGHTS, u)) - gauss(integrand, points)
            assert abs(error) < 1e-12 * scale


def test_gradient_of_smooth_units_matches_finite_differences():
    """Also for a neuron in the border, one outside and one on a jump."""
    problem = as_arrays(
        tts.Problem(tts.ShallowNetwork(tts.Tanh(0.05)), tts.PiecewiseConstant(JUMPS, VALUES))
    )
    flat = np.asarray([*WEIGHTS, 0.3, 0.02, 1.05, 0.6, 0.61])
    found = np.concatenate(gradient(problem, split(jnp.asarray(flat))))
    h = 1e-5
    differences = [
        (risk(problem, split(jnp.asarray(flat + e))) - risk(problem, split(jnp.asarray(flat - e))))
        / (2 * h)
        for e in h * np.eye(flat.size)
    ]
    np.testing.assert_allclose(found, differences, rtol=1e-6, atol=1e-6)


def test_risk_against_a_teacher_is_the_integral_and_vanishes_at_the_teacher():
    network = tts.ShallowNetwork(tts.CubicStep(ETA))
    taught = params_of([0.5, 1.0, -2.0], [0.33, 0.99])
    problem = as_arrays(tts.Problem(network, tts.Teacher(network, taught)))

    def integrand(x):
        mine = output(cubic, ETA, WEIGHTS, HARD["cut by a border"], x)
        return (mine - output(cubic, ETA, np.asarray(taught.a), np.asarray(taught.u), x)) ** 2

    points = cubic_points([*HARD["cut by a border"], *np.asarray(taught.u)])
    found = risk(problem, params_of(WEIGHTS, HARD["cut by a border"]))
    np.testing.assert_allclose(found, integral(integrand, points), rtol=1e-12)
    # The same function with a neuron to spare, split in two and shuffled.
    same = params_of([0.5, -2.0, 0.4, 0.6], [0.99, 0.33, 0.33])
    assert abs(risk(problem, same)) < 1e-30


@pytest.mark.parametrize(
    ("target", "function", "kinks"),
    [
        (tts.Function(lambda x: jnp.sin(20 * x)), lambda x: np.sin(20 * x), []),
        (
            tts.Function(lambda x: x**3 - x, degree=3),
            lambda x: x**3 - x,
            [],
        ),
        (
            tts.Function(lambda x: jnp.where(x >= 0.4, jnp.exp(x), 0.0), kinks=[0.4]),
            lambda x: np.where(x >= 0.4, np.exp(x), 0.0),
            [0.4],
        ),
        (
            tts.Function(lambda x: jnp.abs(x - 0.4) ** 5, kinks=[0.4], degree=5),
            lambda x: np.abs(x - 0.4) ** 5,
            [0.4],
        ),
    ],
    ids=["smooth", "polynomial", "with a jump", "of a higher degree than the network"],
)
def test_risk_against_any_function_is_the_integral(target, function, kinks):
    problem = as_arrays(tts.Problem(tts.ShallowNetwork(tts.CubicStep(ETA)), target))
    u = [0.4, 0.7, 0.01, 0.4, 1.3]  # two of them on the kink

    def integrand(x):
        return (output(cubic, ETA, WEIGHTS, u, x) - function(x)) ** 2

    expected = integral(integrand, cubic_points(u, jumps=kinks))
    np.testing.assert_allclose(risk(problem, params_of(WEIGHTS, u)), expected, rtol=1e-12)


# Derivatives by the numbers of the problem.


@functools.cache
def problem_gradient():
    def of_numbers(numbers, params):
        jumps, values, eta = numbers
        target = tts.PiecewiseConstant(jumps, values)
        return tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta)), target).risk(params)

    return jax.jit(of_numbers), jax.jit(jax.grad(of_numbers))


@hard
def test_gradient_by_jumps_values_and_eta(u):
    """The risk is C1 in all of them, also with neurons on the jumps: one true derivative."""
    value, slope = problem_gradient()
    params = params_of(WEIGHTS, u)
    numbers = (jnp.asarray(JUMPS), jnp.asarray(VALUES), jnp.asarray(ETA))
    by_jumps, by_values, by_eta = slope(numbers, params)

    # Moving a jump trades the squared error on its one side for that on the other.
    at = output(cubic, ETA, WEIGHTS, u, np.asarray(JUMPS))
    values = np.asarray(VALUES)
    expected = (at - values[:-1]) ** 2 - (at - values[1:]) ** 2
    np.testing.assert_allclose(by_jumps, expected, rtol=1e-12, atol=1e-12)

    edges = [0.0, *JUMPS, 1.0]
    for k in range(len(VALUES)):

        def excess(x, k=k):
            inside = (x >= edges[k]) & (x < edges[k + 1])
            return -2 * (output(cubic, ETA, WEIGHTS, u, x) - VALUES[k]) * inside

        np.testing.assert_allclose(by_values[k], gauss(excess, cubic_points(u)), atol=1e-13)

    h = 1e-6
    apart = [value((numbers[0], numbers[1], numbers[2] + d), params) for d in (h, -h)]
    np.testing.assert_allclose(by_eta, (apart[0] - apart[1]) / (2 * h), rtol=1e-7, atol=1e-7)


def test_gradient_by_jumps_with_a_neuron_on_a_jump_matches_finite_differences():
    value, slope = problem_gradient()
    params = params_of(WEIGHTS, HARD["on jumps"])
    jumps, rest = np.asarray(JUMPS), (jnp.asarray(VALUES), jnp.asarray(ETA))
    h = 1e-6
    differences = [
        (value((jumps + e, *rest), params) - value((jumps - e, *rest), params)) / (2 * h)
        for e in h * np.eye(jumps.size)
    ]
    np.testing.assert_allclose(
        slope((jnp.asarray(jumps), *rest), params)[0], differences, rtol=1e-7, atol=1e-8
    )


# The reference numbers of the paper's problem.


def test_risk_at_the_start_of_the_paper(problem, start):
    np.testing.assert_allclose(risk(as_arrays(problem), start), 10.6, rtol=1e-15)


def test_floor_of_the_paper(problem):
    params = params_of([1.0, 4.0, -4.0, 2.0, -2.0, 4.0], problem.target.jumps)
    np.testing.assert_allclose(risk(as_arrays(problem), params), 0.008, rtol=1e-13)


def test_smallest_eigenvalue_at_the_start_of_the_paper(problem, start):
    """Two neurons start 0.006 eta apart."""
    smallest = np.linalg.eigvalsh(2 * normal_equations(as_arrays(problem), start.u)[0])[0]
    assert 2.45e-7 <= smallest < 2.55e-7


def test_best_outer_is_a_minimum_of_the_risk(problem, start):
    best = jax.jit(lambda u: problem.best_outer(u, ridge=1e-12))(start.u)
    slope = gradient(as_arrays(problem), tts.Params(best, start.u)).a
    # The relative ridge of 1e-12 leaves this much, for weights up to |a|.
    assert np.max(np.abs(slope)) < 1e-11 * np.max(np.abs(best))


def test_draw_is_uniform_labelled_by_the_target_and_sample_loss_estimates_the_risk(problem, start):
    x, y = problem.draw(jax.random.key(0), 100_000)
    assert x.shape == y.shape == (100_000,)
    counts = np.histogram(x, bins=10, range=(0, 1))[0]
    assert counts.sum() == 100_000
    assert np.sum((counts - 1e4) ** 2 / 1e4) < 27.9  # chi squared with 9 degrees, p = 0.001
    np.testing.assert_array_equal(
        y, steps(np.asarray(x), *map(np.asarray, (problem.target.jumps, problem.target.values)))
    )
    # y^2 is 1, 9 or 25: its mean errs by about 11 / sqrt(1e5) = 0.035.
    assert abs(problem.sample_loss(start, x, y) - 10.6) < 0.15


@pytest.mark.parametrize(
    ("a", "expected"),
    [
        ("abc", "`params.a` must be real numbers"),
        (np.array([0, 1, 0.5]) + 0j, "`params.a` must be real numbers, but is of dtype complex"),
        (np.ma.masked_less([-9.0, 1.0, 0.5], 0), "`params.a` must be without masked entries"),
    ],
)
def test_the_risk_of_what_is_no_number_is_refused(problem, a, expected):
    with pytest.raises(ValueError, match=expected):
        problem.risk(tts.Params(a, jnp.array([0.3, 0.7])))


def test_the_risk_of_lists_is_refused_by_name(problem):
    with pytest.raises(ValueError, match=r"`params\.a` must be one array, but is a list"):
        problem.risk(tts.Params([0.0, 1.0, 0.5], [0.3, 0.7]))
