"""A check of users' own problems: sound ones pass, and each wrong one is refused for its reason."""

import jax
import jax.numpy as jnp
import pytest
from small_problems import random_problem, small_problem

import tts_jax as tts

PROBLEM, PARAMS = random_problem(3)


class Sphere(tts.AbstractProblem):
    """L = E |a x + u x - x|^2 over x uniform on [0, 1], the mean of samples."""

    def risk(self, params):
        return jnp.mean((params.a + params.u - 1) ** 2) / 3

    def draw(self, key, count):
        return self.from_uniform(jax.random.uniform(key, (count,)))

    def from_uniform(self, v):
        return v, self.label(v)

    def label(self, x):
        return x

    def sample_loss(self, params, x, y):
        f = x[:, None] * (params.a + params.u)[None, :]
        return jnp.mean((f - y[:, None]) ** 2)

    def best_outer(self, u, *, ridge):
        return 1 - u


def with_members(**members):
    return type("Broken", (Sphere,), {"__module__": __name__, **members})()


POINT = tts.Params(jnp.asarray([0.3, 0.9]), jnp.asarray([0.1, 0.4]))


def best_of(other):
    return lambda self, u, ridge: other(u)


@jax.custom_jvp
def misled(v):
    return v**2


misled.defjvp(lambda primals, tangents: (primals[0] ** 2, primals[0] * tangents[0]))

REASONS = {
    "not one number": (with_members(risk=lambda self, p: p.a), "must return one real number"),
    "NaN": (with_members(risk=lambda self, p: jnp.sum(p.a) * jnp.nan), "must be finite"),
    "infinite slope": (
        with_members(risk=lambda self, p: jnp.sum(jnp.sqrt(jnp.abs(p.a - POINT.a)))),
        "gradient of `risk` must be finite",
    ),
    "infinite bend": (
        with_members(risk=lambda self, p: jnp.sum(jnp.maximum(p.a - POINT.a, 0.0) ** 1.5)),
        "second derivatives",
    ),
    "a wrong slope": (
        with_members(risk=lambda self, p: jnp.sum(misled(p.a))),
        "finite differences",
    ),
    "noise": (with_members(from_uniform=lambda self, v: (v, v + 1e-3)), "`label"),
    "another loss": (
        with_members(sample_loss=lambda self, p, x, y: 0.9 * Sphere.sample_loss(self, p, x, y)),
        "the mean `sample_loss`",
    ),
    "other runs": (
        with_members(sample_losses=lambda self, p, x, y: jnp.zeros(2)),
        "`sample_losses` must be",
    ),
    "not the best": (with_members(best_outer=best_of(lambda u: 1.3 - u)), "a smaller risk than"),
}


@pytest.mark.parametrize(("problem", "reason"), REASONS.values(), ids=REASONS)
def test_a_broken_problem_is_refused_for_its_own_reason(problem, reason):
    with pytest.raises(ValueError, match=f"Broken: .*{reason}.*, but got"):
        tts.check_problem(problem, POINT)


@pytest.mark.thorough
def test_sound_problems_pass():
    assert tts.check_problem(Sphere(), POINT) < 1e-6
    assert tts.check_problem(PROBLEM, PARAMS) < 1e-5


class OtherForm(tts.AbstractProblem):
    """A problem whose closed form is that of another one."""

    eta: float

    def risk(self, params):
        return small_problem().risk(params)

    def closed_form(self, width):
        return small_problem(eta=self.eta).closed_form(width)


@pytest.mark.thorough
def test_a_closed_form_of_another_risk_is_refused():
    assert tts.check_problem(OtherForm(0.08), PARAMS) < 1e-5
    with pytest.raises(ValueError, match="the risk of `closed_form` must be that of the problem"):
        tts.check_problem(OtherForm(0.09), PARAMS)
