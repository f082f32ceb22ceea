"""A run of SGD alone, in a loop of XLA."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx

from ..._types import Array, Count
from ...models.network import Params
from .loop import AbstractLoopedRun, RunState
from .run_spec import RunSpec
from .samples import Whole

MULTIPLE = 8
"""Neurons are filled up to a multiple of it, which fills vector registers: without a rest loop."""


class OneRun(AbstractLoopedRun):
    """A run alone. `undo` turns its parameters into those of the user."""

    spec: RunSpec
    undo: Callable[[Params], Params] = eqx.field(static=True, default=lambda params: params)

    @classmethod
    def padded(cls, spec: RunSpec) -> "OneRun":
        """Return the run with its neurons filled up, if its problem knows how to."""
        if not spec.update.is_elementwise or isinstance(spec.source, Whole):
            return cls(spec)
        found = spec.problem.padded(spec.params, MULTIPLE)
        if found is None:
            return cls(spec)
        problem, params, undo = found
        return cls(dataclasses.replace(spec, problem=problem, params=params), undo)

    @property
    def chunk_length(self) -> int:
        return self.spec.source.chunk_length

    def begin(self) -> RunState:
        return RunState.at_start(self.spec.params, self.spec.optimiser)

    def samples(self, number: Count) -> tuple[Array, ...]:
        return self.spec.source.chunk(self.spec.problem, number)

    def gradient(self) -> Callable[..., Any]:
        return self.spec.gradient()

    def update(self, gradient: Any, params: Params, optimiser: Any) -> tuple[Params, Any]:
        if not self.spec.update.needs_value:
            return self.spec.update(gradient, params, optimiser)
        value, slope = gradient
        return self.spec.update(slope, params, optimiser, value)

    def to_user(self, params: Params) -> Params:
        return self.undo(params)
