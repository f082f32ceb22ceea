"""Activations: the function of one neuron, and what quadrature must know of it.

An activation is sigma(z) with z = (x - u)/eta. Beside its values it states

- `eta`, its transition width;
- `knots`: the values of z where its pieces meet;
- `degree`: the degree of the polynomial on every piece, or None if it is not polynomial. Then
  the knots only cut the line into cells short enough for the composite rule, and outside the
  outermost knots the activation counts as constant;
- `limits`: its values at z -> -inf and +inf, or None if it is unbounded.

A new activation is a class with these four and `__call__`; test it with `check_activation`.
"""

import abc
import itertools
from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import check_64_bit
from .._named import NamedArguments
from .._numbers import check_scalar, real
from .._types import Array, Real
from ..numerics.quadrature import gauss_legendre, points_per_cell
from . import cubic_step

if TYPE_CHECKING:  # type checkers know only the standard library's name for it
    from typing import ClassVar as AbstractClassVar
else:
    from equinox import AbstractClassVar


class AbstractActivation(NamedArguments):
    """A function sigma of one number, with what every activation states. Subclasses are final."""

    eta: eqx.AbstractVar[Real]
    knots: AbstractClassVar[tuple[float, ...]]
    degree: AbstractClassVar[int | None]
    limits: AbstractClassVar[tuple[float, float] | None]
    sweepable: ClassVar[tuple[str, ...]] = ("eta",)

    @abc.abstractmethod
    def __call__(self, z: Array) -> Array:
        """Return sigma(z), elementwise, of the shape and dtype of z."""

    def __check_init__(self):
        check_scalar("eta", self.eta, minimum=0.0, strict=True)


class AbstractStep(AbstractActivation):
    """A step-shaped activation, from 0 below z = -1/2 to 1 above 1/2, with integrals known exactly.

    With these the risk against a piecewise constant target needs no quadrature. They are
    elementwise and twice differentiable. The knots are -1/2, 0 and 1/2.
    """

    @abc.abstractmethod
    def primitive(self, z: Array) -> Array:
        """Return the integral of sigma(y) over y < z."""

    @abc.abstractmethod
    def overlap(self, t: Array) -> Array:
        """Return z - q - (the integral of sigma(y - p) sigma(y - q) over y < z), for large z.

        The result depends on t = p - q only. It rises from 0 at t = -1, where the transition of q
        begins at the end of that of p, to t for all t above 1.
        """

    def beyond(self, p: Array, q: Array) -> Array:
        """Return the integral of sigma(y - p) sigma(y - q) over y < 0, for p, q of at least -1/2.

        By a quadrature rule that is exact: between the knots the integrand is a polynomial.
        """
        rule = list(zip(*gauss_legendre(points_per_cell(self.degree)), strict=True))
        start = jnp.minimum(jnp.maximum(p, q) - 0.5, 0.0)
        middle = [jnp.clip(knot, start, 0.0) for knot in (jnp.minimum(p, q), jnp.maximum(p, q))]
        total = jnp.zeros_like(start)
        for low, high in itertools.pairwise([start, *middle, jnp.zeros_like(start)]):
            for node, weight in rule:
                y = low + (high - low) * node
                total = total + (high - low) * weight * self(y - p) * self(y - q)
        return total


class CubicStep(AbstractStep):
    """The cubic step of the paper, C1: 0 below z = -1/2, 1 above 1/2, cubic on [-1/2, 0] and
    [0, 1/2].

    The quadrature rule of `Problem.risk` is exact for this activation.
    """

    eta: Real = eqx.field(converter=real("eta"))
    knots: ClassVar = (-0.5, 0.0, 0.5)
    degree: ClassVar = 3
    limits: ClassVar = (0.0, 1.0)

    def __call__(self, z: Array) -> Array:
        return cubic_step.cubic_step(z)

    def primitive(self, z: Array) -> Array:
        return cubic_step.primitive(z)

    def overlap(self, t: Array) -> Array:
        return cubic_step.overlap(t)

    def beyond(self, p: Array, q: Array) -> Array:
        return cubic_step.product_beyond_zero(p, q)


class ReLU(AbstractActivation):
    """The rectifier max(z, 0). The quadrature rule of `Problem.risk` is exact for it.

    eta only scales the features; the paper has eta = 1.
    """

    eta: Real = eqx.field(default=1.0, converter=real("eta"))
    knots: ClassVar = (0.0,)
    degree: ClassVar = 1
    limits: ClassVar = None

    def __call__(self, z: Array) -> Array:
        return jnp.maximum(z, 0.0)


def _graded(*points: float) -> tuple[float, ...]:
    return (*(-p for p in reversed(points)), 0.0, *points)


class Logistic(AbstractActivation):
    """The logistic function 1 / (1 + exp(-z)).

    The composite rule of `Problem.risk` errs by less than 1e-12 |a|^2.
    """

    eta: Real = eqx.field(converter=real("eta"))
    knots: ClassVar = _graded(1.5, 3.0, 5.0, 8.0, 13.0, 20.0, 36.0)
    degree: ClassVar = None
    limits: ClassVar = (0.0, 1.0)

    def __call__(self, z: Array) -> Array:
        return jax.nn.sigmoid(z)


class Tanh(AbstractActivation):
    """The hyperbolic tangent tanh(z).

    The composite rule of `Problem.risk` errs by less than 1e-12 |a|^2.
    """

    eta: Real = eqx.field(converter=real("eta"))
    knots: ClassVar = _graded(0.75, 1.5, 2.5, 4.0, 6.5, 10.0, 18.0)
    degree: ClassVar = None
    limits: ClassVar = (-1.0, 1.0)

    def __call__(self, z: Array) -> Array:
        return jnp.tanh(z)


