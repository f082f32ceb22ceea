"""Runs of other problems side by side equal runs one by one: a user's own, and other networks."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import quickly
from small_problems import random_problem
from small_runs import (
    EPSILON,
    NOISE,
    STEP,
    assert_same,
    assert_same_runs,
    each,
    steps_to_taus,
)

import tts_jax as tts

pytestmark = pytest.mark.usefixtures("bare")

# Problems of a user's own.


class Bump(tts.AbstractProblem):
    """No network at all, and parameters in trees: only what SGD asks for."""

    scale: jax.Array

    def risk(self, params):
        return jnp.sum(params.a["height"] ** 2) + params.u[0] ** 2

    def predict(self, params, x):
        wave = jnp.cos(x[:, None] * self.scale - params.u[1][None])
        return wave @ params.a["height"] + params.u[0]

    def draw(self, key, count):
        x = jax.random.normal(key, (count,))
        return x, jnp.sin(x)

    def sample_loss(self, params, x, y):
        return jnp.mean((self.predict(params, x) - y) ** 4)


class UniformBump(Bump):
    """The same with inputs made from one uniform number each."""

    def from_uniform(self, v):
        x = 4.0 * v**2 - 1.0
        return x, jnp.sin(self.scale * x)


def bump(kind):
    a = {"height": jnp.asarray([0.5, -0.3])}
    return kind(jnp.asarray(2.0)), tts.Params(a, (jnp.asarray(0.1), jnp.asarray([0.0, 1.0])))


def additive():
    rng = np.random.default_rng(4)
    x, y = rng.uniform(size=(40, 2)), rng.normal(size=40)
    start = tts.Params(jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.uniform(size=(2, 3))))
    return tts.EmpiricalProblem(tts.AdditiveNetwork(tts.CubicStep(0.2)), x, y), start


def norm_on_a_sample():
    rng = np.random.default_rng(5)
    x, y = rng.uniform(size=40), rng.normal(size=40)
    network = tts.ShallowNetwork(tts.Tanh(0.2))
    start = random_problem(5)[1]
    return tts.EmpiricalProblem(network, x, y, loss="norm"), start


def taught_without_bias():
    network = tts.ShallowNetwork(tts.Logistic(0.1), bias=False)
    teacher = tts.Teacher(network, tts.Params(jnp.asarray([2.0, -1.0]), jnp.asarray([0.3, 0.6])))
    _, (a, u) = random_problem(6)
    return tts.Problem(network, teacher), tts.Params(a[1:], u)


PROBLEMS = {
    "draw only": functools.partial(bump, Bump),
    "from_uniform": functools.partial(bump, UniformBump),
    "additive": additive,
    "norm": norm_on_a_sample,
    "teacher": taught_without_bias,
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "batch_size"), [*((name, 1 if name == "additive" else 3) for name in PROBLEMS)]
)
def test_other_problems_side_by_side_equal_one_by_one(name, batch_size):
    problem, start = PROBLEMS[name]()
    sgd = tts.SGD(0.1, STEP, noise=0.1, batch_size=batch_size)

    def run(key):
        return tts.simulate(problem, sgd, start, 10 * steps_to_taus(1, 4500), key=key)

    keys = jax.random.split(jax.random.key(1), 4)
    batch = quickly(jax.vmap(run))(keys)
    assert_same_runs(batch, each(quickly(run), keys))
    final = jax.tree.leaves(batch.final)
    for leaf, begin in zip(final, jax.tree.leaves(start), strict=True):
        assert np.max(np.abs(leaf - begin[None])) > 1e-3
        assert np.max(np.abs(leaf[0] - leaf[1])) > 1e-6


@pytest.mark.parametrize("kind", [Bump, UniformBump])
def test_other_problems_that_differ_side_by_side_equal_one_by_one(kind):
    problem, start = bump(kind)

    def run(scale):
        other = eqx.tree_at(lambda p: p.scale, problem, scale)
        sgd = tts.SGD(0.1, STEP, noise=0.1)
        return tts.simulate(other, sgd, start, 10 * steps_to_taus(1, 4500), key=jax.random.key(0))

    scales = jnp.asarray([1.0, 1.5, 2.5])
    batch = quickly(jax.vmap(run))(scales)
    assert_same_runs(batch, each(quickly(run), scales))
    assert np.max(np.abs(batch.final.a["height"][0] - batch.final.a["height"][1])) > 1e-3


# Networks.


def random_params(width, bias, runs=()):
    rng = np.random.default_rng(width)
    a, u = rng.normal(size=(width + bias, *runs)), rng.uniform(size=(width, *runs))
    return tts.Params(jnp.asarray(a), jnp.asarray(u))


@pytest.mark.thorough
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 3, 4, 5, 20])
def test_networks_side_by_side_equal_one_by_one(width, bias):
    network = tts.ShallowNetwork(tts.CubicStep(0.3), bias=bias)
    params = random_params(width, bias, (6,))
    rng = np.random.default_rng(6)

    @quickly
    def both(params, x, weights):
        def one(params, x, weights):
            values = network(params, x)
            return jnp.sum(weights * values**2), values

        def many(params):
            return one(params, x, weights)

        each = jax.vmap(jax.value_and_grad(one, has_aux=True), in_axes=-1, out_axes=-1)
        return jax.value_and_grad(many, has_aux=True)(params), each(params, x, weights)

    for shape in ((), (4,)):
        x, weights = rng.uniform(size=(2, *shape, 6))
        ((total, values), gradient), ((losses, alone), slopes) = both(params, x, weights)
        assert values.shape == (*shape, 6)
        np.testing.assert_allclose(values, alone, rtol=0, atol=1e-13)
        np.testing.assert_allclose(total, np.sum(losses), rtol=1e-13)
        assert_same(gradient, slopes, 1e-12)
        assert np.max(np.abs(gradient.u)) > 0.01


# Problems that change what `Problem` does.


class OwnLoss(tts.Problem):
    """Its mean is over all axes, as one would write it for one run."""

    def sample_loss(self, params, x, y):
        return jnp.mean((self.predict(params, x) - y) ** 2)


class OwnDraw(tts.Problem):
    """Inputs from the left half only."""

    def draw(self, key, count):
        x = jax.random.uniform(key, (count,), maxval=0.5)
        return x, self.label(x)


@pytest.mark.parametrize("kind", [OwnLoss, OwnDraw])
def test_a_special_problem_keeps_what_it_changes(kind):
    plain, start = random_problem(7)
    special = kind(plain.network, plain.target)
    sgd = tts.SGD(EPSILON, STEP, noise=NOISE)

    def run(problem, key):
        return tts.simulate(problem, sgd, start, steps_to_taus(5000), key=key).final

    keys = jax.random.split(jax.random.key(0), 3)
    together = quickly(jax.vmap(lambda key: run(special, key)))(keys)
    assert_same(together, each(quickly(lambda key: run(special, key)), keys))
    same = np.allclose(together.a[0], run(plain, keys[0]).a, rtol=0, atol=1e-9)
    assert same == (kind is OwnLoss)
