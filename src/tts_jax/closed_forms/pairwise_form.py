"""The closed form by all pairs of neurons, for networks with a step activation, not too wide."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Scalar, Times
from ..batching.sequential import in_turn
from ..models.network import Params
from .base import AbstractClosedForm
from .pairwise import PairwiseRisk, PairwiseState, params_of, state_of
from .pairwise_system import PairwiseGradientSystem


class PairwiseForm(AbstractClosedForm):
    """The exact risk by all pairs of neurons: O(m^2) for a gradient, O(m^3) for a solver's step."""

    risk: PairwiseRisk

    def to_state(self, params: Params) -> tuple[PairwiseState, None]:
        return state_of(params), None

    def to_params(self, states: PairwiseState, kept: None) -> Params:
        del kept
        return params_of(states)

    def system(self, epsilon: Scalar, ridge: Scalar) -> PairwiseGradientSystem:
        return PairwiseGradientSystem(self.risk, epsilon, ridge)

    def risks(self, params: Params) -> Times:
        numbers, static = eqx.partition(self.risk, eqx.is_inexact_array)
        return in_turn(lambda n, ys: jax.lax.map(eqx.combine(n, static), ys))(numbers, params)

    def rounding(self, params: Params) -> Times:
        largest = jnp.sum(jnp.abs(params.a), axis=-1) + self.risk.largest_value
        return jnp.finfo(largest.dtype).eps * largest**2

    def relative_work(self, width: int) -> float:
        return (width / 20) ** 2
