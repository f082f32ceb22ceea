"""The closed form in cell coordinates, for wide networks of steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import Status
from .._types import Array, Scalar, Times
from ..models.network import Params
from .banded import CellState
from .banded_system import (
    SPARE,
    AdaptiveBandwidthSystem,
    all_bandwidths,
    from_cells,
    to_cells,
    wide_risks,
)
from .base import AbstractClosedForm
from .pairwise import PairwiseRisk
from .pairwise_form import PairwiseForm


class BandedForm(AbstractClosedForm):
    """A network of steps against a target of steps, in O(m) for a gradient and for a step of the
    integrator, as long as few neurons overlap.

    Every bandwidth that may be needed is compiled, which takes seconds for each. With a `limit` it
    is one alone: a run in which more neurons come together then ends as CROWDED.
    """

    risk: PairwiseRisk
    width: int = eqx.field(static=True)
    limit: int | None = eqx.field(static=True, default=None)

    @property
    def bandwidths(self) -> tuple[int, ...]:
        """The bandwidths that are compiled."""
        every = all_bandwidths(self.width)
        return every if self.limit is None else (every[self.limit],)

    def limit_for(self, params: Params) -> int:
        places, end = np.sort(np.asarray(params.u)) / float(self.risk.eta), 1 / float(self.risk.eta)
        # Neurons that are outside altogether touch none.
        places = places[(places > -0.5) & (places < end + 0.5)]
        # Neurons beside each other in order that are closer than the steps are wide, and some more.
        needed = np.searchsorted(places, places + 1.0 + SPARE) - 1 - np.arange(places.size)
        most = np.max(needed, initial=0)
        return int(np.searchsorted(all_bandwidths(self.width)[:-1], most))

    def limited(self, limit: int | None) -> "BandedForm":
        return BandedForm(self.risk, self.width, limit)

    def to_state(self, params: Params) -> tuple[CellState, Array]:
        return to_cells(params)

    def to_params(self, states: CellState, kept: Array) -> Params:
        return from_cells(states, kept)

    def system(self, epsilon: Scalar, ridge: Scalar) -> AdaptiveBandwidthSystem:
        return AdaptiveBandwidthSystem(self.risk, epsilon, ridge, self.bandwidths)

    def with_hessian(self) -> PairwiseForm:
        return PairwiseForm(self.risk)

    def risks(self, params: Params) -> Times:
        return wide_risks(self.risk, self.bandwidths, params, crowds=self.limit is None)

    def rounding(self, params: Params) -> Times:
        states, _ = jax.vmap(to_cells)(params)
        largest = jnp.max(jnp.abs(states.c), axis=-1) + self.risk.largest_value
        overlaps = jnp.sum(jnp.diff(states.c, axis=-1) ** 2, axis=-1) * self.bandwidths[-1]
        return jnp.finfo(largest.dtype).eps * (largest**2 + self.risk.eta * overlaps)

    def relative_work(self, width: int) -> float:
        return width / 10

    def failure(self, status: Array, end: CellState) -> Array:
        none = jnp.zeros(())
        stopped = (status == Status.STAGNATION) | (status == Status.NON_FINITE)
        if self.limit is not None:  # with all bandwidths it may take fewer steps
            stopped = stopped | (status == Status.MAX_STEPS)
        crowded = stopped & self.system(none, none).crowded(end)
        return jnp.where(crowded, Status.CROWDED, status).astype(jnp.int32)
