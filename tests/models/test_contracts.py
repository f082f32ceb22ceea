"""Checks of users' own parts: sound ones pass, and each wrong one is refused for its reason."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.models import cubic_step
from tts_jax.models.contracts import target_rule_error


class OwnStep(tts.AbstractStep):
    """The cubic step, as a user might write it."""

    eta: float
    knots: ClassVar = (-0.5, 0.0, 0.5)
    degree: ClassVar = 3
    limits: ClassVar = (0.0, 1.0)

    def __call__(self, z):
        return cubic_step.cubic_step(z)

    def primitive(self, z):
        return cubic_step.primitive(z)

    def overlap(self, t):
        return cubic_step.overlap(t)


class WrongPrimitive(OwnStep):
    def primitive(self, z):
        return cubic_step.primitive(z) + 1e-6


class WrongOverlap(OwnStep):
    def overlap(self, t):
        return cubic_step.overlap(t) * (1 + 1e-6 * t)


class WrongBeyond(OwnStep):
    def beyond(self, p, q):
        return cubic_step.product_beyond_zero(p, q) + 1e-6 * p


class RootStep(tts.AbstractActivation):
    """Its slope is 0 at the lower knot, its second derivative infinite."""

    eta: float
    knots: ClassVar = (-0.5, 0.5)
    degree: ClassVar = None
    limits: ClassVar = (0.0, 1.0)

    def __call__(self, z):
        return jnp.clip(z + 0.5, 0.0, 1.0) ** 1.5


def test_a_step_with_right_integrals_passes():
    assert tts.check_activation(OwnStep(0.1)) < 1e-14


@pytest.mark.parametrize(
    ("step", "name"),
    [(WrongPrimitive, "primitive"), (WrongOverlap, "overlap"), (WrongBeyond, "beyond")],
)
def test_a_step_with_a_wrong_integral_is_refused(step, name):
    with pytest.raises(ValueError, match=f"{step.__name__}: `{name}` must be the integral that"):
        tts.check_activation(step(0.1))


def test_an_infinite_second_derivative_is_refused():
    with pytest.raises(ValueError, match="sigma'' must be finite on the knots"):
        tts.check_activation(RootStep(0.1))


class Saw(tts.AbstractTarget):
    """Rises from 0 to 1 on each half of [0, 1]."""

    degree: ClassVar = 1  # pyright: ignore

    def cuts(self):
        return jnp.asarray([0.5])

    def __call__(self, x):
        return 2 * x - (x >= 0.5).astype(x.dtype)

    def on_cells(self, x, lower):
        return 2 * x - (lower >= 0.5).astype(x.dtype)[:, None]


def saw_with(**members):
    body = {"__module__": __name__, **members}
    return type("Broken", (Saw,), body)()


TARGETS = {
    "another shape": (saw_with(__call__=lambda self, x: jnp.ones(3)), "keep the shape of x"),
    "one number": (saw_with(__call__=lambda self, x: 1.0), "keep the shape of x"),
    "NaN": (saw_with(__call__=lambda self, x: x + jnp.nan), "must be finite"),
    "neighbours": (saw_with(__call__=lambda self, x: x - jnp.mean(x)), "must be elementwise"),
    "cuts outside": (saw_with(cuts=lambda self: jnp.asarray([1.5])), "numbers of"),
    "no cut": (saw_with(cuts=lambda self: jnp.zeros(0)), "must be f"),
    "other cells": (saw_with(on_cells=lambda self, x, lower: 2 * x), "must be f"),
    "higher degree": (
        saw_with(
            __call__=lambda self, x: x**3,
            on_cells=lambda self, x, lower: x**3,
        ),
        "must be of degree 1",
    ),
}


@pytest.mark.parametrize(("target", "reason"), TARGETS.values(), ids=TARGETS)
def test_a_broken_target_is_refused_for_its_own_reason(target, reason):
    with pytest.raises(ValueError, match=f"Broken: .*{reason}.*, but got"):
        tts.check_target(target)


@pytest.mark.parametrize(
    "target",
    [
        Saw(),
        tts.PiecewiseConstant([0.2, 0.6], [1.0, -2.0, 3.0]),
        tts.Function(lambda x: jnp.sin(2 * jnp.pi * x)),
        tts.Function(lambda x: jnp.abs(x - 0.3), kinks=[0.3], degree=1),
    ],
    ids=["saw", "steps", "sine", "tent"],
)
def test_sound_targets_pass(target):
    assert tts.check_target(target) < 1e-12


FAST = tts.Function(lambda x: jnp.sin(2 * jnp.pi * 320 * x))
JUMP = tts.Function(lambda x: jnp.where(x >= 1 / 3, 1.0, 0.0))
NETWORK = tts.ShallowNetwork(tts.CubicStep(0.05))


@pytest.mark.parametrize(("target", "least"), [(FAST, 0.1), (JUMP, 1e-4)], ids=["fast", "jump"])
def test_a_problem_warns_where_the_rule_errs(target, least):
    assert tts.check_target(target) > least
    with pytest.warns(tts.QuadratureWarning, match=r"errs by .*`kinks`"):
        tts.Problem(NETWORK, target)


def test_the_error_that_is_told_is_about_the_error_of_the_risk():
    params = tts.Params(jnp.zeros(2), jnp.asarray([0.5]))
    for target, exact in ((FAST, 0.5), (JUMP, 2 / 3)):
        with pytest.warns(tts.QuadratureWarning):
            error = abs(tts.Problem(NETWORK, target).risk(params) - exact) / exact
        assert 0.2 < target_rule_error(target) / error < 5


@pytest.mark.filterwarnings("error")
@pytest.mark.thorough
def test_the_remedies_of_the_warning_help():
    fine = tts.Function(FAST.function, cells=640)
    cut = tts.Function(JUMP.function, kinks=[1 / 3])
    params = tts.Params(jnp.zeros(2), jnp.asarray([0.5]))
    for target, exact in ((fine, 0.5), (cut, 2 / 3)):
        assert float(tts.Problem(NETWORK, target).risk(params)) == pytest.approx(exact, rel=1e-9)
    jax.jit(lambda c: tts.Problem(NETWORK, tts.Function(lambda x: c * x)).risk(params))(2.0)


class Squares(tts.AbstractOneInputNetwork):
    """f(x) = sum_j a_j (x - u_j)^2."""

    activation: tts.AbstractActivation = tts.CubicStep(0.1)

    def features(self, u, x):
        return (x[..., None] - u) ** 2

    def __call__(self, params, x):
        return self.features(params.u, x) @ params.a

    def outer_shape(self, u):
        return u.shape

    def input_shape(self, u):
        return ()

    def cuts(self, u):
        return u

    def check(self, params):
        pass


def squares_with(**members):
    return type("Broken", (Squares,), {"__module__": __name__, **members})()


PARAMS = tts.Params(jnp.asarray([0.3, -0.7]), jnp.asarray([0.25, 0.6]))
NETWORKS = {
    "outer shape": (squares_with(outer_shape=lambda self, u: (3,)), "`outer_shape` must be"),
    "features": (
        squares_with(features=lambda self, u, x: (x[None] - u[:, None]) ** 2),
        "`features` must have the axes of x",
    ),
    "not linear": (squares_with(__call__=lambda self, p, x: jnp.sin(x)), "the sum of a times"),
    "no cuts": (
        squares_with(
            features=lambda self, u, x: jnp.sign(x[..., None] - u),
            cuts=lambda self, u: jnp.zeros(0),
        ),
        "smooth pieces",
    ),
}


@pytest.mark.parametrize(("network", "reason"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_broken_network_is_refused_for_its_own_reason(network, reason):
    with jax.numpy_rank_promotion("allow"), pytest.raises(ValueError, match=f"Broken: .*{reason}"):
        tts.check_network(network, PARAMS)


@pytest.mark.thorough
def test_sound_networks_pass():
    with jax.numpy_rank_promotion("allow"):
        assert tts.check_network(Squares(), PARAMS) < 1e-12
    steps = tts.Params(jnp.asarray([0.1, 0.3, -0.7]), PARAMS.u)
    assert tts.check_network(NETWORK, steps) < 1e-12
    additive = tts.AdditiveNetwork(tts.CubicStep(0.1))
    outer = jnp.asarray(np.linspace(-1, 1, 6).reshape(additive.outer_shape(jnp.zeros((2, 3)))))
    inner = jnp.asarray([[0.2, 0.5, 0.8], [0.1, 0.4, 0.9]])
    assert tts.check_network(additive, tts.Params(outer, inner)) == 0.0


def test_what_is_no_such_part_is_refused_by_name():
    for check, name in (
        (tts.check_activation, "activation"),
        (tts.check_target, "target"),
        (functools.partial(tts.check_network, params=PARAMS), "network"),
        (functools.partial(tts.check_problem, params=PARAMS), "problem"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be of type Abstract"):
            check(object())
