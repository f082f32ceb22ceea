"""The problem of a two-layer network and a teacher over all Gaussian inputs: its risk is exact."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_finite, check_type, is_concrete
from .._numbers import as_floats, check_scalar, real
from .._types import Array, Float, Key, Real, Scalar, Tree
from ..closed_forms.gaussian_moments import (
    GaussianNeurons,
    covariances,
    gaussian_kind,
    gaussian_neurons,
    joined,
    known_activations,
    means,
)
from ..closed_forms.gradient_system import MOST_DENSE
from ..integrators.quadratic_risk import AbstractQuadraticRisk
from ..models.network import Params, as_params
from ..models.targets import Teacher
from ..models.two_layer import TwoLayerNetwork
from ..numerics.gram import RIDGE
from ..numerics.products import product
from .base import AtBestOuter
from .losses import squared
from .quadratic_risks import PopulationRisk
from .separable import AbstractSeparableProblem


class GaussianProblem(AbstractSeparableProblem):
    """A `TwoLayerNetwork` that learns another one, on inputs x ~ N(0, covariance) in d dimensions.

    **Arguments:**

    - `network`: the student, with the activation Erf, Probit, ReLU or HermiteSeries.
    - `target`: a `Teacher` of a `TwoLayerNetwork` of any width, with or without biases, and with
      any scaling and eta. Its activation is that of the student; Erf and Probit go together, and
      so do Hermite series of different coefficients.
    - `covariance` (d, d) of the inputs, positive definite; by default the identity.
    - `noise`: the standard deviation of the Gaussian noise in the labels that `draw` returns for
      SGD, beside that of `SGD(noise=...)`. The risk is that without noise; so are `label`, and the
      labels of samples that SGD replays.
    - `penalty`: the factor of |a|^2, which is added to the risk and to the loss of samples.

    The risk is exact: L(a, u) = E |f(x; a, u) - f*(x)|^2 + penalty |a|^2, without a factor 1/2, as
    a quadratic form of the covariances of all neurons, of the student and the teacher. Its rounding
    error is about 1e-16 times (sum_j |s a_j| |sigma_j| + sum_k |s* a*_k| |sigma_k|)^2. Gradients
    and Hessians are those of the formula, also where neurons coincide, are opposite or vanish. A
    ReLU with b = 0 and |w| below 1e-30, which counts as 0, has no derivative: there the mean of
    those from either side counts, and a second derivative of 0. The number of inputs enters one
    product of matrices, and for ReLU the angles of the weights, and nothing else. Weights may be of
    any size where the activation is bounded; where it is not, a risk above 1e308 is NaN, with which
    flows end as `Status.NON_FINITE`.

    **Raises:** `ValueError` for another network, target or activation, for a covariance that is not
    symmetric and positive definite or of another d, and for a negative noise or penalty.
    """

    network: TwoLayerNetwork
    target: Teacher
    covariance: Float[Array, "d d"] | None
    """The covariance of the inputs, or None for the identity."""
    factor: Float[Array, "d d"] | None
    """The Cholesky factor of the covariance, lower triangular, or None for the identity."""
    noise: Real = eqx.field(default=0.0, kw_only=True, converter=real("noise"))
    penalty: Real = eqx.field(default=0.0, kw_only=True, converter=real("penalty"))
    sweepable: ClassVar[tuple[str, ...]] = (*AbstractSeparableProblem.sweepable, "target")

    def __init__(
        self,
        network: TwoLayerNetwork,
        target: Teacher,
        covariance: Array | None = None,
        *,
        noise: Real = 0.0,
        penalty: Real = 0.0,
    ):
        self.network = network
        self.target = target
        self.noise = noise
        self.penalty = penalty  # pyright: ignore[reportIncompatibleMethodOverride]
        self.covariance = None if covariance is None else as_floats("covariance", covariance)
        self.factor = None if self.covariance is None else _factor(self.covariance)

    def __check_init__(self):
        _check_network("network", self.network)
        check_type("target", self.target, Teacher)
        _check_network("target.network", self.target.network)
        of_student, of_teacher = self.network.activation, self.target.network.activation
        if gaussian_kind(of_student) != gaussian_kind(of_teacher):
            expected = f"one of a network with the activation {type(of_student).__name__}"
            raise argument_error("target", expected, f"one with {type(of_teacher).__name__}")
        check_scalar("noise", self.noise, minimum=0.0, strict=False)
        check_scalar("penalty", self.penalty, minimum=0.0, strict=False)
        d = self.inputs
        if self.factor is not None and self.factor.shape != (d, d):
            expected = f"of shape {(d, d)} for a teacher of {d} inputs"
            raise argument_error("covariance", expected, f"of shape {self.factor.shape}")

    @property
    def inputs(self) -> int:
        """The number d of inputs."""
        return self.target.network.input_shape(self.target.params.u)[0]

    @property
    def outputs(self) -> int | None:
        """The number K of outputs, or None for one output without an axis."""
        return next(iter(np.shape(self.target.params.a)[1:]), None)

    def risk(self, params: Params) -> Scalar:
        params = jax.tree.map(jnp.asarray, as_params(params))
        self.check(params)
        dtype = jnp.result_type(*jax.tree.leaves(params))
        # In single precision the angle of two weights is not known where they are nearly parallel.
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        return self._risk(params, self._joint(params.u)).astype(dtype)

    def _risk(self, params: Params, found: "_Joint") -> Scalar:
        outer, inner = _split(self.network, params)
        wanted_outer, wanted = _split(self._teacher_network, self._taught())
        weights = jnp.concatenate([inner, -wanted])
        # The square of the mean and the variance: two sums that do not cancel each other.
        bias = outer - wanted_outer + product(found.means, weights)
        variance = jnp.sum(weights * product(found.covariances, weights))
        total = jnp.sum(bias**2) + variance
        # Rounding may make it negative, never far from 0. The derivative is that of the formula.
        total = total + jax.lax.stop_gradient(jnp.maximum(total, 0.0) - total)
        return self.penalised(total, params)

    def at_best_outer(self, u: Tree, *, ridge: float | Scalar) -> AtBestOuter:
        exact = type(self) is GaussianProblem  # not for a subclass whose risk may be another one
        if not exact or any(leaf.dtype != jnp.float64 for leaf in jax.tree.leaves(u)):
            return super().at_best_outer(u, ridge=ridge)
        # The moments are long formulas: here they are there once, for all that is asked for.
        found, pull = jax.vjp(self._joint, u)
        a = self._solve(self._moments_of(found), ridge)
        risk, by = jax.value_and_grad(lambda found: self._risk(Params(a, u), found))(found)
        return AtBestOuter(a, risk, pull(by)[0])

    def normal_equations(self, u: Tree) -> tuple[Float[Array, "p p"], Array]:
        found = self._moments(u)
        wanted = found.with_target + found.features[:, None] * found.target[None, :]
        return found.gram, wanted.reshape(-1, *self._outputs)

    def suits_collocation(self, parameters: int) -> bool:
        # The exact risk compiles far longer for it: that pays where a Hessian would be large.
        return type(self) is GaussianProblem and parameters > MOST_DENSE

    def quadratic_risk(self) -> AbstractQuadraticRisk:
        """Return the exact risk. Errors of the network are measured on a few hundred inputs."""
        x = jax.random.normal(jax.random.key(0), (_INPUTS, self.inputs), jnp.float64)
        x = x if self.factor is None else product(x, jnp.asarray(self.factor).T)
        return PopulationRisk(self, self._outputs, x, self.label(x).reshape(_INPUTS, -1))

    def best_outer(self, u: Tree, *, ridge: float | Scalar = RIDGE) -> Array:
        return self._solve(self._moments(u), ridge)

    def _solve(self, found: "_Moments", ridge: float | Scalar) -> Array:
        if not self.network.outer_bias:
            wanted = found.with_target + found.features[:, None] * found.target[None, :]
            return self._solved(found.gram, wanted.reshape(-1, *self._outputs), ridge)
        centred = found.with_target.reshape(-1, *self._outputs)
        common = found.target.reshape(self._outputs)
        return self._solved(found.gram, centred, ridge, bias=0, common=common)

    def _moments(self, u: Tree) -> "_Moments":
        student, both = self._both(jax.tree.map(jnp.asarray, u))
        return self._moments_of(_Joint(means(both), covariances(student, both)))

    def _both(self, u: Tree) -> tuple[GaussianNeurons, GaussianNeurons]:
        """Return the neurons of the student, and those of student and teacher."""
        student, teacher = self._neurons(u), self._teachers()
        return student, joined(student, teacher)

    def _joint(self, u: Tree) -> "_Joint":
        both = self._both(u)[1]
        return _Joint(means(both), covariances(both, both))

    def _moments_of(self, found: "_Joint") -> "_Moments":
        outer, inner = _split(self._teacher_network, self._taught())
        m = found.means.shape[0] - inner.shape[0]
        scale = self.network.scale(m)
        values, taught = found.means[:m], found.means[m:]
        features = scale * values
        gram = scale**2 * (found.covariances[:m, :m] + values[:, None] * values[None, :])
        centred = scale * product(found.covariances[:m, m:], inner)
        if self.network.outer_bias:
            one, row = jnp.ones(1, gram.dtype), features[None, :]
            gram = jnp.block([[one[None], row], [row.T, gram]])
            features = jnp.concatenate([one, features])
            centred = jnp.concatenate([jnp.zeros_like(centred[:1]), centred])
        return _Moments(gram, features, outer + product(taught, inner), centred)

    def draw(self, key: Key, count: int) -> tuple[Array, Array]:
        """Return `count` random inputs (count, d), and their labels with the noise."""
        of_x, of_y = jax.random.split(key)
        x = jax.random.normal(of_x, (count, self.inputs), jnp.result_type(float))
        if self.factor is not None:
            x = product(x, jnp.asarray(self.factor, x.dtype).T)
        y = self.label(x)
        if is_concrete(self.noise) and float(self.noise) == 0.0:
            return x, y
        return x, y + jnp.asarray(self.noise, y.dtype) * jax.random.normal(of_y, y.shape, y.dtype)

    def label(self, x: Array) -> Array:
        return self._teacher_network(self._taught(), x)

    def predict(self, params: Params, x: Array) -> Array:
        """Return f(x; a, u) for inputs (..., d): (...), or (..., K)."""
        return self.network(params, x)

    def sample_loss(self, params: Params, x: Array, y: Array) -> Scalar:
        """Return the mean over the batch of |f(x) - y|^2, with the penalty."""
        return self.penalised(jnp.mean(squared(self.predict(params, x), y)), params)

    def check_samples(self, x: Array) -> None:
        if x.shape[-1:] != (self.inputs,):
            expected = f"with x of {self.inputs} inputs on the last axis"
            raise argument_error("samples", expected, f"with x of shape {x.shape}")

    def check(self, params: Params) -> None:
        self.network.check(params)
        shape = np.shape(params.u["w"])
        if shape[1] != self.inputs:
            expected = f"of shape (m, {self.inputs}), as the inputs of the teacher"
            raise argument_error('params.u["w"]', expected, f"of shape {shape}")
        if np.shape(params.a)[1:] != self._outputs:
            wanted = (*self.network.outer_shape(params.u), *self._outputs)
            expected = f"of shape {wanted}, with the outputs of the teacher"
            raise argument_error("params.a", expected, f"of shape {np.shape(params.a)}")

    @property
    def _teacher_network(self) -> TwoLayerNetwork:
        network = self.target.network
        assert isinstance(network, TwoLayerNetwork)
        return network

    @property
    def _outputs(self) -> tuple[int, ...]:
        """(), or (K,) for K outputs."""
        return np.shape(self.target.params.a)[1:]

    def _taught(self) -> Params:
        return jax.tree.map(jnp.asarray, self.target.params)

    def _teachers(self) -> GaussianNeurons:
        return self._whitened(self._teacher_network, self._taught().u)

    def _neurons(self, u: Tree) -> GaussianNeurons:
        return self._whitened(self.network, u)

    def _whitened(self, network: TwoLayerNetwork, u: Tree) -> GaussianNeurons:
        """Return the neurons as functions of inputs of covariance 1, of which x is `factor` times.

        w.x = (factor^T w).(these inputs).
        """
        w = u["w"] if self.factor is None else product(u["w"], jnp.asarray(self.factor))
        return gaussian_neurons(network.activation, w, u["b"] if network.bias else None)


_INPUTS = 256
"""Inputs on which errors of a flow are measured: to a tenth, which is enough for a step size."""


class _Joint(NamedTuple):
    """The moments of the m neurons of the student and, behind them, the k of the teacher."""

    means: Float[Array, " m+k"]
    covariances: Float[Array, "n m+k"]
    """Those of the first n >= m neurons and all."""


class _Moments(NamedTuple):
    """What the normal equations are made of, for p features and K outputs."""

    gram: Float[Array, "p p"]
    features: Float[Array, " p"]
    """The means of the features."""
    target: Float[Array, " K"]
    """The mean of the target."""
    with_target: Float[Array, "p K"]
    """The covariances of features and target."""


def _split(network: TwoLayerNetwork, params: Params) -> tuple[Array, Array]:
    """Return the outer bias (K,) and the weights (m, K) of the values of neurons, scaled; K is 1
    for one output."""
    a = params.a.reshape(params.a.shape[0], -1)
    outer, inner = (a[0], a[1:]) if network.outer_bias else (jnp.zeros_like(a[0]), a)
    return outer, network.scale(inner.shape[0]) * inner


def _check_network(name: str, network: object) -> None:
    check_type(name, network, TwoLayerNetwork)
    assert isinstance(network, TwoLayerNetwork)
    if gaussian_kind(network.activation) is None:
        expected = f"one with the activation {known_activations()}, whose risk is known exactly"
        got = f"one with {type(network.activation).__name__} (EmpiricalProblem takes any)"
        raise argument_error(name, expected, got)


def _factor(covariance: Array) -> Array:
    """Return the Cholesky factor of a covariance (d, d), which is checked where it is known."""
    shape = np.shape(covariance)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise argument_error("covariance", "of shape (d, d)", f"of shape {shape}")
    check_finite("covariance", covariance)
    if not is_concrete(covariance):
        return jnp.linalg.cholesky(covariance)
    known = np.asarray(covariance, np.float64)
    if not np.allclose(known, known.T, rtol=1e-10, atol=1e-14 * float(np.max(np.abs(known)))):
        raise argument_error("covariance", "symmetric", "not")
    try:
        factor = np.linalg.cholesky(known)
    except np.linalg.LinAlgError:
        least = float(np.linalg.eigvalsh(known)[0])
        got = f"one whose least eigenvalue is {least:.3g}"
        raise argument_error("covariance", "positive definite", got) from None
    factor.setflags(write=False)
    return factor  # pyright: ignore[reportReturnType]
