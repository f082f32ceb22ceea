"""Starts and teachers that a study draws by its own words, such as those of a file."""

import inspect
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np

from ..._errors import argument_error, check_type
from ..._named import NamedArguments
from ..._numbers import as_whole, flag, real, whole, word
from ..._types import Key, Real
from ...models.activations import ReLU
from ...models.initialisers import DISTRIBUTIONS, check_scales, init_two_layer, init_uniform
from ...models.network import Params
from ...models.two_layer import TwoLayerNetwork
from ...problems.base import AbstractProblem
from ...problems.empirical import EmpiricalProblem
from ...problems.gaussian import GaussianProblem

OPTIONS = tuple(
    name
    for name in inspect.signature(init_two_layer).parameters
    if name not in ("key", "network", "width")
)
"""What a file may say of a start by `init_two_layer`."""


def seed_key(seed: Any) -> Key:
    """Return the key that all random numbers of a seed derive from."""
    # Of one generator, whatever JAX's default is: what "rbg" draws for a run depends on how many
    # others are in its batch.
    return jax.random.key(seed, impl="threefry2x32")


class TwoLayerStart(NamedArguments):
    """`init_two_layer` as the start of a study: a function of a key and a width.

    **Arguments:** `bias`, `outer_bias`: those of the network; the others as `init_two_layer` has
    them. A start does not depend on the activation of the network, which a grid may change.

    **Raises:** `ValueError` for bad arguments.
    """

    inputs: int = eqx.field(static=True, converter=whole("inputs"))
    outputs: int | None = eqx.field(static=True, default=None)
    bias: bool = eqx.field(static=True, default=True, converter=flag("bias"))
    outer_bias: bool = eqx.field(static=True, default=True, converter=flag("outer_bias"))
    distribution: Literal["gaussian", "sphere", "uniform"] = eqx.field(
        static=True, default="gaussian", converter=word("distribution", *DISTRIBUTIONS)
    )
    scale: Real = eqx.field(default=1.0, converter=real("scale"))
    bias_scale: Real = eqx.field(default=0.0, converter=real("bias_scale"))
    outer_scale: Real = eqx.field(default=0.0, converter=real("outer_scale"))

    def __check_init__(self):
        if self.outputs is not None:
            as_whole("outputs", self.outputs)
        check_scales(self.scale, self.bias_scale, self.outer_scale)

    def __call__(self, key: Key, width: int) -> Params:
        network = TwoLayerNetwork(ReLU(), bias=self.bias, outer_bias=self.outer_bias)
        return init_two_layer(
            key,
            network,
            self.inputs,
            width,
            outputs=self.outputs,
            distribution=self.distribution,
            scale=self.scale,
            bias_scale=self.bias_scale,
            outer_scale=self.outer_scale,
        )

    def like(self, width: int) -> Params:
        """Return parameters of the shapes of a start of this width, all 0."""
        p = width + int(self.outer_bias)
        u: dict[str, np.ndarray] = {"w": np.zeros((width, self.inputs))}
        if self.bias:
            u["b"] = np.zeros(width)
        return Params(np.zeros((p,) if self.outputs is None else (p, self.outputs)), u)

    def description(self) -> dict[str, Any]:
        """Return the start as a plain table, which says what is not by default.

        The biases are those of the network.
        """
        said = {name: getattr(self, name) for name in OPTIONS}
        by_default = inspect.signature(init_two_layer).parameters
        changed = {name: v for name, v in said.items() if v != by_default[name].default}
        return {"type": "init_two_layer", **changed}


def like(start: Any, width: int) -> Params | None:
    """Return parameters like those of a start of this package, and None for a user's own start.

    Nothing is drawn, which JAX would compile for.
    """
    if start is init_uniform:
        return Params(np.zeros(width + 1), np.linspace(0.0, 1.0, width))
    return start.like(width) if isinstance(start, TwoLayerStart) else None


def two_layer_start(problem: AbstractProblem, **options: Any) -> TwoLayerStart:
    """Return the start of a two-layer network for a problem, with the options of `OPTIONS`.

    `inputs` and `outputs` are those of the problem, unless they are given.

    **Raises:** `ValueError` for bad options, and for a problem of another network.
    """
    network = getattr(problem, "network", None)
    if not isinstance(network, TwoLayerNetwork):
        expected = f"`init_uniform` for a {type(network).__name__}"
        raise argument_error("start", expected, "`init_two_layer`")
    known: dict[str, Any] = {}
    if isinstance(problem, GaussianProblem | EmpiricalProblem):
        # A sample without an axis of inputs is refused once it meets a start of one input.
        known = {"inputs": problem.inputs or 1, "outputs": problem.outputs}
    return TwoLayerStart(bias=network.bias, outer_bias=network.outer_bias, **known | options)


def drawn_params(
    network: TwoLayerNetwork, *, seed: int, inputs: int, width: int, **options: Any
) -> Params:
    """Return random parameters of a network, drawn by `init_two_layer` with the key of a seed.

    **Raises:** `ValueError` for bad arguments.
    """
    check_type("network", network, TwoLayerNetwork)
    seed = as_whole("seed", seed, least=0, most=2**63 - 1)
    return init_two_layer(seed_key(seed), network, inputs, width, **options)
