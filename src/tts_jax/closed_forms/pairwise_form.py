"""The closed form by all pairs of neurons, for networks with a step activation, not too wide."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import Status
from .._types import Array, Scalar, Times
from ..batching.sequential import in_turn
from ..models.network import Params
from .base import AbstractClosedForm
from .pairwise import PairwiseRisk, PairwiseState, params_of, state_of
from .pairwise_system import PairwiseGradientSystem

_CLEAR = 0.75
"""Neurons that start so many eta from 0 and 1, or further, are not expected to be cut."""


class PairwiseForm(AbstractClosedForm):
    """The exact risk by all pairs of neurons: O(m^2) for a gradient, O(m^3) for a solver's step.

    The formulas for steps that 0 or 1 cuts take longer to compile than all others. Most runs never
    need them: limited, they are left out.
    """

    risk: PairwiseRisk
    limit_lasts: ClassVar = True

    def limit_for(self, params: Params) -> bool | None:
        u = np.asarray(params.u)
        margin = _CLEAR * float(self.risk.eta)
        return True if u.min() > margin and u.max() < 1.0 - margin else None

    def limited(self, limit: bool | None) -> "PairwiseForm":
        return PairwiseForm(dataclasses.replace(self.risk, uncut=bool(limit)))

    def to_state(self, params: Params) -> tuple[PairwiseState, None]:
        return state_of(params), None

    def to_params(self, states: PairwiseState, kept: None) -> Params:
        del kept
        return params_of(states)

    def system(self, epsilon: Scalar, ridge: Scalar) -> PairwiseGradientSystem:
        return PairwiseGradientSystem(self.risk, epsilon, ridge)

    def risks(self, params: Params) -> Times:
        numbers, static = eqx.partition(self.risk, eqx.is_inexact_array)
        risks = in_turn(lambda n, ys: jax.lax.map(eqx.combine(n, static), ys))(numbers, params)
        if not self.risk.uncut:
            return risks
        return jnp.where(jax.vmap(self.risk.touches_ends)(params.u), jnp.nan, risks)

    def rounding(self, params: Params) -> Times:
        largest = jnp.sum(jnp.abs(params.a), axis=-1) + self.risk.largest_value
        return jnp.finfo(largest.dtype).eps * largest**2

    def relative_work(self, width: int) -> float:
        return (width / 20) ** 2

    def failure(self, status: Array, end: PairwiseState) -> Array:
        if not self.risk.uncut:
            return status
        left = (status != Status.OK) & self.risk.touches_ends(end.u, spare=1e-3)
        return jnp.where(left, Status.CROWDED, status).astype(jnp.int32)
