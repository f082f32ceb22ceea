"""The risks that a run records: in closed form, and by the problem itself where digits are lost.

A closed form is a sum of terms as large as the squared weights. Where large weights cancel in the
network, its digits are lost in the sum, but not those of the problem's `risk`, which adds squares.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Array, Scalar, Times, Tree
from ..batching.gathered_cond import gathered_cond
from ..batching.sequential import one_by_one
from ..closed_forms.base import AbstractClosedForm
from ..models.network import Params
from .base import AbstractProblem

PRECISION = 1e-9
"""The relative error from which on the rounding error of a closed form is too large."""


def recorded_risks(
    problem: AbstractProblem,
    params: Params,
    form: AbstractClosedForm | None = None,
    *,
    only_known: bool = False,
) -> Times:
    """Return the risks (T,) of parameters with a leading axis (T,).

    They are those of a closed form, by default that of the problem if there is one. Where its
    rounding error may be above `PRECISION`, they are `problem.risk`, or NaN with `only_known`: a
    program without `problem.risk` compiles a tenth faster. Derivatives are those of the closed
    form.
    """
    if form is None:
        form = problem.closed_form(problem.width(jax.tree.map(lambda leaf: leaf[0], params)))
    if form is None:
        return jax.vmap(problem.risk)(params)
    known = form.risks(params)
    doubtful = ~(form.rounding(params) <= PRECISION * jnp.abs(known))  # also where it is NaN
    if only_known:
        return jnp.where(doubtful, jnp.nan, known)
    arrays, static = eqx.partition(problem, eqx.is_inexact_array)

    def correct(arrays: Tree, params: Params, known: Times, doubtful: Array) -> Times:
        def one(at: tuple[Params, Scalar, Array]) -> Scalar:
            params, known, doubtful = at
            exact = eqx.combine(arrays, static).risk
            return gathered_cond(doubtful, lambda known: exact(params).astype(known.dtype), known)

        return jax.lax.map(one, (params, known, doubtful))

    @jax.custom_jvp
    def corrected(arrays: Tree, params: Params, known: Times, doubtful: Array) -> Times:
        return one_by_one(correct)(arrays, params, known, doubtful)

    @corrected.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple[Times, Times]:
        return corrected(*primals), tangents[2]

    return corrected(arrays, params, known, doubtful)
