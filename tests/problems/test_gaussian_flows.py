"""Flows over Gaussian inputs: against the order parameters of physics, and against a sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp

import tts_jax as tts
from tts_jax.problems.base import AbstractProblem

NETWORK = tts.TwoLayerNetwork(tts.Erf(eta=2**0.5), bias=False, outer_bias=False)
# Of the shapes of test_gaussian.py, so that the flow is compiled once for both files.
TAUGHT = tts.Params(np.array([1.0, -0.5]), {"w": np.array([[1.0, 0.2], [-0.3, 1.0]])})
START = tts.Params(jnp.array([0.3, 0.2]), {"w": jnp.array([[0.5, 0.1], [0.1, 0.6]])})
TAUS = np.array([0.0, 0.5, 2.0])
EPSILON = 0.3
SERIES = tts.HermiteSeries([0.1, 0.5, 0.3])


def order_parameters(a, w):
    """The covariances (4, 4) of the pre-activations of two students and two teachers, and a."""
    both = np.concatenate([np.asarray(w), TAUGHT.u["w"]])
    return both @ both.T, np.asarray(a)


def i2(c):
    """E g(x) g(y) for g(x) = erf(x/sqrt 2) and all pairs of variables with the covariances c."""
    one = 1 + np.diag(c)
    return 2 / np.pi * np.arcsin(c / np.sqrt(np.outer(one, one)))


def i3(c, i, y, z):
    """E g'(x_i) x_y g(x_z)."""
    root = np.sqrt((1 + c[i, i]) * (1 + c[z, z]) - c[i, z] ** 2)
    return 2 / np.pi / root * (c[y, z] * (1 + c[i, i]) - c[i, y] * c[i, z]) / (1 + c[i, i])


def risk(c, a):
    weights = np.concatenate([a, -TAUGHT.a])
    return weights @ i2(c) @ weights


def velocity(_, state):
    """The flow of the covariances and a: that of D. Saad and S. A. Solla, Physical Review E 52,
    4225 (1995), without the terms of steps of finite size, with outer weights, for E (f - f*)^2."""
    c, a = state[:16].reshape(4, 4), state[16:]
    weights = np.concatenate([a, -TAUGHT.a])  # f - f* is their sum over all four
    by_c = np.zeros((4, 4))
    for i in range(2):  # dw_i/dtau = -2 a_i E (f - f*) g'(w_i.x) x, times all four weights
        for y in range(4):
            slope = sum(weights[z] * i3(c, i, y, z) for z in range(4))
            by_c[i, y] -= 2 * a[i] * slope
            by_c[y, i] -= 2 * a[i] * slope
    by_a = -2 * (i2(c) @ weights)[:2] / EPSILON
    return np.concatenate([by_c.ravel(), by_a])


def test_the_flow_of_a_committee_is_that_of_its_order_parameters():
    c, a = order_parameters(START.a, START.u["w"])
    wanted = solve_ivp(
        velocity,
        (0.0, TAUS[-1]),
        np.concatenate([c.ravel(), a]),
        method="DOP853",
        t_eval=TAUS,
        rtol=1e-12,
        atol=1e-14,
    ).y.T
    problem = tts.GaussianProblem(NETWORK, tts.Teacher(NETWORK, TAUGHT))
    flow = tts.GradientFlow(EPSILON, rtol=1e-10, atol=1e-12)
    run = tts.simulate(problem, flow, START, TAUS)
    for at in range(len(TAUS)):
        c, a = order_parameters(run.params.a[at], run.params.u["w"][at])
        np.testing.assert_allclose(c.ravel(), wanted[at, :16], atol=1e-8)
        np.testing.assert_allclose(a, wanted[at, 16:], atol=1e-8)
        np.testing.assert_allclose(run.risk[at], risk(c, a), rtol=1e-12)
    assert run.risk[-1] < 0.7 * run.risk[0]


COUNT, PARTS = 200_000, 16