class Erf(AbstractActivation):
    """The error function erf(z).

    The composite rule of `Problem.risk` errs by less than 1e-12 |a|^2.
    """

    eta: Real = eqx.field(converter=real("eta"))
    knots: ClassVar = _graded(0.75, 1.5, 2.25, 3.0, 4.0, 6.0)
    degree: ClassVar = None
    limits: ClassVar = (-1.0, 1.0)

    def __call__(self, z: Array) -> Array:
        return jax.scipy.special.erf(z)


@jax.custom_jvp
def _with_slope(value: Array, slope: Array, z: Array) -> Array:
    """Return `value`, with `slope` as its derivative by z."""
    del slope, z
    return value


@_with_slope.defjvp
def _with_slope_jvp(primals, tangents):
    value, slope, _ = primals
    return value, slope * tangents[2]


class BoxGradient(AbstractActivation):
    """An activation whose derivative is replaced by the indicator of its transition.

    The values are those of `inner`; the derivative is 1 where |z| <= 1/2 and 0 elsewhere.
    SGD(gradient="box") trains with this activation. It has no knots, since no risk is integrated
    with it.
    """

    inner: AbstractActivation
    eta: Real
    knots: ClassVar = ()
    degree: ClassVar = None
    limits: ClassVar = None

    def __init__(self, inner: AbstractActivation):
        self.inner = inner
        self.eta = inner.eta

    def __call__(self, z: Array) -> Array:
        slope = (jnp.abs(z) <= 0.5).astype(z.dtype)
        return _with_slope(jax.lax.stop_gradient(self.inner(z)), slope, z)


def check_activation(activation: AbstractActivation) -> float:
    """Check an activation against its contract; return the error of the quadrature rule for it.

    **Arguments:** an instance of a user's own `AbstractActivation`.

    **Returns:** the largest error, over the cells between the knots and a few units beyond, of
    the rule's integrals of sigma^2 and of sigma sigma', against a rule of four times the order.

    **Raises:** `ValueError` naming what does not hold: elementwise with shape and dtype kept,
    knots increasing, limits reached at the outermost knots, a polynomial of the stated degree on
    every piece, a finite derivative, also on the knots, that matches finite differences.
    """

    check_64_bit()

    def fail(what: str, got: object) -> ValueError:
        return ValueError(f"{type(activation).__name__}: {what}, but got {got}.")

    knots = np.asarray(activation.knots, dtype=np.float64)
    if knots.size == 0 or np.any(np.diff(knots) <= 0):
        raise fail("`knots` must be increasing numbers, at least one", knots.tolist())
    edges = np.concatenate([[knots[0] - 3.0], knots, [knots[-1] + 3.0]])
    z = np.linspace(edges[0], edges[-1], 60).reshape(4, 15)
    sigma = jax.jit(lambda z: activation(z))
    values = sigma(jnp.asarray(z))
    if values.shape != z.shape or values.dtype != z.dtype:
        raise fail("sigma(z) must keep shape and dtype", f"{values.dtype}{values.shape}")
    if not np.all(np.isfinite(values)):
        raise fail("sigma must be finite", values)
    single_values = jax.vmap(sigma)(jnp.asarray(z.ravel()))
    if not np.allclose(values.ravel(), single_values, rtol=1e-12, atol=1e-14):
        raise fail("sigma must be elementwise", "values that depend on their neighbours")
    slope = jax.jit(jax.vmap(jax.grad(lambda point: jnp.sum(activation(point)))))
    if not np.all(np.isfinite(slope(jnp.asarray(edges)))):
        raise fail("sigma' must be finite on the knots", slope(jnp.asarray(edges)))
    middle = 0.5 * (edges[1:] + edges[:-1])
    shift = 1e-6 * np.diff(edges)
    difference = (sigma(jnp.asarray(middle + shift)) - sigma(jnp.asarray(middle - shift))) / (
        2 * shift
    )
    if not np.allclose(slope(jnp.asarray(middle)), difference, rtol=1e-5, atol=1e-7):
        raise fail("sigma' must match finite differences", slope(jnp.asarray(middle)) - difference)
    if activation.limits is not None:
        for ends in (edges[[1, -2]], edges[[0, -1]]):
            reached = np.asarray(sigma(jnp.asarray(ends)))
            if not np.allclose(reached, activation.limits, rtol=0.0, atol=1e-14):
                what = f"sigma must reach its limits {activation.limits} at the outermost knots"
                raise fail(f"{what} and stay there", reached)

    def integrals(order: int) -> np.ndarray:
        nodes, weights = gauss_legendre(order)
        width = np.diff(edges)[:, None]
        points = jnp.asarray(edges[:-1, None] + width * nodes[None, :])
        value = np.asarray(sigma(points))
        prime = np.asarray(jax.vmap(slope)(points))
        return np.stack([np.sum(width * weights * g, axis=1) for g in (value**2, value * prime)])

    order = points_per_cell(activation.degree, 0)
    error = float(np.max(np.abs(integrals(order) - integrals(4 * order))))
    if activation.degree is not None and error > 1e-12:
        raise fail(f"sigma must be of degree {activation.degree} between its knots", error)
    if error > 1e-9:
        raise fail(
            "the knots must cut the line into shorter cells: the rule must err by 1e-9", error
        )
    return error
