"""Problems on a given sample, of one or several inputs, in full batch or minibatches."""

import math
import warnings
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import OffScaleWarning, argument_error, check_type, is_concrete
from .._memory import check_memory
from .._numbers import as_whole, check_key, real, reals, shown, word
from .._types import Array, Float, Key, Real, Scalar, Tree
from ..closed_forms.base import AbstractClosedForm
from ..closed_forms.gradient_system import MOST_DENSE
from ..closed_forms.two_layer import Sample, TwoLayerForm, parameters_of
from ..models.activations import AbstractStep, ReLU
from ..models.network import AbstractNetwork, AbstractOneInputNetwork, Params
from ..models.targets import AbstractLabels, Teacher
from ..models.two_layer import TwoLayerNetwork
from ..numerics.gram import RIDGE
from .losses import LOSSES, check_targets, outputs_for
from .sample import as_weights
from .separable import AbstractSeparableSample


class EmpiricalProblem(AbstractSeparableSample):
    """A network fitted to a sample (x_i, y_i), i = 1..N.

    **Arguments:** `network`; `x` (N,) for a `ShallowNetwork` or (N, d) for networks of d inputs;
    `y` (N,), or (N, K) for a network of K outputs; `weights` (N,): how much each sample counts, by
    default all the same; `penalty`: the factor of |a|^2, which is added to the loss; `loss`: what
    the mean over the n samples of a batch is taken of, with residuals r_i = f(x_i) - y_i,

    - "squared": |r_i|^2; only for this one, and "norm", there is a best outer layer;
    - "huber": r_i^2/2 where |r_i| <= 1, and |r_i| - 1/2 elsewhere;
    - "logistic": the cross-entropy of y_i in [0, 1] and the probability 1/(1 + exp(-f(x_i)));
    - "softmax": the cross-entropy of a class y_i in 0, ..., K-1 (or shares (N, K)) and softmax(f);
    - "norm": no mean, but ||r||_2 / n, the loss of the paper's notebooks.

    **Raises:** `ValueError` where shapes do not match or numbers are not finite.
    """

    network: AbstractNetwork
    x: Array = eqx.field(converter=reals("x"))
    y: Array = eqx.field(converter=reals("y"))
    loss: Literal["squared", "huber", "logistic", "softmax", "norm"] = eqx.field(
        static=True, default="squared", kw_only=True, converter=word("loss", *LOSSES, "norm")
    )
    weights: Array | None = eqx.field(default=None, kw_only=True, converter=as_weights)
    penalty: Real = eqx.field(default=0.0, kw_only=True, converter=real("penalty"))

    def __check_init__(self):
        check_type("network", self.network, AbstractNetwork)
        if np.ndim(self.x) not in (1, 2):
            raise argument_error("x", "of shape (N,) or (N, d)", f"of shape {np.shape(self.x)}")
        if isinstance(self.network, AbstractOneInputNetwork) and np.ndim(self.x) != 1:
            expected = f"of shape (N,) for a {type(self.network).__name__}, which has one input"
            one = " (`x[:, 0]` has it)" if np.shape(self.x)[1] == 1 else ""
            raise argument_error("x", expected + one, f"of shape {np.shape(self.x)}")
        if self.loss == "norm" and self.weights is not None:
            raise argument_error("weights", 'None for the loss "norm"', "given")
        if self.loss == "norm" and not (is_concrete(self.penalty) and float(self.penalty) == 0.0):
            raise argument_error("penalty", '0 for the loss "norm"', shown(self.penalty))
        check_targets(self.loss, self.y)

    @property
    def inputs(self) -> int | None:
        """The number d of inputs, or None for one input without an axis."""
        return next(iter(np.shape(self.x)[1:]), None)

    @property
    def outputs(self) -> int | None:
        """The number K of outputs, or None for one output without an axis.

        Of the loss "softmax" it is the number of classes: for classes y it goes by the largest.
        """
        (count,) = outputs_for(self.loss, self.y) or (0,)
        if count is None:
            return int(np.max(np.asarray(self.y))) + 1
        return count or None

    def features(self, u: Tree, x: Array) -> Array:
        features = self.network.features(u, x)
        return features.reshape(features.shape[0], -1)

    def predict(self, params: Params, x: Array) -> Array:
        """Return f(x; a, u) for inputs x (n,) or (n, d)."""
        return self.network(params, x)

    def losses(self, f: Array, y: Array) -> Float[Array, " n"]:
        return LOSSES[self.loss](f, y)

    def sample_loss(self, params: Params, x: Array, y: Array) -> Scalar:
        if self.loss != "norm":
            return super().sample_loss(params, x, y)
        square = jnp.sum(LOSSES["squared"](self._in_blocks(params, x), y))
        # The norm has no derivative at an exact fit: zero is taken, so that the fit stays exact.
        positive = square > 0
        norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)
        return self.penalised(norm / y.shape[0], params)

    def has_best_outer(self) -> bool:
        return self.loss in ("squared", "norm")

    def takes_noise(self) -> bool:
        return self.loss not in ("logistic", "softmax")

    def best_outer(self, u: Tree, *, ridge: float | Scalar = RIDGE) -> Array:
        """Return the a of least squares, which minimises the losses "squared" and "norm".

        **Raises:** `ValueError` for another loss.
        """
        if not self.has_best_outer():
            raise argument_error("loss", '"squared" or "norm" for a best outer layer', self.loss)
        bias = 0 if self.network.has_outer_bias() else None
        a = self._best_outer(u, jnp.asarray(self.y), ridge, bias)
        return jnp.reshape(a, (*self.network.outer_shape(u), *self.y.shape[1:]))

    def closed_form(self, width: int) -> AbstractClosedForm | None:
        """Return the gradient and the Hessian of a two-layer network, where that is not large."""
        network = self.network
        # Not for a subclass by the user, whose risk or features may be others.
        if type(self) is not EmpiricalProblem or type(network) is not TwoLayerNetwork:
            return None
        if np.ndim(self.x) != 2:  # `check` refuses it
            return None
        count, y = np.shape(self.x)[0], jnp.asarray(self.y)
        y = y.reshape(count, -1)
        size = parameters_of(network, width, np.shape(self.x)[1], y.shape[1])
        if self.loss != "squared" or size > MOST_DENSE:
            return None
        sample = Sample(jnp.asarray(self.x), y, self._shares())
        return TwoLayerForm(network, sample, jnp.asarray(self.penalty), self.risk)

    def suits_collocation(self, parameters: int) -> bool:
        del parameters
        # Not for a subclass whose risk may be another one.
        names = ("risk", "predict", "features", "losses", "sample_loss")
        is_own = all(getattr(type(self), n) is getattr(EmpiricalProblem, n) for n in names)
        # Each of its long steps would end at a kink, of which a sample has many.
        activation = getattr(self.network, "activation", None)
        has_kinks = isinstance(activation, ReLU | AbstractStep)
        return is_own and self.loss == "squared" and not has_kinks

    def has_stiff_reduction(self) -> bool:
        # A step is as stiff as it is narrow, and the norm has no velocity that fades at a fit.
        steps = isinstance(getattr(self.network, "activation", None), AbstractStep)
        return steps or self.loss != "squared"

    def check(self, params: Params) -> None:
        self.network.check(params)
        wanted = self.network.input_shape(params.u)
        if len(wanted) != self.x.ndim - 1:
            expected = "of shape (N, d)" if wanted else "of shape (N,)"
            kind = type(self.network).__name__
            raise argument_error("x", f"{expected} for a {kind}", f"of shape {self.x.shape}")
        if self.x.shape[1:] != wanted:
            raise argument_error(
                "params.u",
                f"made for inputs x of shape {self.x.shape}",
                f"for inputs of shape {wanted}",
            )
        outputs = np.shape(params.a)[len(self.network.outer_shape(params.u)) :]
        self._check_outputs(outputs, np.shape(params.a))
        positions = self.network.positions(params.u)
        if positions is not None and np.size(positions) and is_concrete(positions):
            self._warn_off_scale(*_range_of(positions))

    def _check_outputs(self, outputs: tuple[int, ...], outer: tuple[int, ...]) -> None:
        """Raise unless the targets fit the outputs of an outer layer of a shape."""
        wanted = outputs_for(self.loss, self.y)
        if wanted == (None,) and len(outputs) == 1:
            if is_concrete(self.y) and np.max(np.asarray(self.y)) >= outputs[0]:
                expected = f"classes below {outputs[0]}, the number of outputs"
                raise argument_error("y", expected, f"up to {np.max(np.asarray(self.y)):g}")
        elif outputs != wanted:
            if wanted == (None,):
                expected = "of shape (p, K) for a softmax of K classes"
                raise argument_error("params.a", expected, f"of shape {outer}")
            expected = f"of shape {(*self.x.shape[:1], *outputs)} for a of shape {outer}"
            raise argument_error("y", expected, f"of shape {self.y.shape}")

    def _warn_off_scale(self, low: float, high: float) -> None:
        """Warn if inputs lie outside of [0, 1], where all neurons, from low to high, start."""
        # Starts elsewhere than on [0, 1] are somebody's choice, who knows the inputs.
        if not is_concrete(self.x) or low < 0 or high > 1:
            return
        least, most = _range_of(self.x)
        if least < 0 or most > 1 or 0 < most - least < _SMALL_RANGE:
            warnings.warn(
                f"The inputs `x` lie in [{least:g}, {most:g}], but all neurons start in [0, 1]: "
                "there hardly any neuron is where the inputs are. Scale the inputs, such as by "
                "`(x - x.min()) / (x.max() - x.min())`, or start with neurons where inputs are.",
                OffScaleWarning,
                stacklevel=5,
            )


