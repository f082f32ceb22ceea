"""The moments E sigma(z) and E sigma(z) sigma(z') of neurons with Gaussian inputs.

Exact for x ~ N(0, I_d) and the activations Erf, Probit, ReLU and HermiteSeries. All moments, their
gradients and their Hessians are finite for any weights, also where neurons coincide, are opposite
or vanish.

With xi ~ N(0, 1) independent of x, Phi(z/s) is the probability of s xi < z. So the moments of
smooth steps are probabilities of normal variables of variance s^2 + |w|^2, and their covariance
w.v: erf(z/eta) = 2 Phi(sqrt(2) z/eta) - 1. Without biases the mean product of two erf is
(2/pi) arcsin(...), C. Williams, "Computing with infinite networks", NeurIPS 1996.
"""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from .._errors import argument_error
from .._types import Array, Float
from ..models.activations import AbstractActivation, Erf, HermiteSeries, Probit, ReLU
from ..numerics.bivariate_normal import bivariate_normal_excess
from ..numerics.products import product
from .gaussian_pairs import Pairs, pairs
from .gaussian_relu import relu_means, relu_products
from .gaussian_series import series_covariances, series_slopes

Kind = Literal["step", "ramp", "series"]

_KINDS: dict[type, Kind] = {Erf: "step", Probit: "step", ReLU: "ramp", HermiteSeries: "series"}


class GaussianNeurons(eqx.Module):
    """The m neurons low + span Phi((w.x + b)/width); if they are ramps, span (w.x + b)+; if they
    are series, sum_k series_k he_k(w.x + b)."""

    kind: Kind = eqx.field(static=True)
    w: Float[Array, "m d"]
    b: Float[Array, " m"] | None
    width: Float[Array, " m"]
    low: Float[Array, " m"]
    span: Float[Array, " m"]
    series: Float[Array, "m p"] | None = None


def gaussian_kind(activation: AbstractActivation) -> Kind | None:
    """Return which of the known neurons have this activation; moments of one kind are known."""
    # Not for a subclass by the user, whose values may be others.
    return _KINDS.get(type(activation))


def known_activations() -> str:
    """Return the names of the activations whose moments are known, for a message."""
    *names, last = (kind.__name__ for kind in _KINDS)
    return f"{', '.join(names)} or {last}"


def gaussian_neurons(activation: AbstractActivation, w: Array, b: Array | None) -> GaussianNeurons:
    """Return the neurons sigma((w_j.x + b_j)/eta), w (m, d), b (m,) or None for no biases.

    **Raises:** `ValueError` for an activation whose moments are not known.
    """
    kind = gaussian_kind(activation)
    if kind is None:
        expected = f"{known_activations()}, whose means over Gaussian inputs are known"
        raise argument_error("activation", expected, f"a {type(activation).__name__}")
    one = jnp.ones_like(w[:, 0])
    eta = jnp.asarray(activation.eta, w.dtype) * one
    if kind == "ramp":
        return GaussianNeurons(kind, w, b, one, 0.0 * one, 1.0 / eta)
    if isinstance(activation, HermiteSeries):
        b = None if b is None else b / eta
        series = jnp.asarray(activation.coefficients, w.dtype)[None, :] * one[:, None]
        return GaussianNeurons(kind, w / eta[:, None], b, one, 0.0 * one, one, series)
    if isinstance(activation, Erf):
        return GaussianNeurons(kind, *_bounded(w, b, eta / math.sqrt(2.0)), -one, 2.0 * one)
    return GaussianNeurons(kind, *_bounded(w, b, eta), 0.0 * one, one)


def _bounded(w: Array, b: Array | None, width: Array) -> tuple[Array, Array | None, Array]:
    """Return neurons Phi((w.x + b)/width) as the same functions of x, with weights whose products
    are finite, as are those of their derivatives: only the ratios of w, b and width count."""
    limits = jnp.finfo(w.dtype)
    most, least = float(limits.max) ** (1 / 9), float(limits.tiny) ** (1 / 3)
    largest = jnp.max(jnp.abs(jax.lax.stop_gradient(w)), axis=1)
    large = largest > most
    factor = jnp.where(large, most / jnp.where(large, largest, 1.0), 1.0)
    # At this size of the weights so small a width is as good as 0, which has no derivatives.
    width = jnp.where(large, jnp.maximum(width * factor, least), width)
    return w * factor[:, None], None if b is None else b * factor, width


