"""The size of the next step, from the error of the last one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Bool, Scalar, Tree
from .rosenbrock import ORDER, AbstractSystem

_SAFETY, _SMALLEST, _LARGEST = 0.85, 0.2, 6.0
_PROPORTIONAL, _INTEGRAL = 0.4 / ORDER, 1.0 / ORDER


class StepControl(NamedTuple):
    """Where an adaptive run ends (`horizon`), its tolerances, and how many steps it may try."""

    horizon: Scalar
    rtol: Scalar
    atol: Scalar
    max_steps: Array


def resized(h: Scalar, error: Scalar, last_error: Scalar, accepted: Bool[Array, ""]) -> Scalar:
    """Return the size of the step to try after one of size h, from the last two error norms.

    A proportional-integral controller; after a rejection only the new error counts. With less
    weight on the new error, steps grow too late behind a kink and a run needs more of them to reach
    an error; the safety factor keeps that error near the tolerance.
    """
    grown = _SAFETY * error ** (-_INTEGRAL) * last_error**_PROPORTIONAL
    shrunk = _SAFETY * error ** (-1.0 / ORDER)
    return h * jnp.where(
        accepted,
        jnp.clip(grown, _SMALLEST, _LARGEST),
        jnp.clip(shrunk, 0.5 * _SMALLEST, 1.0),
    )


def all_finite(tree: Tree) -> Bool[Array, ""]:
    """Return whether no number in the tree is infinite or NaN."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def first_step(system: AbstractSystem, y: Tree, control: StepControl) -> tuple[Scalar, Tree]:
    """Return a guess of the first step size, and the velocity at y.

    Source: E. Hairer, S. P. Norsett, G. Wanner, Solving Ordinary Differential Equations I, II.4.
    """

    def norm(tree: Tree) -> Scalar:
        return system.error_norm(tree, y, y, control.rtol, control.atol)

    # The velocity at y, and then after an explicit Euler step of size `trial` from y. In a loop of
    # two turns: written twice, the velocity would be compiled twice.
    def evaluate(turn: Array, state: tuple[Tree, Tree, Scalar]) -> tuple[Tree, Tree, Scalar]:
        del turn
        before, _, trial = state
        place = jax.tree.map(lambda a, b: a + trial * b, y, before)
        after = system.velocity(place)
        speed = jnp.maximum(norm(after), 1e-15)
        return after, before, jnp.where(trial > 0, trial, 0.01 * jnp.maximum(norm(y), 1.0) / speed)

    zeros = jax.tree.map(jnp.zeros_like, y)
    ahead, velocity, trial = jax.lax.fori_loop(
        0, 2, evaluate, (zeros, zeros, jnp.zeros_like(control.rtol))
    )
    speed = jnp.maximum(norm(velocity), 1e-15)
    acceleration = norm(jax.tree.map(jnp.subtract, ahead, velocity)) / trial
    guess = (0.01 / jnp.maximum(speed, acceleration)) ** (1.0 / (ORDER + 1))
    return jax.lax.stop_gradient(jnp.minimum(100.0 * trial, guess)), velocity
