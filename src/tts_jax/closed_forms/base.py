"""The abstract closed form: the exact risk of a network against a target, for the flows.

`AbstractProblem.closed_form(width)` returns an instance, or None where nothing is known exactly. A
flow integrates the ODE system of the form, in the coordinates of the form, and needs no more of it.
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Array, Scalar, Times, Tree
from ..integrators.rosenbrock import AbstractStagedSystem
from ..models.network import Params


class AbstractClosedForm(eqx.Module):
    """The risk of a network against a target, its gradient and its Hessian, known exactly.

    A state is any pytree of float64 arrays in which the risk is convenient; its shapes follow from
    those of the parameters. Subclasses are final. `AbstractFlow` uses these methods.
    """

    @abc.abstractmethod
    def to_state(self, params: Params) -> tuple[Tree, Any]:
        """Return the state of parameters, and what `to_params` needs to go back, such as an order
        of the neurons (or None)."""

    @abc.abstractmethod
    def to_params(self, states: Tree, kept: Any) -> Params:
        """Return the parameters of states with any leading axes, the inverse of `to_state`."""

    @abc.abstractmethod
    def system(self, epsilon: Scalar, ridge: Scalar) -> AbstractStagedSystem:
        """Return the ODE system of the gradient flow in slow time, for states.

        For epsilon = 0 that is the reduced flow: the outer layer has no mass, and solves its normal
        equations with the relative `ridge`. For epsilon > 0 the ridge is 0.
        """

    def with_hessian(self) -> "AbstractClosedForm":
        """Return a form of the same risk whose `system` is an `AbstractHessianSystem`, if there is
        one: flows whose inner parameters have rates of their own need it. By default the form."""
        return self

    @abc.abstractmethod
    def risks(self, params: Params) -> Times:
        """Return the risks (T,) of parameters with a leading axis (T,)."""

    def rounding(self, params: Params) -> Times:
        """Return estimates (T,) of the rounding errors of `risks`, 0 by default.

        Where they are too large, a run records the problem's own `risk` instead.
        """
        return jnp.zeros(jax.tree.leaves(params)[0].shape[0])

    @abc.abstractmethod
    def relative_work(self, width: int) -> float:
        """Return the time of a solver's step at a width, relative to one at width 20.

        For the plan of a sweep: an order of magnitude is enough.
        """

    def hessian_work(self) -> float | None:
        """Return the time of a solver's step per parameter, in gradients of the risk.

        None, the default, where the step is always worth its time. Else a flow that is not stiff
        for its size takes an explicit method.
        """
        return None

    limit_lasts: ClassVar[bool] = False
    """Whether a limit that was found for one start is good for most others."""

    def limit_for(self, params: Params) -> Any:
        """Return a limit within which runs from these parameters, which are numbers, are expected
        to stay. A form that is `limited` to it compiles faster. None, the default, is no limit;
        any other is made of whole numbers."""
        del params
        return None

    def limited(self, limit: Any) -> "AbstractClosedForm":
        """Return the form limited to what `limit_for` has found.

        A run that leaves the limit ends with the status CROWDED, and risks beyond it are NaN: then
        the run is run again without it.
        """
        del limit
        return self

    def failure(self, status: Array, end: Tree) -> Array:
        """Return the status code of a run that stopped at the state `end`.

        That is `status`, which the integrator gave, unless the form can tell better what failed.
        """
        del end
        return status
