"""What is known exactly about a network against a target, as a flow asks for it.

`AbstractProblem.closed_form(width)` returns an instance, or None where nothing is known. A flow
then integrates the form's own ODE system in the form's own coordinates, and knows no more of it.
"""

import abc
from typing import Any

import equinox as eqx

from .._types import Array, Scalar, Times, Tree
from ..integrators.rosenbrock import AbstractSystem
from ..models.network import Params


class AbstractClosedForm(eqx.Module):
    """The risk of a network against a target, its gradient and its Hessian, known exactly.

    A state is any pytree of float64 arrays in which the risk is convenient; it has one shape for
    each shape of the parameters. Subclasses are final. Source of the use: see `AbstractFlow`.
    """

    @abc.abstractmethod
    def to_state(self, params: Params) -> tuple[Tree, Any]:
        """Return the state of parameters, and what `to_params` needs to go back, such as an order
        of the neurons (or None)."""

    @abc.abstractmethod
    def to_params(self, states: Tree, kept: Any) -> Params:
        """Return the parameters of states with any leading axes, the inverse of `to_state`."""

    @abc.abstractmethod
    def system(self, epsilon: Scalar, ridge: Scalar) -> AbstractSystem:
        """Return the ODE of the gradient flow in slow time, for states.

        For epsilon = 0 it is the reduced flow: the outer layer has no mass, and solves its normal
        equations with the relative `ridge`. For epsilon > 0 the ridge is 0.
        """

    @abc.abstractmethod
    def risks(self, params: Params) -> Times:
        """Return the risks (T,) of parameters with a leading axis (T,)."""

    @abc.abstractmethod
    def relative_work(self, width: int) -> float:
        """Return how long a step at this width takes, as a multiple of one of the paper's network
        of 20 neurons. For the plan of a sweep; an order of magnitude is enough."""

    def failure(self, status: Array, end: Tree) -> Array:
        """Return the status code of a run that stopped at the state `end`: the one that the
        integrator gave, unless the form knows better what went wrong."""
        del end
        return status
