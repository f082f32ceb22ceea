"""The size of the next step, from the error of the last one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._types import Array, Bool, Scalar, Tree
from .rosenbrock import ORDER, AbstractSystem

_SAFETY, _SMALLEST, _LARGEST = 0.85, 0.2, 6.0
_PROPORTIONAL, _INTEGRAL = 0.4 / ORDER, 1.0 / ORDER


class StepControl(NamedTuple):
    """What an adaptive run is asked: where it ends, its tolerances and its patience."""

    horizon: Scalar
    rtol: Scalar
    atol: Scalar
    max_steps: Array


def resized(h: Scalar, error: Scalar, last_error: Scalar, accepted: Bool[Array, ""]) -> Scalar:
    """The size of the step to be tried after one of size h, from the errors of both of the last.

    A proportional-integral controller; after a rejection only the new error counts. With less
    weight on the new error steps grow too late behind a kink, and more of them are needed for the
    same achieved error; the safety factor keeps that error near the tolerance.
    """
    grown = _SAFETY * error ** (-_INTEGRAL) * last_error**_PROPORTIONAL
    shrunk = _SAFETY * error ** (-1.0 / ORDER)
    return h * jnp.where(
        accepted,
        jnp.clip(grown, _SMALLEST, _LARGEST),
        jnp.clip(shrunk, 0.5 * _SMALLEST, 1.0),
    )


def all_finite(tree: Tree) -> Bool[Array, ""]:
    """Whether no number in the tree is infinite or NaN."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def first_step(system: AbstractSystem, y: Tree, control: StepControl) -> tuple[Scalar, Tree]:
    """A guess of the first step size, and the velocity at y.

    Source: E. Hairer, S. P. Norsett, G. Wanner, Solving Ordinary Differential Equations I, II.4.
    """

    def size(leaf: Tree) -> Scalar:
        return system.error(leaf, y, y, control.rtol, control.atol)

    def look(turn: Array, found: tuple[Tree, Tree, Scalar]) -> tuple[Tree, Tree, Scalar]:
        del turn  # twice, in a loop: what is written twice is compiled twice
        velocity, _, short = found
        ahead = jax.tree.map(lambda a, b: a + short * b, y, velocity)
        now = system.velocity(ahead)
        speed = jnp.maximum(size(now), 1e-15)
        return now, velocity, jnp.where(short > 0, short, 0.01 * jnp.maximum(size(y), 1.0) / speed)

    still = jax.tree.map(jnp.zeros_like, y)
    ahead, velocity, short = jax.lax.fori_loop(
        0, 2, look, (still, still, jnp.zeros_like(control.rtol))
    )
    speed = jnp.maximum(size(velocity), 1e-15)
    bend = size(jax.tree.map(jnp.subtract, ahead, velocity)) / short
    guess = (0.01 / jnp.maximum(speed, bend)) ** (1.0 / (ORDER + 1))
    return jax.lax.stop_gradient(jnp.minimum(100.0 * short, guess)), velocity
