"""Any small system of differential equations, for the Rosenbrock method and its loop."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from tts_jax.integrators.rosenbrock import AbstractRosenbrockSystem


class AnySystem(AbstractRosenbrockSystem):
    """M dy/dt = f(y, number) for one vector y, by autodiff and LAPACK.

    Rows of M that are zero are algebraic equations; M is diagonal.
    """

    function: Callable = eqx.field(static=True)
    number: jax.Array
    masses: jax.Array

    def vector_field(self, y):
        return self.function(y, self.number)

    def apply_mass(self, y):
        return self.masses * y

    def factorise(self, y, shift):
        matrix = shift * jnp.diag(self.masses) - jax.jacfwd(self.vector_field)(y)
        return lambda r: jnp.linalg.solve(matrix, r)

    def velocity(self, y):
        moving = self.masses > 0
        return jnp.where(moving, self.vector_field(y) / jnp.where(moving, self.masses, 1.0), 0.0)

    def error_norm(self, error, before, after, rtol, atol):
        size = jnp.maximum(jnp.abs(before), jnp.abs(after))
        return jnp.sqrt(jnp.mean((error / (atol + rtol * size)) ** 2))


def any_system(function, number=0.0, *, masses):
    return AnySystem(function, jnp.asarray(number, float), jnp.asarray(masses, float))
