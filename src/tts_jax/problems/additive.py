"""The problem of an additive network and an additive target over all inputs: its risk is exact.

With g_k the difference of network and target in coordinate k, inputs uniform on [0, 1]^d and
therefore independent, and E over one coordinate,

    L = (sum_k E g_k)^2 + sum_k (E g_k^2 - (E g_k)^2).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_type, is_concrete
from .._numbers import check_scalar, real, whole
from .._types import Array, Float, Key, Real, Scalar
from ..models.additive import AdditiveNetwork
from ..models.network import Params, as_params
from ..models.targets import AdditiveSteps, PiecewiseConstant
from ..numerics.gram import RIDGE
from ..numerics.quadrature import cell_rule, points_per_cell
from .separable import AbstractSeparableProblem


class AdditiveProblem(AbstractSeparableProblem):
    """An `AdditiveNetwork` that learns `AdditiveSteps`, on inputs uniform on [0, 1]^d.

    **Arguments:** `network`, `target`; `inputs`, the number d; `penalty`: the factor of |a|^2,
    which is added to the risk.

    Parameters u (d, m) and a (d, m). The risk is exact, as that of `Problem`, at d times the cost
    of one input.

    **Raises:** `ValueError` for another network or target, and for a negative penalty.
    """

    network: AdditiveNetwork
    target: AdditiveSteps
    inputs: int = eqx.field(static=True, converter=whole("inputs"))
    penalty: Real = eqx.field(default=0.0, kw_only=True, converter=real("penalty"))

    def __check_init__(self):
        check_type("network", self.network, AdditiveNetwork)
        check_type("target", self.target, AdditiveSteps)
        check_scalar("penalty", self.penalty, minimum=0.0, strict=False)

    def risk(self, params: Params) -> Scalar:
        params = jax.tree.map(jnp.asarray, as_params(params))
        target = self._one_input()

        def moments(a: Array, u: Array) -> tuple[Scalar, Scalar]:
            features, weights, wanted = self._rule(target, u)
            gap = features @ a - wanted
            mean = jnp.sum(weights * gap)
            return mean, jnp.sum(weights * (gap - mean) ** 2)

        means, variances = jax.vmap(moments)(params.a, params.u)
        return self.penalised(jnp.sum(means) ** 2 + jnp.sum(variances), params)

    def normal_equations(self, u: Float[Array, "d m"]) -> tuple[Array, Array]:
        """Return H (d m, d m), and b (d m,), of the features input by input."""
        target = self._one_input()

        def moments(u: Array) -> tuple[Array, ...]:
            features, weights, wanted = self._rule(target, u)
            means, level = weights @ features, jnp.sum(weights * wanted)
            centred = features - means[None]
            weighted = centred * weights[:, None]
            return means, centred.T @ weighted, (wanted - level) @ weighted, level

        means, own, products, levels = jax.vmap(moments)(jnp.asarray(u))
        d, m = means.shape
        gram = jnp.outer(means.ravel(), means.ravel())
        rows = jnp.arange(d)
        gram = gram.reshape(d, m, d, m).at[rows, :, rows, :].add(own)
        total = means * jnp.sum(levels) + products
        return gram.reshape(d * m, d * m), total.ravel()

    def best_outer(self, u: Array, *, ridge: float | Scalar = RIDGE) -> Array:
        return jnp.reshape(super().best_outer(u, ridge=ridge), np.shape(u))

    def predict(self, params: Params, x: Array) -> Array:
        """Return f(x; a, u) for inputs x (..., d)."""
        return self.network(params, x)

    def draw(self, key: Key, count: int) -> tuple[Array, Array]:
        """Return `count` inputs (count, d), uniform on [0, 1]^d, and their labels."""
        x = jax.random.uniform(key, (count, self.inputs), jnp.result_type(float))
        return x, self.label(x)

    def sample_loss(self, params: Params, x: Array, y: Array) -> Scalar:
        """Return the mean over the batch of (f(x) - y)^2, with the penalty."""
        return self.penalised(jnp.mean((self.predict(params, x) - y) ** 2), params)

    def label(self, x: Array) -> Array:
        return self.target(x)

    def check(self, params: Params) -> None:
        self.network.check(params)
        if np.shape(params.u)[0] != self.inputs:
            expected = f"of shape ({self.inputs}, m)"
            raise argument_error("params.u", expected, f"of shape {np.shape(params.u)}")

    def check_samples(self, x: Array) -> None:
        if np.shape(x)[-1:] != (self.inputs,):
            expected = f"with x of {self.inputs} inputs on the last axis"
            raise argument_error("samples", expected, f"with x of shape {np.shape(x)}")
        if is_concrete(x) and np.size(x):
            low, high = float(np.min(np.asarray(x))), float(np.max(np.asarray(x)))
            if low < 0 or high > 1:
                raise argument_error("samples", "with x in [0, 1]", f"from {low:g} to {high:g}")

    def _one_input(self) -> PiecewiseConstant:
        """Return the target in one coordinate."""
        steps = jnp.cumsum(jnp.asarray(self.target.weights))
        return PiecewiseConstant(self.target.jumps, jnp.concatenate([jnp.zeros(1), steps]))

    def _rule(self, target: PiecewiseConstant, u: Float[Array, " m"]) -> tuple[Array, Array, Array]:
        """Return the features (N, m) of one coordinate, the weights (N,) of a rule, and f* (N,)."""
        activation = self.network.activation
        knots = jnp.asarray(activation.knots, u.dtype) * activation.eta
        cuts = jnp.concatenate([target.cuts(), (u[:, None] + knots[None, :]).ravel()])
        nodes, weights, lower = cell_rule(cuts, points_per_cell(activation.degree, target.degree))
        z = (nodes.reshape(-1, 1) - u[None, :]) / activation.eta
        return activation(z), weights.ravel(), target.on_cells(nodes, lower).ravel()