def joined(first: GaussianNeurons, second: GaussianNeurons) -> GaussianNeurons:
    """Return the neurons of two sets of one kind as one set."""
    assert first.kind == second.kind
    b = None
    if first.b is not None or second.b is not None:
        b = jnp.concatenate([_biases(first), _biases(second)])
    rows = (
        jnp.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("w", "width", "low", "span")
    )
    w, width, low, span = rows
    series = None
    if first.series is not None and second.series is not None:
        series = jnp.concatenate(_of_one_degree(first.series, second.series))
    return GaussianNeurons(first.kind, w, b, width, low, span, series)


def means(neurons: GaussianNeurons) -> Float[Array, " m"]:
    """Return E sigma(z_j) (m,)."""
    if neurons.series is not None:
        return _slopes(neurons, neurons.series)[:, 0]
    square = jnp.sum(neurons.w * neurons.w, axis=1)
    if neurons.kind == "ramp":
        return neurons.span * relu_means(square, neurons.b)
    if neurons.b is None:
        return neurons.low + 0.5 * neurons.span
    # Not low + span Phi(h), which loses the digits of a small mean.
    h = neurons.b / jnp.sqrt(neurons.width**2 + square)
    half = 0.5 * neurons.span
    return (neurons.low + half) + half * jax.scipy.special.erf(h / math.sqrt(2.0))


def covariances(left: GaussianNeurons, right: GaussianNeurons) -> Float[Array, "m k"]:
    """Return the covariances (m, k) of two sets of neurons of one kind; of all but ramps, to their
    last digits where they are small."""
    if left.kind == "ramp":
        return _ramps(left, right) - means(left)[:, None] * means(right)[None, :]
    if left.series is not None and right.series is not None:
        one, two = _of_one_degree(left.series, right.series)
        first, second = _slopes(left, one), _slopes(right, two)
        return series_covariances(first, second, product(left.w, right.w.T))
    at = pairs(left.w, right.w)
    spans = left.span[:, None] * right.span[None, :]
    return spans * _step_covariances(at, left, right)


def _slopes(neurons: GaussianNeurons, series: Array) -> Array:
    return series_slopes(series, jnp.sum(neurons.w * neurons.w, axis=1), neurons.b)


def _of_one_degree(left: Array, right: Array) -> tuple[Array, Array]:
    """Return two sets of coefficients (m, p) and (k, p), the shorter ones filled up with 0."""
    count = max(left.shape[1], right.shape[1])
    one, two = (jnp.pad(x, ((0, 0), (0, count - x.shape[1]))) for x in (left, right))
    return one, two


def _ramps(left: GaussianNeurons, right: GaussianNeurons) -> Array:
    products = relu_products(pairs(left.w, right.w), *_columns(left, right))
    return left.span[:, None] * right.span[None, :] * products


def _step_covariances(at: Pairs, left: GaussianNeurons, right: GaussianNeurons) -> Array:
    """Return the covariances (m, k) of Phi(z/s) and Phi(z'/s')."""
    one, two = left.width[:, None] ** 2, right.width[None, :] ** 2
    # The determinant of the covariance matrix of z + s xi and z' + s' xi', a sum without minus.
    determinant = one * two + one * at.other + two * at.square + at.wedge()
    b, c = _columns(left, right)
    q = jnp.sqrt(determinant)
    if b is None or c is None:
        return jnp.arctan2(at.product, q) / (2.0 * math.pi)
    h, k = b / jnp.sqrt(one + at.square), c / jnp.sqrt(two + at.other)
    return bivariate_normal_excess(h, k, at.product, q)


def _biases(neurons: GaussianNeurons) -> Array:
    return jnp.zeros_like(neurons.width) if neurons.b is None else neurons.b


def _columns(left: GaussianNeurons, right: GaussianNeurons) -> tuple[Array | None, Array | None]:
    """Return the biases as (m, 1) and (1, k), or None twice where there are none."""
    if left.b is None and right.b is None:
        return None, None
    return _biases(left)[:, None], _biases(right)[None, :]
