"""A user's own problem that brings its own closed form: one class of each kind, no other file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import tts_jax as tts
from tts_jax.problems.recorded_risks import recorded_risks


class BumpSystem(tts.AbstractGradientSystem):
    problem: "Bumps"
    epsilon: jax.Array
    ridge: jax.Array

    def gradient(self, params):
        overlap, slope, _, v = self.problem.overlaps(params)
        return tts.Params(2 * overlap @ v, 2 * params.a * (slope @ v))

    def hessian(self, params):
        m, a = params.a.size, params.a
        overlap, slope, bend, v = self.problem.overlaps(params)
        by_a_u = -2 * a[None, :] * slope[:, :m] + 2 * jnp.diag(slope @ v)
        by_u = -2 * jnp.outer(a, a) * bend[:, :m] + 2 * jnp.diag(a * (bend @ v))
        return jnp.block([[2 * overlap[:, :m], by_a_u], [by_a_u.T, by_u]])

    def damping(self, params):
        return jnp.full_like(params.a, 2 * np.sqrt(np.pi)) * self.ridge


class BumpForm(tts.AbstractClosedForm):
    problem: "Bumps"

    def to_state(self, params):
        return params, None

    def to_params(self, states, kept):
        return states

    def system(self, epsilon, ridge):
        return BumpSystem(problem=self.problem, epsilon=epsilon, ridge=ridge)

    def risks(self, params):
        return jax.vmap(self.problem.risk)(params)

    def relative_work(self, width):
        return (width / 20) ** 3


class Bumps(tts.AbstractProblem):
    """Bumps exp(-(x - u_j)^2 / 2) of height a_j fitted to others, over the whole line."""

    heights: jax.Array
    centres: jax.Array
    known: bool = True

    def overlaps(self, params):
        v = jnp.concatenate([params.a, -self.heights])
        centres = jnp.concatenate([params.u, self.centres])
        d = params.u[:, None] - centres[None, :]
        overlap = jnp.sqrt(jnp.pi) * jnp.exp(-(d**2) / 4)
        return overlap, -d / 2 * overlap, (d**2 / 4 - 0.5) * overlap, v

    def risk(self, params):
        v = jnp.concatenate([params.a, -self.heights])
        centres = jnp.concatenate([params.u, self.centres])
        d = centres[:, None] - centres[None, :]
        return jnp.sqrt(jnp.pi) * v @ jnp.exp(-(d**2) / 4) @ v

    def best_outer(self, u, *, ridge):
        d = u[:, None] - u[None, :]
        gram = jnp.sqrt(jnp.pi) * (jnp.exp(-(d**2) / 4) + ridge * jnp.eye(u.size))
        moments = jnp.sqrt(jnp.pi) * jnp.exp(-((u[:, None] - self.centres[None, :]) ** 2) / 4)
        return jnp.linalg.solve(gram, moments @ self.heights)

    def closed_form(self, width):
        return BumpForm(self) if self.known else None


def bumps(known=True):
    return Bumps(jnp.asarray([1.0, -0.5]), jnp.asarray([-1.0, 1.5]), known)


START = tts.Params(jnp.asarray([0.1, -0.2, 0.3]), jnp.asarray([-1.5, 0.2, 1.0]))
TAUS = np.linspace(0.0, 2.0, 5)


@pytest.mark.thorough
def test_what_the_user_wrote_is_the_gradient_and_the_hessian():
    system = bumps().closed_form(3).system(jnp.asarray(0.1), jnp.zeros(()))
    flat, whole = ravel_pytree(START)

    def risk(flat):
        return bumps().risk(whole(flat))

    np.testing.assert_allclose(
        ravel_pytree(system.gradient(START))[0], jax.grad(risk)(flat), atol=1e-14
    )
    np.testing.assert_allclose(system.hessian(START), jax.hessian(risk)(flat), atol=1e-14)


@pytest.mark.thorough
def test_a_flow_takes_it_and_moves_as_without():
    fast = tts.simulate(bumps(), tts.GradientFlow(1e-2), START, TAUS)
    slow = tts.simulate(bumps(known=False), tts.GradientFlow(1e-2), START, TAUS)
    assert fast.solver == "Rodas5P, BumpForm"
    assert "BumpForm" not in slow.solver
    np.testing.assert_allclose(fast.params.u, slow.params.u, atol=1e-6)
    np.testing.assert_allclose(fast.risk, slow.risk, atol=1e-6)


@pytest.mark.thorough
def test_the_reduced_flow_takes_it_and_moves_as_without():
    fast = tts.simulate(bumps(), tts.ReducedFlow(), START, TAUS)
    slow = tts.simulate(bumps(known=False), tts.ReducedFlow(), START, TAUS)
    assert fast.solver == "Rodas5P, BumpForm"
    np.testing.assert_allclose(fast.params.u, slow.params.u, atol=1e-6)
    np.testing.assert_allclose(fast.params.a, slow.params.a, atol=1e-5)


@pytest.mark.thorough
def test_it_is_differentiable_and_runs_in_batches():
    def last(epsilon):
        return tts.simulate(bumps(), tts.GradientFlow(epsilon), START, TAUS).risk[-1]

    epsilons = jnp.asarray([0.03, 0.1])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(last)))(epsilons)
    step = 1e-4
    up, down = jax.jit(jax.vmap(last))(epsilons + step), jax.jit(jax.vmap(last))(epsilons - step)
    np.testing.assert_allclose(slopes, (up - down) / (2 * step), rtol=1e-4)
    assert np.all(np.asarray(values) > 0)


@pytest.mark.parametrize("width", [1, 1000])
def test_by_default_nothing_is_known_and_risks_come_one_by_one(width):
    problem = bumps(known=False)
    assert problem.closed_form(width) is None
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), START)
    expected = [problem.risk(jax.tree.map(lambda leaf, i=i: leaf[i], several)) for i in range(2)]
    np.testing.assert_allclose(recorded_risks(problem, several), expected, rtol=1e-14)


def test_the_width_is_the_length_of_the_first_axis_of_u():
    assert bumps().width(START) == 3
    assert bumps().width(tts.Params(START.a, ())) == 1
    assert bumps().width(tts.Params(START.a, jnp.zeros(()))) == 1
    assert bumps().width(tts.Params(START.a, {"w": jnp.zeros((4, 2)), "x": jnp.zeros(4)})) == 4
