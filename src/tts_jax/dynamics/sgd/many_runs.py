"""Runs of SGD from their numbers: one, or many side by side."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._types import Array, Count, Int, Tree
from ...batching.gpu_dispatch import kernel_or_plain
from ...batching.vector_lanes import last_axes, vmap_in_lanes
from ...models.network import Params
from ...models.shallow import ShallowNetwork
from ...problems.base import AbstractProblem
from ...problems.population import Problem
from .gpu import KernelStep, kernel_step, kernel_way
from .loop import Carry, Train, Way, advance, begin, chunks, one_way, reached, side_by_side
from .samples import AbstractSource, Whole

_MULTIPLE = 8
"""Neurons of a single run are filled up to a multiple of it: then there is no rest loop."""

_FEW = 6
"""Samples a step up to which lanes pay. XLA sums more of them a run at a time."""


class Numbers(NamedTuple):
    """All that decides where a run goes, as a tree of arrays.

    `stops` (T,): the numbers of steps after which it is recorded; `rates`: what `Recipe.update`
    gets beside its own arguments.
    """

    stops: Int[Array, " T"]
    params: Params
    problem: AbstractProblem
    source: AbstractSource
    optimiser: Any
    rates: list[Array]


class Recipe(NamedTuple):
    """What is the same for all runs.

    `update`: from gradient, parameters, state of the optimiser and rates to what is added to the
    parameters and the new state; `train`: see there; `plain`: whether the update is elementwise;
    `padded`: whether neurons may be filled up.
    """

    update: Callable[..., tuple[Params, Any]]
    train: Train
    plain: bool
    padded: bool = True


def all_runs(recipe: Recipe, numbers: Numbers) -> tuple[Params, Count]:
    """The parameters at every stop, and the steps taken. vmap it over any of the numbers."""
    arrays, static = eqx.partition(numbers, eqx.is_array)
    kernel = kernel_step(recipe, numbers)

    def one(arrays: Numbers) -> tuple[Params, Count]:
        way, carry, view = alone(recipe, eqx.combine(arrays, static))
        return _recorded(way, carry, view, arrays.stops)

    def many(arrays: Numbers, own: Numbers) -> tuple[Params, Count]:
        way, carry = _together(recipe, eqx.combine(arrays, static), own, kernel)
        ys, steps = _recorded(way, carry, lambda params: params, arrays.stops)
        lanes = jax.tree.leaves(ys)[0].shape[-1]
        return ys, jnp.broadcast_to(steps, (lanes,))

    def in_step(own: Numbers) -> bool:
        if kernel is not None:
            return kernel.hashed or not own.stops
        return 0 < numbers.source.size <= _FEW and not own.stops

    def only(arrays: Numbers) -> tuple[Params, Count]:
        return _first(many(*_only(arrays)))

    return vmap_in_lanes(one, many, in_step, None if kernel is None else only)(arrays)


def _only(arrays: Numbers) -> tuple[Numbers, Numbers]:
    """One run as many, of which there is one."""
    params = jax.tree.map(lambda leaf: leaf[..., None], arrays.params)
    own = jax.tree.map(lambda _: False, arrays)
    return arrays._replace(params=params), own._replace(
        params=jax.tree.map(lambda _: True, arrays.params)
    )


def _first(runs: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf[..., 0], runs)


def single(recipe: Recipe, numbers: Numbers) -> tuple[Way, Carry, Callable[[Params], Params]]:
    """`alone`, or in the kernel as the only one of many."""
    kernel = kernel_step(recipe, numbers)
    if kernel is None:
        return alone(recipe, numbers)
    arrays, static = eqx.partition(numbers, eqx.is_array)
    arrays, own = _only(arrays)
    return *_together(recipe, eqx.combine(arrays, static), own, kernel), _first


def alone(recipe: Recipe, numbers: Numbers) -> tuple[Way, Carry, Callable[[Params], Params]]:
    """The way and the start of one run, and what turns its parameters into those of the user."""
    problem, params = numbers.problem, numbers.params

    def update(gradient: Params, params: Params, state: Any) -> tuple[Params, Any]:
        return recipe.update(gradient, params, state, *numbers.rates)

    def same(params: Params) -> Params:
        return params

    # Not a class of the user's own, which may look at the parameters themselves.
    network = problem.network if type(problem) is Problem else None
    if (
        not (recipe.plain and recipe.padded)
        or isinstance(numbers.source, Whole)
        or type(network) is not ShallowNetwork
        or network.activation.limits != (0.0, 1.0)
    ):
        way = one_way(problem, numbers.source, recipe.train, update)
        return way, begin(params, numbers.optimiser), same
    width = params.u.shape[0]
    wide, params = network.padded(params, _MULTIPLE)
    problem = eqx.tree_at(lambda p: p.network, problem, wide)
    way = one_way(problem, numbers.source, recipe.train, update)
    return way, begin(params, None), lambda params: network.unpadded(params, width)


def _together(
    recipe: Recipe, numbers: Numbers, own: Numbers, kernel: KernelStep | None
) -> tuple[Way, Carry]:
    """The way and the start of many runs: they are on the last axis of what is `own`."""
    leaves = jax.tree.leaves(eqx.filter(numbers, eqx.is_array))
    theirs = jax.tree.leaves(own)
    lanes = next(v.shape[-1] for v, is_own in zip(leaves, theirs, strict=True) if is_own)
    axes = last_axes(own)

    def every(leaf: Array, is_own: bool) -> Array:
        return leaf if is_own else jnp.broadcast_to(leaf[..., None], (*leaf.shape, lanes))

    def update(gradient: Params, params: Params, state: Any) -> tuple[Params, Any]:
        if recipe.plain:
            return recipe.update(gradient, params, state, *numbers.rates)
        each = jax.vmap(recipe.update, in_axes=(-1, -1, -1, *axes.rates), out_axes=-1)
        return each(gradient, params, state, *numbers.rates)

    params, state = jax.tree.map(
        every, (numbers.params, numbers.optimiser), (own.params, own.optimiser)
    )
    problem, source, along = numbers.problem, numbers.source, (axes.problem, axes.source)
    carry = begin(params, state)
    if kernel is None:
        return side_by_side(problem, source, recipe.train, update, along), carry
    if own.stops:
        carry = carry._replace(step=jnp.zeros(lanes, carry.step.dtype))
    arrays, static = eqx.partition(numbers, eqx.is_array)

    def fast(arrays: Numbers, *part: Any) -> tuple[Params, Any]:
        mine = eqx.combine(arrays, static)
        chunk = chunks(mine.problem, mine.source, along)
        return kernel_way(kernel, mine, own, chunk).walk(*part)

    def one(arrays: Numbers, *part: Any) -> tuple[Params, Any]:
        return alone(recipe._replace(padded=False), eqx.combine(arrays, static))[0].walk(*part)

    def slow(arrays: Numbers, number: Count, *part: Any) -> tuple[Params, Any]:
        """Each run in a loop of its own."""
        one_by_one = -1 if number.ndim else None
        axes = (last_axes(own), *(one_by_one,) * 3, -1, -1, -1)
        return jax.vmap(one, axes, out_axes=-1)(arrays, number, *part)

    walk = kernel_or_plain(fast, slow)
    return Way(source.length, lambda *part: walk(arrays, *part)), carry


def _recorded(
    way: Way, carry: Carry, view: Callable[[Params], Params], stops: Int[Array, " T"]
) -> tuple[Params, Count]:
    def record(carry: Carry, stop: Count) -> tuple[Carry, Params]:
        carry = advance(way, carry, stop)
        return carry, view(reached(carry))

    carry, ys = jax.lax.scan(record, carry, stops)
    return ys, carry.step
