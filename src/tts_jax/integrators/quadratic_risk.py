"""What the collocation method asks of a risk: to be quadratic in the fast layer."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx

from .._types import Array, Float, Scalar, Tree


class QuadraticNodes(NamedTuple):
    """Functions of a (n, p, K) at n places u, whose features they share.

    `residual`: to H a - b (n, p, K), half of the gradient by a. `gradients`: to this and the
    gradients by u, with a leading axis (n,). `moved`: from a (p, K) and a change of u to that of
    the network at the last of the places, its root mean square to first order.
    """

    residual: Callable[[Array], Array]
    gradients: Callable[[Array], tuple[Array, Tree]]
    moved: Callable[[Array, Tree], Scalar]


class AbstractQuadraticRisk(eqx.Module):
    """A risk L(a, u) = tr(a^T H(u) a) - 2 tr(b(u)^T a) + c for a (p, K) and any pytree u."""

    @abc.abstractmethod
    def nodes(self, us: Tree) -> QuadraticNodes:
        """Return what is known of the risk at places u, on the leading axis of every leaf."""

    @abc.abstractmethod
    def gram(self, u: Tree) -> Float[Array, "p p"]:
        """Return H(u)."""

    @abc.abstractmethod
    def outputs(self) -> int:
        """Return K."""

    @abc.abstractmethod
    def scale(self) -> Scalar:
        """Return how large the network is to be, in its root mean square, which errors are
        measured against."""
