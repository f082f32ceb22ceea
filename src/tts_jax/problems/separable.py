"""Separable problems: a network that is linear in its outer weights, and the squared loss."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, check_type, told_by
from .._numbers import real, reals
from .._types import Array, Float, Real, Scalar, Tree
from ..integrators.quadratic_risk import AbstractQuadraticRisk
from ..models.network import Params
from ..numerics.gram import RIDGE, solve_gram
from ..numerics.products import product
from .penalised import AbstractPenalisedProblem
from .quadratic_risks import SampleRisk
from .sample import AbstractSampleProblem, as_weights


class AbstractSeparableProblem(AbstractPenalisedProblem):
    """A problem whose risk is quadratic in the outer weights:

        L(a, u) = E |features(u, x) @ a - y|^2 + penalty |a|^2.

    u is any pytree, and a an array (p,), or (p, K) for K outputs that share their features.
    """

    @abc.abstractmethod
    def normal_equations(self, u: Tree) -> tuple[Float[Array, "p p"], Array]:
        """Return H = E features^T features (p, p), and b = E features^T y, (p,) or (p, K)."""

    def quadratic_risk(self) -> AbstractQuadraticRisk:
        """Return the risk as flows have it that run by collocation, of outer layers as matrices."""
        raise NotImplementedError(f"{type(self).__name__} has no `quadratic_risk()`.")

    def has_stiff_reduction(self) -> bool:
        """Return whether the reduced flow is stiff. That of a smooth network is not: its fastest
        modes are those of the outer layer."""
        return False

    def outer_matrix(self, a: Tree) -> Float[Array, "p K"]:
        """Return an outer layer as `quadratic_risk` has it, with a column for each output."""
        return jnp.reshape(a, (-1, self.quadratic_risk().outputs()))

    def outer_layer(self, matrix: Float[Array, "p K"], like: Tree) -> Tree:
        """Return the outer layer that `outer_matrix` made a matrix of; `like`: one of its shape."""
        return jnp.reshape(matrix, jnp.shape(like))

    def suits_collocation(self, parameters: int) -> bool:
        """Return whether flows of so many parameters are to run by collocation, which asks for a
        `quadratic_risk`: by default where a class defines it."""
        del parameters
        return type(self).quadratic_risk is not AbstractSeparableProblem.quadratic_risk

    def best_outer(self, u: Tree, *, ridge: float | Scalar = RIDGE) -> Array:
        return self._solved(*self.normal_equations(u), ridge)

    def _solved(
        self,
        gram: Array,
        moments: Array,
        ridge: float | Scalar,
        *,
        bias: int | None = None,
        common: Array | float = 0.0,
    ) -> Array:
        """Return the outer layer of normal equations.

        If a number `bias` is given, that feature is 1, and the moments are those of the targets
        less `common`, () or (K,): the ridge would pull the bias from a large common value of all
        targets to 0. The penalty is that of the whole bias.
        """
        penalty = jnp.asarray(self.penalty).astype(gram.dtype)
        gram = gram + penalty * jnp.eye(gram.shape[0], dtype=gram.dtype)
        if bias is None:
            return solve_gram(gram, moments, ridge=ridge)
        moments = moments.at[bias].add(-penalty * common)
        return solve_gram(gram, moments, ridge=ridge).at[bias].add(common)


class AbstractSeparableSample(AbstractSampleProblem, AbstractSeparableProblem):
    """A separable problem on a sample."""

    @abc.abstractmethod
    def features(self, u: Tree, x: Array) -> Array:
        """Return the features (n, p) of inputs x (n, ...)."""

    def predict(self, params: Params, x: Array) -> Array:
        """Return f(x; a, u) for inputs (n, ...): (n,), or (n, K)."""
        return product(self.features(params.u, x), params.a)

    def normal_equations(self, u: Tree) -> tuple[Float[Array, "p p"], Array]:
        return self._equations(u, jnp.asarray(self.y))

    def suits_collocation(self, parameters: int) -> bool:
        # It has always been the fastest method, or nearly so, at any epsilon, horizon, and number
        # of parameters in benchmarks/sample_flows.py.
        del parameters
        # Not for a subclass whose risk may be another one.
        names = ("risk", "predict", "losses", "sample_loss")
        return all(getattr(type(self), n) is getattr(AbstractSeparableSample, n) for n in names)

    def quadratic_risk(self) -> AbstractQuadraticRisk:
        y = jnp.asarray(self.y)
        return SampleRisk(
            features=self.features,
            x=jnp.asarray(self.x),
            y=y.reshape(y.shape[0], -1),
            shares=self._shares(),
            penalty=jnp.asarray(self.penalty),
        )

    def _best_outer(self, u: Tree, y: Array, ridge: float | Scalar, bias: int | None) -> Array:
        """Return the outer layer of least squares for targets y.

        `bias` is the number of a feature that is 1, or None; the first target stands for what all
        have in common.
        """
        common = y[:1]
        equations = self._equations(u, y, bias, common)
        return self._solved(*equations, ridge, bias=bias, common=common[0])

    def _equations(
        self, u: Tree, y: Array, bias: int | None = None, common: Array | float = 0.0
    ) -> tuple[Array, Array]:
        """Return the normal equations for targets y, less `common` times the feature `bias`."""

        def of_block(block: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            x, y, shares = block
            phi = self.features(u, x)
            if bias is not None:
                y = y - phi[:, bias].reshape(-1, *(1 for _ in y.shape[1:])) * common
            weighted = phi * shares[:, None]
            return product(phi.T, weighted), product(weighted.T, y)

        return self._summed(of_block, y)


class SeparableProblem(AbstractSeparableSample):
    """A sample, and features of your own: subclass it with a method `features(u, x)`.

    **Arguments:** `x` (N, ...), inputs of any shape; `y` (N,), or (N, K) for K outputs; `weights`
    (N,): how much each sample counts, by default all the same; `penalty`: the factor of |a|^2.

    The risk is the mean of |features(u, x_i) @ a - y_i|^2 by these weights, + penalty |a|^2.
    GradientFlow, SGD, and ReducedFlow, by the normal equations, run on it.

    **Raises:** `ValueError` where shapes do not match or numbers are not finite.
    """

    x: Array = eqx.field(converter=reals("x"))
    y: Array = eqx.field(converter=reals("y"))
    weights: Array | None = eqx.field(default=None, kw_only=True, converter=as_weights)
    penalty: Real = eqx.field(default=0.0, kw_only=True, converter=real("penalty"))

    def check(self, params: Params) -> None:
        check_type("params", params, Params)
        asked = (jax.ShapeDtypeStruct(np.shape(v), jnp.result_type(v)) for v in (self.x, self.y))
        x, y = asked
        try:
            found = jax.eval_shape(self.features, params.u, x)
        except Exception as error:  # of the user's features
            got = f"one for which they fail with {told_by(error)}"
            expected = f"such that there are features of inputs of shape {x.shape}"
            raise argument_error("params.u", expected, got) from error
        if len(found.shape) != 2 or found.shape[0] != x.shape[0]:
            expected = f"with features of shape ({x.shape[0]}, p)"
            raise argument_error("problem", expected, f"with features of shape {found.shape}")
        wanted = (found.shape[1], *y.shape[1:])
        if np.shape(params.a) != wanted:
            got = f"of shape {np.shape(params.a)}"
            raise argument_error("params.a", f"of shape {wanted}, as the features and y", got)
