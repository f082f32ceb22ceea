"""Activations: the custom derivative, the contract, and an activation of one's own."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf, expit, ndtr

import tts_jax as tts
from tts_jax.models.activations import BoxGradient

Z = jnp.asarray([*np.linspace(-1, 1, 81), -0.5, 0.0, 0.5, np.nextafter(0.5, 0), -40.0, 40.0])


SERIES = [0.3, -1.0, 0.0, 1.0]


def plain_cubic(z):
    """The definition, piece by piece, for autodiff."""
    rising = jnp.where(z <= 0, 4 * (z + 0.5) ** 3, 1 - 4 * (0.5 - z) ** 3)
    return jnp.where(z <= -0.5, 0.0, jnp.where(z >= 0.5, 1.0, rising))


def test_the_custom_derivative_of_the_cubic_step_is_autodiff_of_its_definition():
    sigma = tts.CubicStep(1.0)
    np.testing.assert_allclose(sigma(Z), plain_cubic(Z), rtol=0, atol=4e-16)
    for mode in (jax.grad, jax.jacfwd):
        found, expected = (jax.jit(jax.vmap(mode(f)))(Z) for f in (sigma, plain_cubic))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-15)


def test_the_second_derivative_of_the_cubic_step_is_autodiff_of_its_definition():
    """Off the knots, where it jumps."""
    off = Z[(jnp.abs(Z) != 0.5) & (jnp.abs(Z) > 1e-12)]
    found, expected = (
        jax.jit(jax.vmap(jax.grad(jax.grad(f))))(off) for f in (tts.CubicStep(1.0), plain_cubic)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-14)


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        (tts.ReLU(), lambda z: np.maximum(z, 0)),
        (tts.Logistic(1.0), expit),
        (tts.Tanh(1.0), np.tanh),
        (tts.Erf(1.0), erf),
        (tts.Probit(), ndtr),
        (tts.HermiteSeries([0.3]), lambda z: 0.3 + 0 * z),
        (tts.HermiteSeries(SERIES), lambda z: 0.3 - z + (z**3 - 3 * z) / np.sqrt(6)),
    ],
)
def test_the_other_activations_are_their_formulas(activation, formula):
    np.testing.assert_allclose(activation(Z), formula(np.asarray(Z)), rtol=1e-14, atol=1e-16)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("activation", "accuracy"),
    [
        (tts.CubicStep(4e-3), 1e-14),
        (tts.ReLU(), 1e-14),
        (tts.Logistic(0.1), 1e-12),
        (tts.Tanh(0.1), 1e-12),
        (tts.Erf(0.1), 1e-12),
        (tts.Probit(0.1), 1e-12),
        (tts.HermiteSeries(SERIES, 0.1), 1e-12),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_built_in_activations_meet_the_contract_with_their_stated_accuracy(
    activation, accuracy
):
    assert tts.check_activation(activation) < accuracy


@pytest.mark.parametrize("wrong", [[], 1.0, [[1.0]], [1.0, np.inf]])
def test_coefficients_of_a_series_are_a_list_of_finite_numbers(wrong):
    with pytest.raises(ValueError, match="`coefficients` must be"):
        tts.HermiteSeries(wrong)


class Ramp(tts.AbstractActivation):
    """A user's own: 0, then z + 1/2, then 1."""

    eta: float
    knots: ClassVar = (-0.5, 0.5)
    degree: ClassVar = 1
    limits: ClassVar = (0.0, 1.0)

    def __call__(self, z):
        return jnp.clip(z + 0.5, 0.0, 1.0)


def test_an_activation_of_ones_own_is_one_small_class():
    assert tts.check_activation(Ramp(0.2)) < 1e-14
    problem = tts.Problem(tts.ShallowNetwork(Ramp(0.2)), tts.PiecewiseConstant([0.5], [0.0, 1.0]))
    params = tts.Params(jnp.asarray([0.1, 0.7, -0.4]), jnp.asarray([0.45, 0.95]))

    def square(x):
        first, second = (np.clip((x - u) / 0.2 + 0.5, 0, 1) for u in (0.45, 0.95))
        return (0.1 + 0.7 * first - 0.4 * second - (x >= 0.5)) ** 2

    points = [0.35, 0.5, 0.55, 0.85]
    expected = quad(square, 0, 1, points=points, epsabs=1e-14)[0]
    np.testing.assert_allclose(jax.jit(lambda p: problem.risk(p))(params), expected, rtol=1e-12)


