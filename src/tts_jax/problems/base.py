"""The abstract problem: what dynamics and sweeps need of one."""

import abc
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import numpy as np

from .._named import NamedArguments
from .._types import Array, Float, Key, Scalar, Tree
from ..closed_forms.base import AbstractClosedForm
from ..models.network import Params


class AtBestOuter(NamedTuple):
    """What ReducedFlow asks for at u: `a`, the outer layer a*(u), the risk L(a, u), and its
    gradient `by_inner` at a fixed a, a tree like u."""

    a: Tree
    risk: Scalar
    by_inner: Tree


class AbstractProblem(NamedArguments):
    """A learning problem, which dynamics run on. Params may hold any pytrees.

    `risk` is all that GradientFlow and full-batch SGD need; a user's own problem adds the methods
    of the dynamics that it is to run with.

    `sweepable` names the fields that a sweep may vary, here and in networks, activations, targets
    and dynamics.
    """

    sweepable: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def risk(self, params: Params) -> Scalar:
        """Return the risk L(a, u), which every flow descends and every trajectory records."""

    def draw(self, key: Key, count: int) -> tuple[Array, Array]:
        """Return `count` random inputs and targets without noise, on leading axes. For SGD."""
        raise NotImplementedError(f"{type(self).__name__} has no `draw(key, count)`: SGD needs it.")

    def from_uniform(self, v: Array) -> tuple[Array, Array]:
        """Return inputs and targets without noise for numbers v uniform on [0, 1), elementwise.

        An alternative to `draw` where one number makes a sample: SGD draws faster with it.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `from_uniform(v)`.")

    def sample_loss(self, params: Params, x: Array, y: Array) -> Scalar:
        """Return the loss of one batch, x (batch, ...) and y (batch,). For SGD."""
        raise NotImplementedError(
            f"{type(self).__name__} has no `sample_loss(params, x, y)`: SGD needs it."
        )

    def sample_losses(self, params: Params, x: Array, y: Array) -> Float[Array, " R"]:
        """Return the `sample_loss` (R,) of R runs, which stand on the last axis of every array."""
        return jax.vmap(self.sample_loss, in_axes=-1, out_axes=-1)(params, x, y)

    def best_outer(self, u: Tree, *, ridge: float | Scalar) -> Tree:
        """Return a*(u), the minimiser of the risk in a, with a relative ridge. For ReducedFlow."""
        raise NotImplementedError(
            f"{type(self).__name__} has no `best_outer(u, ridge=...)`: ReducedFlow needs it."
        )

    def at_best_outer(self, u: Tree, *, ridge: float | Scalar) -> "AtBestOuter":
        """Return a*(u), the risk there, and its gradient by u at this fixed a. For ReducedFlow.

        Differentiable in u, through a*(u) too. A problem whose parts have much in common computes
        them together.
        """
        a = self.best_outer(u, ridge=ridge)
        found = jax.value_and_grad(lambda inner: self.risk(Params(a, inner)))(u)
        return AtBestOuter(a, *found)

    def has_best_outer(self) -> bool:
        """Return whether there is a `best_outer`: by default where a class defines it."""
        return type(self).best_outer is not AbstractProblem.best_outer

    def takes_noise(self) -> bool:
        """Return whether noise can be added to the targets, which classes do not allow."""
        return True

    def label(self, x: Array) -> Array:
        """Return the targets without noise of given inputs. For SGD that replays samples."""
        raise NotImplementedError(
            f"{type(self).__name__} has no `label(x)`: SGD with `samples` needs it."
        )

    def replayed(self, x: Array) -> tuple[Array, Array]:
        """Return inputs and targets without noise for the x of `samples`: by default inputs, and
        their `label`. For SGD that replays samples."""
        return x, self.label(x)

    def check_samples(self, x: Array) -> None:
        """Raise `ValueError` if x cannot be replayed, which may be traced. By default all can."""

    def padded(
        self, params: Params, multiple: int
    ) -> tuple["AbstractProblem", Params, Callable[[Params], Params]] | None:
        """Return an equivalent problem whose size is a multiple of `multiple`, or None by default.

        For SGD, which is faster at such sizes. Returns the problem, its parameters, which train
        like `params` here, and a function from parameters of that problem, with any leading axes,
        to those of this one.
        """
        del params, multiple
        return None

    def check(self, params: Params) -> None:
        """Raise `ValueError` if the parameters do not fit the problem. By default all do."""

    def width(self, params: Params) -> int:
        """Return the number of neurons: by default the length of the first axis of u."""
        leaves = jax.tree.leaves(params.u)
        shape = np.shape(leaves[0]) if leaves else ()
        return shape[0] if shape else 1

    def closed_form(self, width: int) -> AbstractClosedForm | None:
        """Return what is known exactly about this risk at a width, or None, which is the default.

        With it the flows need neither automatic differentiation nor quadrature. It must not
        depend on values that may be traced, only on classes, shapes and the width.
        """
        del width
        return None
