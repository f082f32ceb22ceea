"""Which method integrates a flow whose steps are costly: by what it is expected to cost.

The Rosenbrock method needs the Hessian of all P parameters in every step, an explicit method
hundreds of steps for each time scale of the fast layer. Both are counted in gradients of the risk.
`python benchmarks/solvers.py` measures what the counts stand for.
"""

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from .._errors import check_type
from .._numbers import as_real, as_whole, check_scalar
from .._programs import compiled
from .._types import Array, Real, Scalar, Tree, varying_as
from ..closed_forms.gradient_system import MOST_DENSE
from ..models.network import Params
from ..problems.base import AbstractProblem
from ..problems.separable import AbstractSeparableProblem
from .rates import rates_like

if TYPE_CHECKING:
    import diffrax

_MOST = 2**31 - 1
"""Neurons or parameters that an answer is given for: there is memory for no more."""

_STEPS = 300.0
"""Steps of the Rosenbrock method in a run, about, at any epsilon."""

AUTODIFF_HESSIAN = 4.0
"""Gradients, per parameter, that a Hessian by automatic differentiation and its factors take the
time of (measured: 2 to 9)."""

_STABLE = 3.3
"""The size of a step of Tsit5, times the largest rate, up to which it is stable."""

_STAGES = 6.0
"""Gradients in a step of Tsit5."""

_ITERATIONS = 20
"""Of the power method that finds the largest rate."""


def recommended_solver(
    epsilon: Real,
    width: int,
    problem: AbstractProblem,
    *,
    horizon: Real = 1.0,
    parameters: int | None = None,
) -> "diffrax.AbstractSolver | None":
    """Return the `solver` of a `GradientFlow` that is expected to take the least time on a CPU.

    `GradientFlow` chooses by itself, by the rates at its start; this is the choice without a start.

    **Arguments:** a number epsilon, the number of neurons, and the problem; `horizon`, the slow
    time up to which the flow goes; `parameters`, how many numbers the network has, by default
    those of a `ShallowNetwork`.

    **Returns:** None, which is the method of the package, for the closed forms of steps of one
    input, for separable problems, which run by collocation, and where the flow is stiff. Else an
    explicit method: the Hessian in every step costs more than many small steps.

    **Raises:** `ValueError` for numbers that are not positive.
    """
    epsilon, horizon = as_real("epsilon", epsilon), as_real("horizon", horizon)
    check_scalar("epsilon", epsilon, minimum=0.0, strict=True)
    check_type("problem", problem, AbstractProblem)
    check_scalar("horizon", horizon, minimum=0.0, strict=True)
    width = as_whole("width", width, most=_MOST)
    form = problem.closed_form(width)
    hessian = AUTODIFF_HESSIAN if form is None else form.hessian_work()
    count = 2 * width + 1 if parameters is None else as_whole("parameters", parameters, most=_MOST)
    if hessian is None or by_collocation(problem, count):
        return None
    # Features of size one: the eigenvalues of twice their Gram matrix sum up to twice their number.
    rate = (width + 1) / float(epsilon)
    return explicit_solver() if explicit_pays(rate, float(horizon), count, hessian) else None


def explicit_pays(
    rate: float, horizon: float, parameters: int, hessian: float = AUTODIFF_HESSIAN
) -> bool:
    """Return whether an explicit method is expected to be cheaper up to slow time `horizon`.

    `rate`: the largest rate of the flow, in slow time; `parameters`: how many numbers it moves;
    `hessian`: the time of a Hessian and its factors per parameter, in gradients.
    """
    if not math.isfinite(rate):  # the start is no place to judge by
        return parameters > MOST_DENSE
    explicit = _STAGES * max(_STEPS, horizon * rate / _STABLE)
    return explicit < implicit_gradients(parameters, hessian)


def implicit_gradients(parameters: int, hessian: float = AUTODIFF_HESSIAN) -> float:
    """Return how many gradients of the risk a run of the Rosenbrock method costs, about."""
    return _STEPS * (8.0 + hessian * parameters)


def by_collocation(problem: AbstractProblem, parameters: int) -> bool:
    """Return whether flows of a problem, of so many parameters, run by collocation."""
    return isinstance(problem, AbstractSeparableProblem) and problem.suits_collocation(parameters)


EXPLICIT = "Tsit5"
"""The name of the explicit method, for people."""


def explicit_solver() -> "diffrax.AbstractSolver":
    """Return the explicit method that is used where it pays."""
    import diffrax  # here, since it takes longer to import than a run without it

    return diffrax.Tsit5()


@compiled
def largest_rate(
    problem: AbstractProblem, params: Params, epsilon: Scalar, rates: Tree = None
) -> Scalar:
    """Return the largest rate of the gradient flow at its start, in slow time, by the power method.

    That is the largest eigenvalue, in size, of the Hessian after scaling by the mass: epsilon of a
    weight of the outer layer, and 1 of the inner ones, or 1 / their `rates`.
    """
    flat, whole = ravel_pytree(params)
    fast = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1.0 / jnp.sqrt(epsilon)), params.a)
    if rates is None:
        slow = jax.tree.map(jnp.ones_like, params.u)
    else:
        slow = jax.tree.map(jnp.sqrt, rates_like(rates, params.u))
    scale = ravel_pytree(Params(fast, slow))[0]
    gradient = jax.grad(lambda flat: problem.risk(whole(flat)))

    def more(_: Array, found: tuple[Array, Scalar]) -> tuple[Array, Scalar]:
        vector, _ = found
        image = scale * jax.jvp(gradient, (flat,), (scale * vector,))[1]
        size = jnp.linalg.norm(image)
        return image / jnp.where(size > 0, size, 1.0), size

    # Nothing regular, which an eigenvector might be orthogonal to.
    vector = jnp.cos(1.0 + jnp.arange(flat.size, dtype=flat.dtype) ** 2)
    vector = varying_as((flat, epsilon), vector / jnp.linalg.norm(vector))
    return jax.lax.fori_loop(0, _ITERATIONS, more, (vector, jnp.zeros_like(epsilon)))[1]
