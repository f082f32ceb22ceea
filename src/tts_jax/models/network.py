"""Networks of any inputs that are linear in their outer layer, and their parameters."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_finite, check_type
from .._named import NamedArguments
from .._numbers import as_leaves
from .._types import Array, Tree
from .activations import AbstractActivation


class Params(NamedTuple):
    """The two halves of the parameters: `a`, trained fast, and `u`, trained slowly.

    Each is an array or any pytree. In a trajectory both carry a leading axis of recorded times.
    """

    a: Tree
    u: Tree


def as_params(params: Any) -> Params:
    """Return parameters whose leaves have come through the gate for numbers.

    **Raises:** `ValueError` for what is no `Params`, and for leaves that are no real numbers.
    """
    check_type("params", params, Params)
    return Params(as_leaves("params.a", params.a), as_leaves("params.u", params.u))


class AbstractNetwork(NamedArguments):
    """A network f(x; a, u) = sum over the entries of a of a * features(u, x), of any inputs."""

    activation: eqx.AbstractVar[AbstractActivation]
    sweepable: ClassVar[tuple[str, ...]] = ()

    def __check_init__(self):
        check_type("activation", self.activation, AbstractActivation)

    @abc.abstractmethod
    def features(self, u: Tree, x: Array) -> Array:
        """Return the features, the inputs of the outer layer: the axes of x, then those of a."""

    @abc.abstractmethod
    def outer_shape(self, u: Tree) -> tuple[int, ...]:
        """Return the shape of the a that belongs to u."""

    @abc.abstractmethod
    def input_shape(self, u: Tree) -> tuple[int, ...]:
        """Return the shape of one input: () for a single number, (d,) for d of them."""

    def positions(self, u: Tree) -> Array | None:
        """Return the coordinates of inputs at which neurons stand, or None, the default, where u
        has none."""
        del u

    def has_outer_bias(self) -> bool:
        """Return whether the first feature is the constant 1. By default none is."""
        return False

    @abc.abstractmethod
    def check(self, params: Params) -> None:
        """Raise `ValueError` unless the shapes of the parameters fit the network."""

    @abc.abstractmethod
    def __call__(self, params: Params, x: Array) -> Array:
        """Return f(x), of the shape of the axes of inputs."""


class AbstractOneInputNetwork(AbstractNetwork):
    """A network of one input that is smooth between points which it states, its cuts."""

    @abc.abstractmethod
    def cuts(self, u: Array) -> Array:
        """Return the inputs (k,) where the pieces of the network meet."""


def check_shapes(network: AbstractNetwork, params: Params, inner_axes: int, what: str) -> None:
    """Raise `ValueError` unless a and u are single floating arrays that fit each other, u with
    `inner_axes` axes, which the message calls `what`."""
    for name, half in (("params.a", params.a), ("params.u", params.u)):
        if not hasattr(half, "dtype"):
            raise argument_error(name, "one array", f"a {type(half).__name__}")
    if np.ndim(params.u) != inner_axes:
        raise argument_error("params.u", f"of shape {what}", f"of shape {np.shape(params.u)}")
    # Through the class: to bind a method of an equinox module takes longer than to call it.
    expected = type(network).outer_shape(network, params.u)
    if np.shape(params.a) != expected:
        raise argument_error(
            "params.a",
            f"of shape {expected} for inner positions of shape {np.shape(params.u)}",
            f"of shape {np.shape(params.a)}",
        )
    for name, half in (("params.a", params.a), ("params.u", params.u)):
        if not jnp.issubdtype(half.dtype, jnp.floating):
            raise argument_error(name, "of a floating dtype", f"of {half.dtype}")
    check_finite("params.a", params.a)
    check_finite("params.u", params.u)
