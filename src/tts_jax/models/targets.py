"""Targets: the functions f* that a network is trained to match.

A target of one input states, beside its values, its `cuts` (inputs where its pieces meet) and its
`degree` between them (None if not polynomial), so that the risk can be integrated exactly.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_finite, check_increasing, check_type
from .._named import NamedArguments
from .._numbers import as_floats, as_leaves, as_whole, reals, shown, whole
from .._types import Array, Float
from .network import AbstractNetwork, AbstractOneInputNetwork, Params


class AbstractLabels(NamedArguments):
    """A function f* of any number of inputs, which labels samples.

    A population `Problem` needs an `AbstractTarget`, which is a function of one input.
    """

    sweepable: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def __call__(self, x: Array) -> Array:
        """Return f*(x)."""

    def as_target(self) -> "AbstractTarget | None":
        """Return this function as the target of a `Problem`, or None if it is not of one input."""
        return None


class AbstractTarget(AbstractLabels):
    """A function f* of one input, with what a `Problem` needs to integrate the risk.

    Subclasses are final.
    """

    @property
    @abc.abstractmethod
    def degree(self) -> int | None:
        """The degree of the polynomial on every piece, or None."""

    @abc.abstractmethod
    def cuts(self) -> Float[Array, " k"]:
        """Return the inputs where the pieces meet."""

    @abc.abstractmethod
    def __call__(self, x: Array) -> Array:
        """Return f*(x); a jump belongs to the piece on its right."""

    @abc.abstractmethod
    def on_cells(self, x: Float[Array, "k q"], lower: Float[Array, " k"]) -> Float[Array, "k q"]:
        """Return f* at the nodes x of cells with lower ends `lower`; no cell has a cut inside.

        The piece is chosen by the lower end: a node of a cell of width zero may round to either
        side of a jump, which would make the derivative wrong there.
        """

    def as_target(self) -> "AbstractTarget":
        return self


_FEW_JUMPS = 32
"""Up to so many jumps, a comparison with every jump is faster than a search."""


class PiecewiseConstant(AbstractTarget):
    """The piecewise constant f* = values[k] between jumps[k-1] and jumps[k], on [0, 1].

    **Arguments:** `jumps` (n-1,), increasing inside (0, 1); `values` (n,), one more. Both may be
    traced and differentiated.

    **Raises:** `ValueError` for jumps unsorted, repeated or outside (0, 1), counts that do not
    match, and numbers that are not finite.
    """

    jumps: Float[Array, " n-1"] = eqx.field(converter=reals("jumps"))
    values: Float[Array, " n"] = eqx.field(converter=reals("values"))

    def __init__(self, jumps: Sequence[float] | Array, values: Sequence[float] | Array):
        self.jumps = jumps  # pyright: ignore[reportAttributeAccessIssue]
        self.values = values  # pyright: ignore[reportAttributeAccessIssue]

    def __check_init__(self):
        check_increasing("jumps", self.jumps, low=0.0, high=1.0, what="jumps")
        expected = (np.size(self.jumps) + 1,)
        if np.shape(self.values) != expected:
            raise argument_error(
                "values",
                f"of shape {expected} for {np.size(self.jumps)} jumps",
                f"of shape {np.shape(self.values)}",
            )
        check_finite("values", self.values)

    @property
    def heights(self) -> Float[Array, " n-1"]:
        """The heights of the jumps, w_k = values[k] - values[k-1]."""
        return jnp.diff(jnp.asarray(self.values))

    @property
    def degree(self) -> int | None:
        return 0

    def cuts(self) -> Array:
        return jnp.asarray(self.jumps)

    def __call__(self, x: Array) -> Array:
        jumps, values = jnp.asarray(self.jumps), jnp.asarray(self.values)
        if jumps.size > _FEW_JUMPS:
            return values[jnp.searchsorted(jumps, x, side="right")]
        result = jnp.broadcast_to(values[0], jnp.shape(x))
        for jump, value in zip(jumps, values[1:], strict=True):
            result = jnp.where(x >= jump, value, result)
        return result

    def on_cells(self, x: Array, lower: Array) -> Array:
        return jnp.broadcast_to(self(lower)[:, None], x.shape)


class AdditiveSteps(AbstractLabels):
    """The function f*(x) = sum over the d coordinates k and the jumps c of weight_c [x_k >= c].

    **Arguments:** `jumps` (n,), increasing inside (0, 1); `weights` (n,), by default all 1.
    Inputs x: (..., d), for any d.

    **Raises:** `ValueError` as `PiecewiseConstant`.
    """

    jumps: Float[Array, " n"] = eqx.field(converter=reals("jumps"))
    weights: Float[Array, " n"] = eqx.field(converter=reals("weights"))

    def __init__(
        self, jumps: Sequence[float] | Array, weights: Sequence[float] | Array | None = None
    ):
        self.jumps = jumps  # pyright: ignore[reportAttributeAccessIssue]
        self.weights = (  # pyright: ignore[reportAttributeAccessIssue]
            np.ones(np.shape(self.jumps)) if weights is None else weights
        )

    def __check_init__(self):
        check_increasing("jumps", self.jumps, low=0.0, high=1.0, what="jumps")
        if np.shape(self.weights) != np.shape(self.jumps):
            raise argument_error(
                "weights", f"of shape {np.shape(self.jumps)}", f"of shape {np.shape(self.weights)}"
            )
        check_finite("weights", self.weights)

    def __call__(self, x: Array) -> Array:
        jumps = jnp.reshape(jnp.asarray(self.jumps), (1,) * jnp.ndim(x) + np.shape(self.jumps))
        weights = jnp.reshape(jnp.asarray(self.weights), jumps.shape)
        return jnp.sum(jnp.where(x[..., None] >= jumps, weights, 0.0), axis=(-2, -1))


def _as_params(params: Any) -> Any:
    if not isinstance(params, Params):
        return params  # refused by its type
    halves = (("params.a", params.a), ("params.u", params.u))
    return Params(*(as_leaves(name, half, as_floats) for name, half in halves))


class Teacher(AbstractLabels):
    """A network with fixed parameters as the target: f*(x) = network(params, x)."""

    network: AbstractNetwork
    params: Params = eqx.field(converter=_as_params)

    def __check_init__(self):
        check_type("network", self.network, AbstractNetwork)
        check_type("params", self.params, Params)
        self.network.check(self.params)

    def __call__(self, x: Array) -> Array:
        return self.network(jax.tree.map(jnp.asarray, self.params), x)

    def as_target(self) -> "AbstractTarget | None":
        network = self.network
        if not isinstance(network, AbstractOneInputNetwork):
            return None
        return _OneInputTeacher(network, self.params)


class _OneInputTeacher(AbstractTarget):
    """A `Teacher` of one input as a target, with the cuts of its network."""

    network: AbstractOneInputNetwork
    params: Params

    @property
    def degree(self) -> int | None:
        return self.network.activation.degree

    def cuts(self) -> Array:
        return self.network.cuts(jnp.asarray(self.params.u))

    def __call__(self, x: Array) -> Array:
        return self.network(jax.tree.map(jnp.asarray, self.params), x)

    def on_cells(self, x: Array, lower: Array) -> Array:
        del lower
        return self(x)


_MOST_CELLS = 100_000
_MOST_DEGREE = 1000


def _as_degree(degree: Any) -> int | None:
    return None if degree is None else as_whole("degree", degree, least=0, most=_MOST_DEGREE)


def _check_elementwise(function: Any) -> None:
    """Raise unless a function returns a number for each input. It is traced, and not computed."""
    expected = "a function of arrays of jax.numpy that returns a number for each input"
    if not callable(function):
        raise argument_error("function", expected, shown(function))
    asked = jax.ShapeDtypeStruct((3,), jnp.result_type(float))
    try:
        # A function of the package around it: JAX would keep a reference to the user's object.
        found = jax.eval_shape(lambda x: function(x), asked)
    except Exception as error:  # of the user's function, which may fail in any way
        got = f"one that fails with {type(error).__name__}: {str(error).splitlines()[0]}"
        raise argument_error("function", expected, got) from error
    if getattr(found, "shape", None) != asked.shape:
        shape = getattr(found, "shape", f"of a {type(found).__name__}")
        got = f"one that returns values of shape {shape} for inputs of shape (3,)"
        raise argument_error("function", f"{expected} (a constant: `jnp.full_like(x, c)`)", got)


class Function(AbstractTarget):
    """Any function of one input as a target, elementwise on arrays.

    **Arguments:** `function`; `kinks`, increasing inside (0, 1): where the function or one of its
    derivatives jumps (the value at a jump must be the one on its right, as x >= c gives it);
    `degree`, if the function is a polynomial between the kinks; `cells`: without a degree, the risk
    is integrated by a composite rule on this many equal cells, cut further at all kinks.
    """

    function: Callable[[Array], Array]
    kinks: Float[Array, " k"] = eqx.field(converter=reals("kinks"), default=(), kw_only=True)
    degree: int | None = eqx.field(static=True, default=None, kw_only=True, converter=_as_degree)
    cells: int = eqx.field(
        static=True, default=32, kw_only=True, converter=whole("cells", most=_MOST_CELLS)
    )

    def __check_init__(self):
        check_increasing("kinks", self.kinks, low=0.0, high=1.0, what="kinks")
        _check_elementwise(self.function)

    def cuts(self) -> Array:
        kinks = jnp.asarray(self.kinks)
        if self.degree is not None:
            return kinks
        return jnp.concatenate([kinks, jnp.linspace(0, 1, self.cells + 1, dtype=kinks.dtype)])

    def __call__(self, x: Array) -> Array:
        return self.function(x)

    def on_cells(self, x: Array, lower: Array) -> Array:
        return self(x)
