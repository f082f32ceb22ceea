"""How fine the steps of SGD are: what tells whether it can follow the flow."""

from typing import TypeGuard

import jax
import jax.numpy as jnp

from ..._types import Array, Scalar, Times
from ...models.activations import AbstractStep
from ...models.network import Params
from ...models.shallow import ShallowNetwork
from ...problems.base import AbstractProblem
from ...problems.population import Problem

FINE_LIMITS = {
    "largest_jump": (0.5, "a step moves a neuron by up to {:.2g} eta: take a smaller epsilon h"),
    "fast_rate": (1.0, "h times the largest rate of the outer layer is {:.2g}: take a smaller h"),
}
"""Up to which size of a scale SGD can follow the flow, and what to say above."""

_PLACES = 7
"""Inputs around a neuron at which a jump is looked for, its middle among them."""


def has_scales(problem: AbstractProblem) -> TypeGuard[Problem]:
    """Whether `sgd_scales` knows this problem."""
    if type(problem) is not Problem or type(problem.network) is not ShallowNetwork:
        return False
    return isinstance(problem.network.activation, AbstractStep)


def sgd_scales(
    problem: Problem,
    params: Params,
    fast: Scalar,
    slow: Scalar,
    noise: Scalar,
    batch: int,
    *,
    box: bool,
) -> dict[str, Scalar]:
    """Three scales of plain SGD at recorded parameters (T, ...).

    `fast`, `slow`: the step sizes h and epsilon h; `noise` s, uniform on [-s, s]; `batch`: samples
    a step; `box`: sigma' is the indicator of the transition. With the residual
    r(x) = f(x) - f*(x), the features phi(x) and their Gram matrix H:

    - `largest_jump`: how far one step can move a neuron, in units of eta, at the worst recorded
      time: the largest 2 epsilon h (|r(x)| + s) |a_j sigma'(z)| / eta^2, looked for at 7 inputs
      around every neuron;
    - `fast_rate`: h times the largest rate of the outer layer at the last time, 2 h max eig H;
    - `noise_floor`: what random samples add to the risk at the last time once the outer layer is
      stationary, h/batch times the mean of (r^2 + s^2/3) |phi|^2, to first order in h.
    """
    last: Params = jax.tree.map(lambda leaf: leaf[-1], params)
    fine = jnp.all(jnp.isfinite(last.u)) & jnp.all(jnp.isfinite(last.a))
    gram, _ = problem.normal_equations(jnp.where(fine, last.u, 0.5))
    nodes, weights, wanted = problem.rule(last.u)
    features = problem.network.features(last.u, nodes)
    square = (features @ last.a - wanted) ** 2 + noise**2 / 3
    energy = jnp.sum(weights * square * jnp.sum(features**2, axis=1))
    rate = 2 * fast * _largest_eigenvalue(gram)
    return {
        "largest_jump": 2 * slow * jnp.max(_largest_slope(problem, params, noise, box)),
        "fast_rate": jnp.where(fine, rate, jnp.nan),
        "noise_floor": fast / batch * energy,
    }


def _largest_eigenvalue(matrix: Array) -> Scalar:
    """By 30 power iterations: a decomposition by a library can take longer than the run."""

    def more(_: int, vector: Array) -> Array:
        image = matrix @ vector
        return image / jnp.sqrt(image @ image)

    vector = jax.lax.fori_loop(0, 30, more, jnp.ones(matrix.shape[0], matrix.dtype))
    return vector @ (matrix @ vector) / (vector @ vector)


def _largest_slope(problem: Problem, params: Params, noise: Scalar, box: bool) -> Times:
    activation = problem.network.activation
    z = jnp.linspace(activation.knots[0], activation.knots[-1], _PLACES)
    sigma_slope = jnp.ones_like(z) if box else jnp.abs(jax.vmap(jax.grad(activation))(z))

    def one(params: Params) -> Scalar:
        x = params.u[:, None] + activation.eta * z[None, :]
        residual = jnp.abs(problem.predict(params, x) - problem.label(x)) + noise
        weights = jnp.abs(params.a[-params.u.shape[0] :])
        seen = (x >= 0) & (x <= 1)
        slopes = jnp.where(seen, residual * weights[:, None] * sigma_slope[None, :], 0.0)
        return jnp.max(slopes) / activation.eta**2

    return jax.vmap(one)(params)
