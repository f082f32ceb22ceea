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

from .._errors import argument_error, check_finite
from .._named import NamedArguments
from .._numbers import check_scalar, real, reals
from .._types import Array, Float, Real
from ..numerics.hermite import hermite_means
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

    eta: Real = eqx.field(default=1.0, converter=real("eta"))
    knots: ClassVar = _graded(1.5, 3.0, 5.0, 8.0, 13.0, 20.0, 36.0)
    degree: ClassVar = None
    limits: ClassVar = (0.0, 1.0)

    def __call__(self, z: Array) -> Array:
        return jax.nn.sigmoid(z)


class Tanh(AbstractActivation):
    """The hyperbolic tangent tanh(z).

    The composite rule of `Problem.risk` errs by less than 1e-12 |a|^2.
    """

    eta: Real = eqx.field(default=1.0, converter=real("eta"))
    knots: ClassVar = _graded(0.75, 1.5, 2.5, 4.0, 6.5, 10.0, 18.0)
    degree: ClassVar = None
    limits: ClassVar = (-1.0, 1.0)

    def __call__(self, z: Array) -> Array:
        return jnp.tanh(z)


class Erf(AbstractActivation):
    """The error function erf(z).

    The composite rule of `Problem.risk` errs by less than 1e-12 |a|^2.
    """

    eta: Real = eqx.field(default=1.0, converter=real("eta"))
    knots: ClassVar = _graded(0.75, 1.5, 2.25, 3.0, 4.0, 6.0)
    degree: ClassVar = None
    limits: ClassVar = (-1.0, 1.0)

    def __call__(self, z: Array) -> Array:
        return jax.scipy.special.erf(z)


class Probit(AbstractActivation):
    """The distribution function of the standard normal, (1 + erf(z / sqrt 2))/2.

    A smooth step from 0 to 1 that is known in closed form for Gaussian inputs. The composite rule
    of `Problem.risk` errs by less than 1e-12 |a|^2.
    """

    eta: Real = eqx.field(default=1.0, converter=real("eta"))
    knots: ClassVar = _graded(1.0, 2.0, 3.2, 4.5, 6.0, 9.0)
    degree: ClassVar = None
    limits: ClassVar = (0.0, 1.0)

    def __call__(self, z: Array) -> Array:
        return jax.scipy.special.ndtr(z)


class HermiteSeries(AbstractActivation):
    """A polynomial by its Hermite coefficients: sigma(z) = sum_k s_k he_k(z).

    he_k are the Hermite polynomials that are orthonormal for z ~ N(0, 1): 1, z, (z^2 - 1)/sqrt(2),
    (z^3 - 3z)/sqrt(6), ... The quadrature rule of `Problem.risk` is exact for it.

    **Arguments:** `coefficients`, s_k for k = 0, 1, ..., up to the degree of the polynomial.

    **Raises:** `ValueError` unless these are a list of finite numbers.
    """

    coefficients: Float[Array, " p"] = eqx.field(converter=reals("coefficients"))
    eta: Real = eqx.field(default=1.0, converter=real("eta"))
    knots: ClassVar = (0.0,)
    limits: ClassVar = None

    def __check_init__(self):
        if np.ndim(self.coefficients) != 1 or np.size(self.coefficients) == 0:
            got = f"of shape {np.shape(self.coefficients)}"
            raise argument_error("coefficients", "a list of at least one number", got)
        check_finite("coefficients", self.coefficients)

    @property
    def degree(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return np.size(self.coefficients) - 1

    def __call__(self, z: Array) -> Array:
        coefficients = jnp.asarray(self.coefficients, z.dtype)
        values = hermite_means(z, 0.0, self.degree + 1)
        total = coefficients[0] * values[0]
        for k in range(1, self.degree + 1):
            total = total + coefficients[k] * values[k]
        return total


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
