"""All that decides where a run of SGD goes: of one run, and of many side by side."""

import abc
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._types import Array, Count, Int, Scalar, Tree
from ...models.activations import AbstractActivation, BoxGradient
from ...models.network import Params
from ...problems.base import AbstractProblem
from .samples import AbstractSource, Hashed, Whole, of_dtype

if TYPE_CHECKING:
    import optax


class AbstractUpdate(eqx.Module):
    """What a training step adds to the parameters.

    `is_elementwise`: whether it has no state and a parameter changes by its own derivative alone.
    Then it may be given arrays with more axes and more entries than those of one run.
    """

    is_elementwise: ClassVar[bool]

    @abc.abstractmethod
    def __call__(self, gradient: Params, params: Params, state: Any) -> tuple[Params, Any]:
        """Return what is added to the parameters, and the next state of the optimiser."""


class PlainUpdate(AbstractUpdate):
    """Minus the gradient times the step sizes: h for a, and epsilon h for u."""

    fast: Scalar
    slow: Scalar
    is_elementwise: ClassVar[bool] = True

    def __call__(self, gradient: Params, params: Params, state: None) -> tuple[Params, None]:
        def change(slope: Tree, size: Scalar) -> Tree:
            return jax.tree.map(lambda g: -size.astype(g.dtype) * g, slope)

        return Params(change(gradient.a, self.fast), change(gradient.u, self.slow)), state


class OptaxUpdate(AbstractUpdate):
    """What an optax transformation makes of the gradient.

    `rates`: the traced numbers inside of it, such as rates that runs differ in.
    """

    function: Callable[..., tuple[Params, Any]] = eqx.field(static=True)
    rates: list[Array]
    is_elementwise: ClassVar[bool] = False

    def __init__(self, optimiser: "optax.GradientTransformation", params: Params, state: Any):
        # Rates that are traced are lifted out of it: vmap does not see them inside.
        self.function, rates = jax.closure_convert(
            lambda gradient, params, state: optimiser.update(gradient, state, params),
            *(params, params, state),
        )
        self.rates = list(rates)

    def __call__(self, gradient: Params, params: Params, state: Any) -> tuple[Params, Any]:
        return self.function(gradient, params, state, *self.rates)


class RunSpec(eqx.Module):
    """All that decides where a run goes. Its arrays are what runs may differ in.

    `stops` (T,): the numbers of training steps after which the run is recorded; `params`: where it
    starts; `optimiser`: the state of the optimiser there, None for the plain update; `box`: whether
    the derivative of an activation is replaced by the indicator of its transition.
    """

    stops: Int[Array, " T"]
    params: Params
    problem: AbstractProblem
    source: AbstractSource
    optimiser: Any
    update: AbstractUpdate
    box: bool = eqx.field(static=True)

    @property
    def trained_problem(self) -> AbstractProblem:
        """The problem as gradients are taken of it: in the precision of the parameters, and with
        the derivative of the activations that was asked for."""
        problem = with_box_gradient(self.problem) if self.box else self.problem
        return of_dtype(problem, jnp.result_type(*jax.tree.leaves(self.params)))

    def gradient(self) -> Callable[..., Params]:
        """Return the gradient that a training step goes down, as a function of parameters and a
        sample: of the loss of the sample, or of the risk where there are none."""
        trained = self.trained_problem
        return jax.grad(trained.risk if isinstance(self.source, Whole) else trained.sample_loss)


class BatchedSpec(eqx.Module):
    """All that decides where many runs go.

    `spec` has the runs on the last axis of those arrays for which `is_batched`, a tree of truth
    values like it, says so. The runs share the others.
    """

    spec: RunSpec
    is_batched: RunSpec

    @classmethod
    def of_one(cls, spec: RunSpec) -> "BatchedSpec":
        """Return one run as many, of which there is one."""
        params = jax.tree.map(lambda leaf: leaf[..., None], spec.params)
        shared = jax.tree.map(lambda _: False, eqx.filter(spec, eqx.is_array))
        each = jax.tree.map(lambda _: True, spec.params)
        return cls(
            dataclasses.replace(spec, params=params), dataclasses.replace(shared, params=each)
        )

    @property
    def size(self) -> int:
        """How many runs there are."""
        batched = eqx.filter(eqx.filter(self.spec, eqx.is_array), self.is_batched)
        return jax.tree.leaves(batched)[0].shape[-1]

    @property
    def axes(self) -> RunSpec:
        """The axes of the runs for `jax.vmap`, -1 or None."""
        return jax.tree.map(lambda is_batched: -1 if is_batched else None, self.is_batched)

    def start(self) -> tuple[Params, Any]:
        """Return the parameters and the states of the optimiser at the start of every run."""
        size = self.size

        def spread(leaf: Array, is_batched: bool) -> Array:
            return leaf if is_batched else jnp.broadcast_to(leaf[..., None], (*leaf.shape, size))

        spec, is_batched = self.spec, self.is_batched
        both = (spec.params, spec.optimiser)
        return jax.tree.map(spread, both, (is_batched.params, is_batched.optimiser))

    @property
    def share_samples(self) -> bool:
        """Whether all runs see the same samples."""
        return not jax.tree.leaves((self.axes.problem, self.axes.source))

    def samples(self, number: Count) -> tuple[Array, ...]:
        """Return chunk `number` of the samples, with the runs on the last axis unless they share
        them."""
        problem, source, axes = self.spec.problem, self.spec.source, self.axes
        # Hashed samples are made elementwise: seeds with an axis of runs give samples with one.
        many_at_once = isinstance(source, Hashed) and source.noise.ndim == 0
        if self.share_samples or (many_at_once and not jax.tree.leaves(axes.problem)):
            return source.chunk(problem, number)
        one = jax.vmap(
            lambda p, s: s.chunk(p, number), in_axes=(axes.problem, axes.source), out_axes=-1
        )
        return one(problem, source)


def activations(problem: AbstractProblem) -> list[AbstractActivation]:
    """Return all activations inside a problem."""
    leaves = jax.tree.leaves(problem, is_leaf=_is_activation)
    return [leaf for leaf in leaves if _is_activation(leaf)]


def with_box_gradient(problem: AbstractProblem) -> AbstractProblem:
    """Return the problem with every activation's derivative replaced; all values stay the same."""
    return jax.tree.map(
        lambda node: BoxGradient(node) if _is_activation(node) else node,
        problem,
        is_leaf=_is_activation,
    )


def _is_activation(node: Any) -> bool:
    return isinstance(node, AbstractActivation)
