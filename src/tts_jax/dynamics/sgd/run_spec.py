"""All that decides where a run of SGD goes: of one run, and of many side by side."""

import abc
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._errors import argument_error
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
    `needs_value`: whether it is called with the value of the loss, too.
    """

    is_elementwise: eqx.AbstractVar[bool]
    needs_value: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def __call__(
        self, gradient: Params, params: Params, state: Any, *value: Scalar
    ) -> tuple[Params, Any]:
        """Return what is added to the parameters, and the next state of the optimiser."""


class PlainUpdate(AbstractUpdate):
    """Minus the gradient times the step sizes: h for a, and epsilon h times the rates for u.

    `slow`: that of u, one number, or a tree like u or the beginning of one: of numbers, or of
    arrays like those of u, and then it is not elementwise.
    """

    fast: Scalar
    slow: Tree
    is_elementwise: bool = eqx.field(static=True, default=True)
    needs_value: bool = eqx.field(static=True, default=False)

    def __call__(
        self, gradient: Params, params: Params, state: None, *value: Scalar
    ) -> tuple[Params, None]:
        def change(size: Array, slope: Tree) -> Tree:
            return jax.tree.map(lambda g: -_sized(size, g) * g, slope)

        by_u = jax.tree.map(change, self.slow, gradient.u)
        return Params(change(self.fast, gradient.a), by_u), state


def _sized(size: Array, gradient: Array) -> Array:
    """Return the sizes of a step for a gradient, both with any axis of runs last."""
    size = size.astype(gradient.dtype)
    return size.reshape((1,) * (gradient.ndim - size.ndim) + size.shape) if size.ndim else size


class OptaxUpdate(AbstractUpdate):
    """What an optax transformation makes of the gradient, and of the loss if it asks for that.

    `rates`: the traced numbers inside of it, such as rates that runs differ in.

    **Arguments:** the transformation; where a run starts, and the state there; `risk`: what a
    training step goes down, as a function of parameters, or None if that is the loss of a sample.

    **Raises:** `ValueError` if the transformation asks for more than there is.
    """

    function: Callable[..., tuple[Params, Any]] = eqx.field(static=True)
    rates: list[Array]
    needs_value: bool = eqx.field(static=True)
    is_elementwise: bool = eqx.field(static=True, default=False)

    def __init__(
        self,
        optimiser: "optax.GradientTransformation",
        params: Params,
        state: Any,
        risk: Callable[[Params], Scalar] | None,
    ):
        def update(gradient: Params, params: Params, state: Any, *value: Scalar):
            more: dict[str, Any] = {}
            if value:
                more = {"value": value[0], "grad": gradient}
                more |= {} if risk is None else {"value_fn": risk}
            change, after = optimiser.update(gradient, state, params, **more)
            # The value may widen what is made of it.
            return _as_before((change, after), (params, state)) if value else (change, after)

        given = (params, params, state)
        self.needs_value = _lacks(update, given) is not None
        if self.needs_value:
            given = (*given, jnp.zeros((), jnp.result_type(*jax.tree.leaves(params))))
            lacking = _lacks(update, given)
            if lacking is not None:
                expected = "one that asks for gradients, parameters and the value of the loss only"
                if risk is None:
                    expected += ' (a line search goes with batch_size="full")'
                raise argument_error("optimiser", expected, f"one that {lacking}")
        # Rates that are traced are lifted out of it: vmap does not see them inside.
        self.function, rates = jax.closure_convert(update, *given)
        self.rates = list(rates)

    def __call__(
        self, gradient: Params, params: Params, state: Any, *value: Scalar
    ) -> tuple[Params, Any]:
        return self.function(gradient, params, state, *value, *self.rates)


def _lacks(update: Callable, given: tuple) -> str | None:
    """Return what an update complains of that is not given all keywords it asks for, or None."""
    try:
        jax.eval_shape(update, *given)
    except TypeError as error:
        _, is_so, names = str(error).partition("required keyword-only argument")
        if not is_so:
            raise
        return f"needs {names.lstrip('s: ')}"
    return None


def _as_before(new: Any, old: Any) -> Any:
    """Return a tree with the floating dtypes that it had before."""

    def one(new: Array, old: Array) -> Array:
        return jnp.asarray(new, old.dtype) if jnp.issubdtype(old.dtype, jnp.inexact) else new

    return jax.tree.map(one, new, old)


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
        return trained_problem(self.problem, self.params, box=self.box)

    def gradient(self) -> Callable[..., Any]:
        """Return the gradient that a training step goes down, as a function of parameters and a
        sample: of the loss of the sample, or of the risk where there are none.

        The value of that comes before it if the update needs it.
        """
        trained = self.trained_problem
        loss = trained.risk if isinstance(self.source, Whole) else trained.sample_loss
        return jax.value_and_grad(loss) if self.update.needs_value else jax.grad(loss)


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


def trained_problem(problem: AbstractProblem, params: Params, *, box: bool) -> AbstractProblem:
    """Return the problem that gradients are taken of: see `RunSpec`."""
    problem = with_box_gradient(problem) if box else problem
    return of_dtype(problem, jnp.result_type(*jax.tree.leaves(params)))


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