_SMALL_RANGE = 0.05
"""Part of [0, 1] below which inputs are off the scale: few of 20 neurons start among them."""


def _range_of(values: Array) -> tuple[float, float]:
    numbers = np.asarray(values)  # else NumPy asks JAX, which compiles
    return float(numbers.min()), float(numbers.max())


def sample_problem(
    key: Key,
    network: AbstractNetwork,
    target: AbstractLabels,
    count: int,
    *,
    inputs: int | None = None,
    loss: Literal["squared", "huber", "logistic", "softmax", "norm"] = "squared",
) -> EmpiricalProblem:
    """Return an `EmpiricalProblem` on `count` inputs, labelled by the target without noise.

    The inputs are drawn from U[0, 1], or from U[0, 1]^inputs if `inputs` is given.

    **Raises:** `ValueError` for bad arguments, and for more numbers than there is memory for,
    before anything is drawn.
    """
    check_key("key", key)
    check_type("network", network, AbstractNetwork)
    check_type("target", target, AbstractLabels, hint=" (tts.Function wraps a function)")
    count = as_whole("count", count)
    inputs = None if inputs is None else as_whole("inputs", inputs)
    if inputs is not None and isinstance(network, AbstractOneInputNetwork):
        expected = f"None for a {type(network).__name__}, which has one input"
        raise argument_error("inputs", expected, inputs)
    shape = (count,) if inputs is None else (count, inputs)
    larger = "count" if inputs is None or inputs < count else "inputs"
    check_memory(larger, math.prod(shape), at_once=_AT_ONCE)
    _check_labels(target, shape)
    x = jax.random.uniform(key, shape)
    return EmpiricalProblem(network, x, target(x), loss=loss)


_AT_ONCE = 4
"""Copies of the inputs, about, while they are drawn and labelled."""


def _check_labels(target: AbstractLabels, shape: tuple[int, ...]) -> None:
    """Raise unless a target has a label for each input. It is traced, and not computed."""
    expected = f"one that labels inputs of shape {shape}"
    asked = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
    try:
        # A function of the package around it: JAX would keep a reference to the user's object.
        found = jax.eval_shape(lambda x: target(x), asked).shape
    except Exception as error:  # of the user's target, which may fail in any way
        got = f"a {type(target).__name__}, which fails with {type(error).__name__}"
        raise argument_error("target", expected, got) from error
    # A function of numbers has a label for each number: only a network is known to have outputs.
    outputs = 1 if isinstance(target, Teacher) else 0
    if found[:1] != shape[:1] or len(found) > 1 + outputs:
        got = f"a {type(target).__name__}, which returns labels of shape {found}"
        raise argument_error("target", expected, got)
