"""The problem of a network and a target of one input, over all inputs of [0, 1].

This is the package's one definition of the loss of such a problem.
"""

import warnings
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import QuadratureWarning, argument_error, check_type, is_concrete, is_traced
from .._types import Array, Float, Key, Scalar
from ..closed_forms.banded_form import BandedForm
from ..closed_forms.base import AbstractClosedForm
from ..closed_forms.pairwise import PairwiseRisk
from ..closed_forms.pairwise_form import PairwiseForm
from ..closed_forms.sgd_padding import padded_neurons
from ..models.activations import AbstractStep
from ..models.contracts import target_rule_error
from ..models.network import AbstractNetwork, AbstractOneInputNetwork, Params, as_params
from ..models.shallow import ShallowNetwork
from ..models.targets import AbstractLabels, PiecewiseConstant, Teacher
from ..numerics.gram import RIDGE, solve_gram
from ..numerics.quadrature import cell_rule, points_per_cell
from .base import AbstractProblem

_MOST_JUMPS = 64
"""The most jumps for which the closed form is used: it has a term for each, and with more terms it
would take long to compile."""

_BANDED_FROM = 48
"""The width from which on banded matrices pay: see `cells` in benchmarks/flows.py."""


class Problem(AbstractProblem):
    """A network of one input, a target, and inputs uniform on [0, 1].

    The risk is exact: L(a, u) = integral over [0, 1] of (f(x; a, u) - f*(x))^2 dx, without a
    factor 1/2, for neurons in any order, coinciding, cut by 0 or 1, or outside [0, 1]. Where the
    activation or the target is not polynomial, a composite quadrature rule replaces the integral;
    the activation states the error of that rule.
    """

    network: AbstractOneInputNetwork
    target: AbstractLabels
    sweepable: ClassVar[tuple[str, ...]] = ("target",)

    def __check_init__(self):
        check_type("network", self.network, AbstractNetwork)
        check_type("target", self.target, AbstractLabels, hint=" (tts.Function wraps a function)")
        of_one_input = "of one input (for d inputs use EmpiricalProblem)"
        if not isinstance(self.network, AbstractOneInputNetwork):
            raise argument_error("network", of_one_input, f"a {type(self.network).__name__}")
        if self.target.as_target() is None:
            raise argument_error("target", of_one_input, f"a {type(self.target).__name__}")
        _warn_of_coarse_rule(self.target)

    def rule(self, u: Array) -> tuple[Array, Array, Array]:
        """Return the nodes, weights and targets, each (N,), of the quadrature rule for u."""
        # The target's cuts come first: where a neuron sits exactly on a jump, the derivative by the
        # jump is made of the values on either side of it.
        target = self.target.as_target()
        assert target is not None
        cuts = jnp.concatenate([target.cuts(), self.network.cuts(u)])
        points = points_per_cell(self.network.activation.degree, target.degree)
        nodes, weights, lower = cell_rule(cuts, points)
        wanted = target.on_cells(nodes, lower)
        return nodes.ravel(), weights.ravel(), wanted.ravel()

    def risk(self, params: Params) -> Scalar:
        params = jax.tree.map(jnp.asarray, as_params(params))
        if not all(isinstance(half, jax.Array) for half in params):
            self.check(params)  # which says what is wrong with a list, say
        nodes, weights, wanted = self.rule(params.u)
        return jnp.sum(weights * (self.network(params, nodes) - wanted) ** 2)

    def predict(self, params: Params, x: Array) -> Array:
        """Return f(x; a, u), of the shape of x."""
        return self.network(params, x)

    def normal_equations(self, u: Float[Array, " m"]) -> tuple[Array, Array]:
        """Return H (p, p), the Gram matrix of the p features, and b (p,), their moments with f*."""
        return self._normal_equations(u, jnp.zeros(()))

    def _normal_equations(self, u: Array, offset: Scalar) -> tuple[Array, Array]:
        """Return the normal equations for the target less a number."""
        nodes, weights, wanted = self.rule(u)
        features = self.network.features(u, nodes)
        weighted = features * weights[:, None]
        return features.T @ weighted, (wanted - offset) @ weighted

    def best_outer(self, u: Float[Array, " m"], *, ridge: float | Scalar = RIDGE) -> Array:
        if not self.network.has_outer_bias():
            return solve_gram(*self.normal_equations(u), ridge=ridge)
        # The ridge would pull the bias from a large common value of all labels to 0.
        offset = self.label(jnp.zeros(()))
        return solve_gram(*self._normal_equations(u, offset), ridge=ridge).at[0].add(offset)

    def draw(self, key: Key, count: int) -> tuple[Array, Array]:
        return self.from_uniform(jax.random.uniform(key, (count,), dtype=jnp.result_type(float)))

    def from_uniform(self, v: Array) -> tuple[Array, Array]:
        return v, self.label(v)

    def label(self, x: Array) -> Array:
        return self.target(x)

    def check_samples(self, x: Array) -> None:
        if is_concrete(x) and np.size(x):
            # As NumPy's: inside a transformation JAX would trace the minimum of any array.
            low, high = float(np.min(np.asarray(x))), float(np.max(np.asarray(x)))
            if low < 0 or high > 1:
                raise argument_error("samples", "with x in [0, 1]", f"from {low:g} to {high:g}")

    def sample_loss(self, params: Params, x: Float[Array, " b"], y: Float[Array, " b"]) -> Scalar:
        """Return the mean over the batch of (f(x) - y)^2."""
        return jnp.mean((self.network(params, x) - y) ** 2, axis=0)

    def sample_losses(self, params: Params, x: Array, y: Array) -> Float[Array, " R"]:
        overridden = type(self).sample_loss is not Problem.sample_loss
        if overridden or type(self.network) is not ShallowNetwork:
            return super().sample_losses(params, x, y)
        return self.sample_loss(params, x, y)  # a ShallowNetwork allows runs on the last axis

    def closed_form(self, width: int) -> AbstractClosedForm | None:
        """Return the exact risk of steps against steps: by all pairs, or banded where that pays."""
        network, target = self.network, self.target
        # Not for a subclass by the user, whose risk may be another one.
        if (
            type(self) is not Problem
            or type(network) is not ShallowNetwork
            or not network.bias
            or not isinstance(network.activation, AbstractStep)
            or type(target) is not PiecewiseConstant
            or np.size(target.jumps) > _MOST_JUMPS
        ):
            return None
        risk = PairwiseRisk(network.activation, target)
        return PairwiseForm(risk) if width < _BANDED_FROM else BandedForm(risk, width)

    def padded(
        self, params: Params, multiple: int
    ) -> tuple[AbstractProblem, Params, Callable[[Params], Params]] | None:
        # Not for a subclass by the user, whose methods may depend on the shapes of the parameters.
        padded = padded_neurons(self.network, params, multiple) if type(self) is Problem else None
        if padded is None:
            return None
        network, params, undo = padded
        return Problem(network, self.target), params, undo

    def check(self, params: Params) -> None:
        # Through the class: to bind a method of an equinox module takes longer than to call it.
        type(self.network).check(self.network, params)


_RULE_TOLERANCE = 1e-6
"""The relative error of the rule from which on a `QuadratureWarning` tells of it."""


def _warn_of_coarse_rule(labels: AbstractLabels) -> None:
    """Warn if the rule of the risk errs for a target of the user's, as far as doubling it tells."""
    target = labels.as_target()
    if target is None or type(labels) in (PiecewiseConstant, Teacher):
        return  # the rule is exact, or the activation states its error
    if not is_concrete(target) or is_traced() or not jax.config.jax_enable_x64:  # pyright: ignore
        return
    try:
        error = target_rule_error(target)
    except Exception:  # of the user's function, such as one around a number that is traced
        return
    if error > _RULE_TOLERANCE:
        warnings.warn(
            f"The rule that integrates the risk errs by {error:.2g}, relative to the integral of "
            "f*^2: tell the target where it jumps or bends (`kinks` of a Function, `cuts` of your "
            "own), or give it more `cells`.",
            QuadratureWarning,
            stacklevel=4,
        )
