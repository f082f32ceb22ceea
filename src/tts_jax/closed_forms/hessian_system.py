"""Systems that show the Hessian of the risk which they descend, so that it can be scaled."""

import abc

from .._types import Array, Float, Scalar, Tree
from ..integrators.rosenbrock import AbstractRosenbrockSystem


class AbstractHessianSystem(AbstractRosenbrockSystem):
    """A gradient flow M dy/dt = -grad L, whose `factorise` is with hessian(y) + diagonal(y, shift).

    A state is a named tuple with the inner parameters in `u`, whose mass is 1.
    """

    @abc.abstractmethod
    def hessian(self, y: Tree, /) -> Float[Array, "P P"]:
        """Return the Hessian of L by all P numbers of a state, in the order of `ravel_pytree`."""

    @abc.abstractmethod
    def diagonal(self, y: Tree, shift: Scalar) -> Float[Array, " P"]:
        """Return what a solver's step adds to the diagonal of the Hessian, in its order: `shift`
        times the mass, and the part of a ridge."""