def broken(call, *, knots=(-0.5, 0.5), degree=1, limits=(0.0, 1.0)):
    """An instance of a class that is `Ramp` but for what is given."""
    body = {
        "__annotations__": {"eta": float},
        "__module__": __name__,
        "knots": knots,
        "degree": degree,
        "limits": limits,
        "__call__": lambda self, z: call(z),
    }
    body["__annotations__"] |= dict.fromkeys(("knots", "degree", "limits"), ClassVar)
    return type("Broken", (tts.AbstractActivation,), body)(0.1)


def ramp(z):
    return jnp.clip(z + 0.5, 0.0, 1.0)


@jax.custom_jvp
def wrong_slope(z):
    return ramp(z)


wrong_slope.defjvp(lambda primals, tangents: (ramp(primals[0]), 2.0 * tangents[0]))


def infinite_slope(z):
    """Its derivative at z = -1/2 is infinite, as that of a square root."""
    return jnp.sqrt(ramp(z))


REASONS = {
    "knots not increasing": (broken(ramp, knots=(0.5, -0.5)), "`knots` must be increasing"),
    "no knots": (broken(ramp, knots=()), "`knots` must be increasing numbers, at least one"),
    "of another shape": (broken(lambda z: ramp(z).ravel()), "must keep shape and dtype"),
    "of another dtype": (broken(lambda z: ramp(z).astype(jnp.float32)), "shape and dtype"),
    "not elementwise": (broken(lambda z: ramp(z - jnp.mean(z))), "must be elementwise"),
    "not a number": (broken(lambda z: jnp.sqrt(z)), "must be finite"),
    "infinite slope": (broken(infinite_slope, degree=None), "sigma' must be finite on the knots"),
    "a wrong slope": (broken(wrong_slope), "must match finite differences"),
    "other limits": (broken(ramp, limits=(-1.0, 1.0)), "must reach its limits"),
    "a limit too far": (broken(jax.nn.sigmoid, degree=None), "must reach its limits"),
    "a higher degree": (broken(plain_cubic, knots=(-0.5, 0.0, 0.5)), "must be of degree 1"),
    "a knot left out": (broken(plain_cubic, degree=3), "must be of degree 3"),
}


@pytest.mark.parametrize(("activation", "reason"), REASONS.values(), ids=REASONS)
def test_a_broken_activation_is_refused_for_its_own_reason(activation, reason):
    with pytest.raises(ValueError, match=f"Broken: .*{reason}.*, but got"):
        tts.check_activation(activation)


def test_the_class_that_the_broken_ones_are_made_of_is_sound():
    """So that each of them is refused for what was changed."""
    assert tts.check_activation(broken(ramp)) < 1e-14


def test_a_smooth_activation_with_coarse_knots_is_refused():
    class Coarse(tts.AbstractActivation):
        eta: float
        knots: ClassVar = (-36.0, 36.0)
        degree: ClassVar = None
        limits: ClassVar = (0.0, 1.0)

        def __call__(self, z):
            return jax.nn.sigmoid(z)

    with pytest.raises(ValueError, match="shorter cells"):
        tts.check_activation(Coarse(0.1))


@pytest.mark.parametrize("inner", [tts.CubicStep(0.2), tts.Tanh(0.2)])
def test_the_box_keeps_the_values_and_replaces_the_derivative(inner):
    box = BoxGradient(inner)
    z = jnp.asarray([-50.0, -0.5, -0.3, 0.0, 0.4, 0.5, 0.51])
    np.testing.assert_array_equal(box(z), inner(z))
    np.testing.assert_array_equal(jax.vmap(jax.grad(box))(z), [0, 1, 1, 1, 1, 1, 0])
    assert box.eta == inner.eta


def test_the_box_of_the_cubic_step_in_a_network():
    """Only neurons within eta/2 of the input move, at the rate 2 r a / eta."""
    network = tts.ShallowNetwork(BoxGradient(tts.CubicStep(0.2)))
    params = tts.Params(jnp.asarray([0.5, 2.0, 3.0]), jnp.asarray([0.45, 0.9]))
    x = jnp.asarray(0.5)
    slope = jax.grad(lambda p: network(p, x) ** 2)(params)
    f = 0.5 + 2.0 * (1 - 4 * 0.25**3)
    np.testing.assert_allclose(slope.u, [-2 * f * 2.0 / 0.2, 0.0], rtol=1e-14)
    np.testing.assert_allclose(slope.a, [2 * f, 2 * f * (1 - 4 * 0.25**3), 0.0], rtol=1e-14)
