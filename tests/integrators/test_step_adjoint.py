"""A step of a symmetric system pulled back, against autodiff of the step."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_systems import AnySystem

from tts_jax import CubicStep, PiecewiseConstant
from tts_jax.closed_forms.pairwise import PairwiseRisk, PairwiseState
from tts_jax.closed_forms.pairwise_system import PairwiseGradientSystem
from tts_jax.integrators.rosenbrock import SolverStep, rosenbrock_step
from tts_jax.integrators.step_adjoint import AbstractSymmetricSystem, pull_step


class Descent(AnySystem, AbstractSymmetricSystem):
    """Of any function of y and a number, by autodiff."""

    def vector_field(self, y):
        return -jax.grad(self.function)(y, self.number)

    def vector_field_transposed(self, y, left):
        return jax.vjp(self.vector_field, y)[1](left)[0]

    def bilinear(self, y, shift, lefts, rights):
        matrix = shift * jnp.diag(self.masses) + jax.hessian(self.function)(y, self.number)
        return jnp.sum(lefts * (rights @ matrix))


def valley(y, number):
    return jnp.sum(y**4) + number * jnp.sin(y[0] * y[1]) + y[1] * y[2] ** 2


def small():
    masses = jnp.asarray([1e-3, 1.0, 0.0])
    return Descent(valley, jnp.asarray(0.7), masses), jnp.asarray([0.5, -0.8, 1.1]), 0.05


def steps(u, epsilon=1e-2):
    risk = PairwiseRisk(
        CubicStep(eta=jnp.asarray(0.1)), PiecewiseConstant([0.3, 0.6], [1.0, 3.0, 0.5])
    )
    risk = jax.tree.map(jnp.asarray, risk)
    system = PairwiseGradientSystem(risk, jnp.asarray(epsilon), jnp.asarray(1e-3))
    a = np.random.default_rng(1).normal(size=5)
    return system, PairwiseState(jnp.asarray(a[0]), jnp.asarray(a[1:]), jnp.asarray(u)), 0.01


CASES = {
    "any function": small,
    "neurons apart and together": lambda: steps([0.2, 0.33, 0.5, 0.5]),
    "no mass of the weights": lambda: steps([0.2, 0.33, 0.5, 0.8], 0.0),
    "neurons cut and outside": lambda: steps([-0.2, 0.02, 0.5, 0.97]),
}


@eqx.filter_jit
def ways(system, y, h, cotangents):
    """A step and its cotangents, by hand and by autodiff."""
    numbers, rest = eqx.partition(system, eqx.is_inexact_array)

    def whole(numbers):
        return eqx.combine(numbers, rest)

    step, pull = pull_step(whole, numbers, y, h)
    plain, pull_plain = jax.vjp(lambda n, y: rosenbrock_step(whole(n), y, h), numbers, y)
    return (step, pull(cotangents)), (plain, pull_plain(cotangents))


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES)
def test_it_is_what_autodiff_finds(case):
    system, y, h = CASES[case]()
    rng = np.random.default_rng(3)

    def like(leaf):
        return jnp.asarray(rng.normal(size=leaf.shape))

    stages = jax.tree.map(lambda leaf: like(jnp.zeros((8, *leaf.shape))), y)
    cotangents = SolverStep(jax.tree.map(like, y), stages)
    ours, plain = ways(system, y, jnp.asarray(h), cotangents)
    for found, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        size = np.max(np.abs(expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * max(size, 1e-3))
    by_numbers, by_y = jax.tree.map(lambda leaf: float(np.max(np.abs(leaf))), ours[1])
    assert min(jax.tree.leaves(by_numbers)) > 0
    assert min(jax.tree.leaves(by_y)) > 0
