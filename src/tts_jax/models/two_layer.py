"""The two-layer network of any number of inputs and outputs."""

from typing import Any, ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_finite, check_type
from .._numbers import as_floats, flag, word
from .._types import Array, Tree
from ..numerics.products import product
from .activations import AbstractActivation
from .network import AbstractNetwork, Params

SCALINGS = {"standard": 0.0, "mean-field": 1.0, "ntk": 0.5}
"""How the sum over m neurons is scaled: by m to the minus this power."""


class TwoLayerNetwork(AbstractNetwork):
    """The network f(x; a, u) = a_0 + s sum_j a_j sigma((w_j . x + b_j)/eta) of d inputs.

    **Arguments:** the `activation` with its eta; `bias`: whether neurons have a bias b_j;
    `outer_bias`: whether the output has a bias a_0; `scaling`: the factor s of the sum over the m
    neurons is 1 ("standard"), 1/m ("mean-field") or 1/sqrt(m) ("ntk").

    Parameters: u = {"w": (m, d), "b": (m,)}, without "b" where `bias=False`; a (m+1,) with a_0
    first, or (m,) where `outer_bias=False`, and with one more axis (K,) for K outputs. Inputs x:
    (..., d); outputs: (...), or (..., K).

    **Raises:** `ValueError` for bad arguments.
    """

    activation: AbstractActivation
    bias: bool = eqx.field(static=True, default=True, kw_only=True, converter=flag("bias"))
    outer_bias: bool = eqx.field(
        static=True, default=True, kw_only=True, converter=flag("outer_bias")
    )
    scaling: Literal["standard", "mean-field", "ntk"] = eqx.field(
        static=True, default="standard", kw_only=True, converter=word("scaling", *SCALINGS)
    )
    sweepable: ClassVar[tuple[str, ...]] = ()

    def scale(self, width: int) -> float:
        """Return the factor s of the sum over so many neurons."""
        return float(width) ** -SCALINGS[self.scaling]

    def preactivations(self, u: Tree, x: Array) -> Array:
        """Return z = (w_j . x + b_j)/eta, the axes of x but its last, then the neurons (m,)."""
        z = product(x, jnp.asarray(u["w"]).T)
        return (_plus(z, u["b"]) if self.bias else z) / self.activation.eta

    def features(self, u: Tree, x: Array) -> Array:
        return self.features_of(self.activation(self.preactivations(u, x)))

    def features_of(self, sigma: Array) -> Array:
        """Return the features that neurons of the values sigma (..., m) make."""
        scaled = self.scale(sigma.shape[-1]) * sigma
        return _one_first(scaled) if self.outer_bias else scaled

    def inputs_of(self, x: Array) -> Array:
        """Return the inputs (..., d), with a 1 before them where neurons have biases."""
        return _one_first(x) if self.bias else x

    def __call__(self, params: Params, x: Array) -> Array:
        check_type("params", params, Params)
        x = as_floats("x", x)
        wanted = self.input_shape(params.u)
        if x.shape[-1:] != wanted:
            expected = f"of shape (..., {wanted[0]}) for w of shape {np.shape(params.u['w'])}"
            raise argument_error("x", expected, f"of shape {x.shape}")
        a = jnp.asarray(params.a)
        sigma = self.activation(self.preactivations(params.u, x))
        inner = a[1:] if self.outer_bias else a
        total = product(sigma, self.scale(sigma.shape[-1]) * inner)
        return _plus(total, a[0]) if self.outer_bias else total

    def has_outer_bias(self) -> bool:
        return type(self) is TwoLayerNetwork and self.outer_bias

    def outer_shape(self, u: Tree) -> tuple[int, ...]:
        """Return the shape of the a of one output that belongs to u."""
        return (np.shape(u["w"])[0] + int(self.outer_bias),)

    def input_shape(self, u: Tree) -> tuple[int, ...]:
        return np.shape(u["w"])[1:]

    def check(self, params: Params) -> None:
        shapes = self._inner_shapes(params.u)
        (p,) = self.outer_shape(params.u)
        shape = np.shape(params.a)
        if not 1 <= len(shape) <= 2 or shape[0] != p:
            expected = f"of shape ({p},) or ({p}, K) for w of shape {shapes['w']}"
            raise argument_error("params.a", expected, f"of shape {shape}")
        leaves = {"params.a": params.a} | {f"params.u[{n!r}]": params.u[n] for n in shapes}
        for name, leaf in leaves.items():
            if not hasattr(leaf, "dtype"):
                raise argument_error(name, "one array", f"a {type(leaf).__name__}")
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise argument_error(name, "of a floating dtype", f"of {leaf.dtype}")
            check_finite(name, leaf)

    def _inner_shapes(self, u: Any) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays in u, which are checked against each other."""
        names = ("w", "b") if self.bias else ("w",)
        expected = " and ".join(f'"{name}"' for name in names)
        if not isinstance(u, dict) or set(u) != set(names):
            got = f"with {list(u)}" if isinstance(u, dict) else f"a {type(u).__name__}"
            raise argument_error("params.u", f"a dictionary with {expected}", got)
        shapes = {name: np.shape(u[name]) for name in names}
        if len(shapes["w"]) != 2 or 0 in shapes["w"]:
            raise argument_error('params.u["w"]', "of shape (m, d)", f"of shape {shapes['w']}")
        if self.bias and shapes["b"] != shapes["w"][:1]:
            wanted = f"of shape {shapes['w'][:1]} for w of shape {shapes['w']}"
            raise argument_error('params.u["b"]', wanted, f"of shape {shapes['b']}")
        return shapes


def _one_first(rows: Array) -> Array:
    return jnp.concatenate([jnp.ones((*rows.shape[:-1], 1), rows.dtype), rows], axis=-1)


def _plus(rows: Array, row: Array) -> Array:
    """Return rows (..., *k), to each of which a row (*k) is added."""
    return rows + jnp.reshape(row, (1,) * (rows.ndim - jnp.ndim(row)) + jnp.shape(row))
