"""What the dynamics ask of a problem."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import numpy as np

from .._types import Array, Float, Key, Scalar, Times, Tree
from ..closed_forms.base import AbstractClosedForm
from ..models.network import Params


class AbstractProblem(eqx.Module):
    """What the dynamics need of a problem.

    `risk` is all that GradientFlow and full-batch SGD ask for; a user's own problem adds the
    others for the dynamics that it wants to run. Params may hold any pytrees. `sweepable` names
    the fields that a sweep may vary, here and in networks, activations, targets and dynamics.
    """

    sweepable: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def risk(self, params: Params) -> Scalar:
        """The risk L(a, u): what every flow descends, and what trajectories record."""

    def draw(self, key: Key, count: int) -> tuple[Array, Array]:
        """`count` random inputs and their targets without noise, on leading axes. For SGD."""
        raise NotImplementedError(f"{type(self).__name__} has no `draw(key, count)`: SGD needs it.")

    def from_uniform(self, v: Array) -> tuple[Array, Array]:
        """Inputs and their targets without noise for numbers v uniform on [0, 1), elementwise.

        An alternative to `draw` where one number is enough: SGD then makes its samples faster.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `from_uniform(v)`.")

    def sample_loss(self, params: Params, x: Array, y: Array) -> Scalar:
        """The loss of one batch, x (batch, ...) and y (batch,). For SGD."""
        raise NotImplementedError(
            f"{type(self).__name__} has no `sample_loss(params, x, y)`: SGD needs it."
        )

    def sample_losses(self, params: Params, x: Array, y: Array) -> Float[Array, " R"]:
        """`sample_loss` of R runs side by side, on the last axis of every array."""
        return jax.vmap(self.sample_loss, in_axes=-1, out_axes=-1)(params, x, y)

    def best_outer(self, u: Tree, *, ridge: float | Scalar) -> Tree:
        """a*(u), the minimiser of the risk in a, with a relative ridge. For ReducedFlow."""
        raise NotImplementedError(
            f"{type(self).__name__} has no `best_outer(u, ridge=...)`: ReducedFlow needs it."
        )

    def label(self, x: Array) -> Array:
        """Targets without noise of given inputs. For SGD that replays a sample stream."""
        raise NotImplementedError(
            f"{type(self).__name__} has no `label(x)`: SGD with `samples` needs it."
        )

    def check(self, params: Params) -> None:
        """Raise `ValueError` if the parameters do not fit. By default nothing is asked."""

    def width(self, params: Params) -> int:
        """Return the number of neurons: by default the length of the first axis of u."""
        shape = np.shape(jax.tree.leaves(params.u)[0])
        return shape[0] if shape else 1

    def closed_form(self, width: int) -> AbstractClosedForm | None:
        """Return what is known exactly about this risk at a width, or None, which is the default.

        With it the flows need neither automatic differentiation nor quadrature. It must not
        depend on values that may be traced, only on classes, shapes and the width.
        """
        del width
        return None


def risks(problem: AbstractProblem, params: Params) -> Times:
    """Return the risks (T,) of parameters with a leading axis (T,), in closed form if there is
    one."""
    first = jax.tree.map(lambda leaf: leaf[0], params)
    form = problem.closed_form(problem.width(first))
    return jax.vmap(problem.risk)(params) if form is None else form.risks(params)
