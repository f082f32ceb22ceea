"""How fine the training steps of SGD are: what tells whether it can follow the flow."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import CoarseStepsWarning
from ..._types import Array, Scalar, Times, Tree
from ...batching.sequential import in_turn
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


def coarse_steps(stats: Mapping[str, Any]) -> list[Warning]:
    """Return a warning for each scale of a run, or of some of many, that is too large to follow the
    flow."""
    found: list[Warning] = []
    for name, (limit, text) in FINE_LIMITS.items():
        values = np.asarray(stats.get(name, 0.0))
        coarse = values[values > limit]
        if coarse.size:
            which = f"{coarse.size} of {values.size} runs: " if values.ndim else ""
            message = (
                f"{which}{text.format(coarse.max())}, or do not expect SGD to follow the flow."
            )
            found.append(CoarseStepsWarning(message))
    return found


def sgd_scales(
    problem: AbstractProblem,
    params: Params,
    fast: Scalar,
    slow: Scalar,
    noise: Scalar,
    batch: int,
    *,
    box: bool,
    rates: Tree = None,
) -> dict[str, Scalar]:
    """Return three scales of plain SGD at recorded parameters (T, ...), if they are known.

    They are for a `Problem` with a `ShallowNetwork` of steps; for others there are none. `fast`,
    `slow`: the step sizes h and epsilon h; `noise` s, uniform on [-s, s]; `batch`: samples a step;
    `box`: sigma' is the indicator of the transition; `rates` (m,) of the positions, or None, by
    which the largest jump is multiplied. With the residual r(x) = f(x) - f*(x), the
    features phi(x) and their Gram matrix H:

    - `largest_jump`: how far one step can move a neuron, in units of eta, at the worst recorded
      time: the largest 2 epsilon h (|r(x)| + s) |a_j sigma'(z)| / eta^2, looked for at 7 inputs
      around every neuron;
    - `fast_rate`: h times the largest rate of the outer layer at the last time, 2 h max eig H;
    - `noise_floor`: what random samples add to the risk at the last time once the outer layer is
      stationary, h/batch times the mean of (r^2 + s^2/3) |phi|^2, to first order in h.
    """
    if not _has_scales(problem):
        return {}
    floats, rest = eqx.partition(problem, eqx.is_inexact_array)

    def scales(
        floats: Tree, params: Params, fast: Scalar, slow: Scalar, noise: Scalar, rates: Tree
    ) -> dict[str, Scalar]:
        return _scales(eqx.combine(floats, rest), params, fast, slow, noise, batch, box, rates)

    # A vmapped quadrature over all runs would need memory for every one of them.
    return in_turn(scales)(floats, params, fast, slow, noise, rates)


def _has_scales(problem: AbstractProblem) -> TypeGuard[Problem]:
    # Not for a class of the user's own, which may have another loss.
    if type(problem) is not Problem or type(problem.network) is not ShallowNetwork:
        return False
    return isinstance(problem.network.activation, AbstractStep)


def _scales(
    problem: Problem,
    params: Params,
    fast: Scalar,
    slow: Scalar,
    noise: Scalar,
    batch: int,
    box: bool,
    rates: Array | None,
) -> dict[str, Scalar]:
    last: Params = jax.tree.map(lambda leaf: leaf[-1], params)
    is_finite = jnp.all(jnp.isfinite(last.u)) & jnp.all(jnp.isfinite(last.a))
    gram, _ = problem.normal_equations(jnp.where(is_finite, last.u, 0.5))
    nodes, weights, wanted = problem.rule(last.u)
    features = problem.network.features(last.u, nodes)
    square = (features @ last.a - wanted) ** 2 + noise**2 / 3
    energy = jnp.sum(weights * square * jnp.sum(features**2, axis=1))
    rate = 2 * fast * _largest_eigenvalue(gram)
    return {
        "largest_jump": 2 * slow * jnp.max(_largest_slope(problem, params, noise, box, rates)),
        "fast_rate": jnp.where(is_finite, rate, jnp.nan),
        "noise_floor": fast / batch * energy,
    }


def _largest_eigenvalue(matrix: Array) -> Scalar:
    """Return the largest eigenvalue, by 30 power iterations."""

    # A decomposition by a library can take longer than the run.
    def more(_: int, vector: Array) -> Array:
        image = matrix @ vector
        return image / jnp.sqrt(image @ image)

    vector = jax.lax.fori_loop(0, 30, more, jnp.ones_like(matrix[0]))
    return vector @ (matrix @ vector) / (vector @ vector)


def _largest_slope(
    problem: Problem, params: Params, noise: Scalar, box: bool, rates: Array | None
) -> Times:
    """Return the largest (|r(x)| + s) |a_j sigma'(z)| / eta^2 at every recorded time, that of each
    neuron times its rate."""
    activation = problem.network.activation
    z = jnp.linspace(activation.knots[0], activation.knots[-1], _PLACES)
    sigma_slope = jnp.ones_like(z) if box else jnp.abs(jax.vmap(jax.grad(activation))(z))

    def at_one_time(params: Params) -> Scalar:
        x = params.u[:, None] + activation.eta * z[None, :]
        residual = jnp.abs(problem.predict(params, x) - problem.label(x)) + noise
        weights = jnp.abs(params.a[-params.u.shape[0] :])
        weights = weights if rates is None else weights * rates
        is_input = (x >= 0) & (x <= 1)
        slopes = jnp.where(is_input, residual * weights[:, None] * sigma_slope[None, :], 0.0)
        return jnp.max(slopes) / activation.eta**2

    return jax.vmap(at_one_time)(params)