@pytest.mark.thorough
def test_the_flow_on_a_large_sample_differs_by_its_sampling_error():
    """Its standard error comes from the flows on 16 parts of the sample, independent of each other:
    to first order the flow on all of it is their mean. Four of it are passed by chance once in a
    thousand, by Student's distribution."""
    problem = tts.GaussianProblem(NETWORK, tts.Teacher(NETWORK, TAUGHT))
    x, y = problem.draw(jax.random.key(3), COUNT)
    flow = tts.GradientFlow(EPSILON, rtol=1e-6, atol=1e-8)

    def numbers(problem):
        run = tts.simulate(problem, flow, START, TAUS)
        a, w = (leaf[1:].reshape(2, -1) for leaf in (run.params.a, run.params.u["w"]))
        return np.concatenate([a, w], axis=1)

    parts = [
        numbers(tts.EmpiricalProblem(NETWORK, *half))
        for half in zip(np.split(np.asarray(x), PARTS), np.split(np.asarray(y), PARTS), strict=True)
    ]
    error = np.std(parts, axis=0, ddof=1) / np.sqrt(PARTS)
    whole, exact = numbers(tts.EmpiricalProblem(NETWORK, x, y)), numbers(problem)
    assert np.max(error) < 2e-3  # or the bound would hold for anything
    assert np.all(np.abs(whole - exact) < 4 * error)
    # The error falls with the root of the number of samples: that of a part is four times as large.
    distance = np.sqrt(np.mean((np.array(parts) - exact) ** 2))
    np.testing.assert_allclose(distance, np.sqrt(PARTS * np.mean(error**2)), rtol=0.3)


@pytest.mark.parametrize(
    "activation", [tts.Erf(0.8), tts.ReLU(), tts.HermiteSeries([0.1, 0.5, 0.3])]
)
@pytest.mark.parametrize(("outer_bias", "outputs"), [(False, None), (True, 2)])
def test_what_the_reduced_flow_asks_for_at_once_is_what_the_parts_are(
    activation, outer_bias, outputs
):
    problem, u = two_layers(activation, outer_bias=outer_bias, outputs=outputs)

    @jax.jit
    def both(u):
        at_once = problem.at_best_outer(u, ridge=1e-8)
        return at_once, AbstractProblem.at_best_outer(problem, u, ridge=1e-8)

    at_once, parts = both(u)
    for one, other in zip(jax.tree.leaves(at_once), jax.tree.leaves(parts), strict=True):
        size = float(jnp.max(jnp.abs(other)))
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * max(size, 1e-3))


def test_a_velocity_and_a_record_of_the_reduced_flow_have_the_formula_for_pairs_once():
    # Each place where it stands is compiled for a second and more.
    problem, u = two_layers(tts.Erf(0.8))
    for part in (lambda at: at.by_inner, lambda at: at[:2]):
        found = jax.make_jaxpr(lambda u, part=part: part(problem.at_best_outer(u, ridge=1e-8)))(u)
        assert count_of("atan2", found.jaxpr) == 1


def test_derivatives_of_pairs_of_relu_add_little_to_the_formula():
    # With the formulas of an edge anew in each rule it was more than four times as many.
    problem, u = two_layers(tts.ReLU())
    flat, whole = ravel_pytree(tts.Params(jnp.ones(4), u))

    def risk(flat):
        return problem.risk(whole(flat))

    value, hessian = (jax.make_jaxpr(f)(flat).jaxpr for f in (risk, jax.hessian(risk)))
    assert count_of("erfc", hessian) <= 3 * count_of("erfc", value)


def two_layers(activation, *, outer_bias=False, outputs=None):
    network = tts.TwoLayerNetwork(activation, outer_bias=outer_bias)
    rng = np.random.default_rng(3)

    def inner(width):
        w, b = rng.normal(size=(width, 3)), rng.normal(size=width)
        return {"w": jnp.asarray(w), "b": jnp.asarray(b)}

    shape = (2 + int(outer_bias),) if outputs is None else (2 + int(outer_bias), outputs)
    teacher = tts.Teacher(network, tts.Params(jnp.asarray(rng.normal(size=shape)), inner(2)))
    return tts.GaussianProblem(network, teacher), inner(4)


def count_of(name, jaxpr):
    """How often a primitive stands in a jaxpr, with all that it calls."""
    inner = jaxprs_in_params
    return sum(
        (e.primitive.name == name) + sum(count_of(name, j) for j in inner(e.params))
        for e in jaxpr.eqns
    )
