"""The closed form in cell coordinates, for wide networks with a step activation."""

import jax.numpy as jnp

from .._errors import Status
from .._types import Array, Scalar, Times
from ..models.network import Params
from .banded import CellState
from .banded_system import AdaptiveBandwidthSystem, from_cells, to_cells, wide_risks
from .base import AbstractClosedForm
from .pairwise import PairwiseRisk


class BandedForm(AbstractClosedForm):
    """The exact risk by pairs of overlapping neurons: O(m) for a gradient and for a solver's step.

    As long as few neurons overlap at any place.
    """

    risk: PairwiseRisk

    def to_state(self, params: Params) -> tuple[CellState, Array]:
        return to_cells(params)

    def to_params(self, states: CellState, kept: Array) -> Params:
        return from_cells(states, kept)

    def system(self, epsilon: Scalar, ridge: Scalar) -> AdaptiveBandwidthSystem:
        return AdaptiveBandwidthSystem(self.risk, epsilon, ridge)

    def risks(self, params: Params) -> Times:
        return wide_risks(self.risk, params)

    def relative_work(self, width: int) -> float:
        return width / 10

    def failure(self, status: Array, end: CellState) -> Array:
        stopped = (status == Status.STAGNATION) | (status == Status.NON_FINITE)
        zero = jnp.zeros(())
        crowded = stopped & self.system(zero, zero).crowded(end)
        return jnp.where(crowded, Status.CROWDED, status).astype(jnp.int32)
