"""The base of problems with a penalty of the outer weights in their risk."""

from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Real, Scalar
from ..models.network import Params
from .base import AbstractProblem


class AbstractPenalisedProblem(AbstractProblem):
    """A problem whose risk has the term penalty |a|^2, the sum of the squares of all of a."""

    sweepable: ClassVar[tuple[str, ...]] = ("penalty",)

    if TYPE_CHECKING:  # type checkers would take it for the first argument of a subclass

        @property
        def penalty(self) -> Real: ...
    else:
        penalty: eqx.AbstractVar[Real]

    def penalised(self, loss: Scalar, params: Params) -> Scalar:
        """Return a loss with the penalty of the outer weights."""
        squares = [jnp.sum(jnp.asarray(leaf) ** 2) for leaf in jax.tree.leaves(params.a)]
        return loss + jnp.asarray(self.penalty).astype(loss.dtype) * sum(squares)
