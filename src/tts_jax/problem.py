"""Problems: what is learnt, and the risk that training lowers. The one definition of the loss."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from ._errors import argument_error, check_type
from ._types import Array, Float, Key, Scalar, Tree
from .gram import RIDGE, solve_gram
from .networks import AbstractNetwork, AdditiveNetwork, Params, ShallowNetwork
from .quadrature import cell_rule, points_per_cell
from .targets import AbstractTarget, AdditiveSteps


class AbstractProblem(eqx.Module):
    """What the dynamics need of a problem.

    `risk` is all that GradientFlow and full-batch SGD ask for; a user's own problem adds the
    others for the dynamics that it wants to run. Params may hold any pytrees.
    """

    @abc.abstractmethod
    def risk(self, params: Params) -> Scalar:
        """The risk L(a, u): what every flow descends, and what trajectories record."""

    def draw(self, key: Key, count: int) -> tuple[Array, Array]:
        """`count` random inputs and their targets without noise, on leading axes. For SGD."""
        raise NotImplementedError(f"{type(self).__name__} has no `draw(key, count)`: SGD needs it.")

    def from_uniform(self, v: Array) -> tuple[Array, Array]:
        """Inputs and their targets without noise for numbers v uniform on [0, 1), elementwise.

        An alternative to `draw` where one number is enough: SGD then makes its samples faster.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `from_uniform(v)`.")

    def sample_loss(self, params: Params, x: Array, y: Array) -> Scalar:
        """The loss of one batch, x (batch, ...) and y (batch,). For SGD."""
        raise NotImplementedError(
            f"{type(self).__name__} has no `sample_loss(params, x, y)`: SGD needs it."
        )

    def sample_losses(self, params: Params, x: Array, y: Array) -> Float[Array, " R"]:
        """`sample_loss` of R runs side by side, on the last axis of every array."""
        return jax.vmap(self.sample_loss, in_axes=-1, out_axes=-1)(params, x, y)

    def best_outer(self, u: Tree, *, ridge: float | Scalar) -> Tree:
        """a*(u), the minimiser of the risk in a, with a relative ridge. For ReducedFlow."""
        raise NotImplementedError(
            f"{type(self).__name__} has no `best_outer(u, ridge=...)`: ReducedFlow needs it."
        )

    def label(self, x: Array) -> Array:
        """Targets without noise of given inputs. For SGD that replays a sample stream."""
        raise NotImplementedError(
            f"{type(self).__name__} has no `label(x)`: SGD with `samples` needs it."
        )

    def check(self, params: Params) -> None:
        """Raise `ValueError` if the parameters do not fit. By default nothing is asked."""


class Problem(AbstractProblem):
    """A network of one input, a target, and inputs uniform on [0, 1].

    The risk is exact: L(a, u) = integral over [0, 1] of (f(x; a, u) - f*(x))^2 dx, without a
    factor 1/2, for neurons in any order, coinciding, cut by 0 or 1, or outside [0, 1]. Where the
    activation or the target is not polynomial it is a composite rule; the activation states its
    error.
    """

    network: AbstractNetwork
    target: AbstractTarget

    def __check_init__(self):
        check_type("network", self.network, AbstractNetwork)
        check_type("target", self.target, AbstractTarget, hint=" (tts.Function wraps a function)")
        for name, value, several in (
            ("network", self.network, AdditiveNetwork),
            ("target", self.target, AdditiveSteps),
        ):
            if isinstance(value, several):
                raise argument_error(
                    name,
                    "of one input (for d inputs use EmpiricalProblem)",
                    f"a {several.__name__}",
                )

    def rule(self, u: Array) -> tuple[Array, Array, Array]:
        """Nodes (N,), weights (N,) and targets (N,) of the rule that is exact for u."""
        # The target's cuts stand first: where a neuron sits exactly on a jump, the derivative by
        # the jump must see the values on either side of it.
        cuts = jnp.concatenate([self.target.cuts(), self.network.cuts(u)])
        points = points_per_cell(self.network.activation.degree, self.target.degree)
        nodes, weights, lower = cell_rule(cuts, points)
        wanted = self.target.on_cells(nodes, lower)
        return nodes.ravel(), weights.ravel(), wanted.ravel()

    def risk(self, params: Params) -> Scalar:
        nodes, weights, wanted = self.rule(params.u)
        return jnp.sum(weights * (self.network(params, nodes) - wanted) ** 2)

    def predict(self, params: Params, x: Array) -> Array:
        """f(x; a, u), of the shape of x."""
        return self.network(params, x)

    def normal_equations(self, u: Float[Array, " m"]) -> tuple[Array, Array]:
        """H (p, p), the Gram matrix of the p features, and b (p,), their moments with f*."""
        nodes, weights, wanted = self.rule(u)
        features = self.network.features(u, nodes)
        weighted = features * weights[:, None]
        return features.T @ weighted, wanted @ weighted

    def best_outer(self, u: Float[Array, " m"], *, ridge: float | Scalar = RIDGE) -> Array:
        return solve_gram(*self.normal_equations(u), ridge=ridge)

    def draw(self, key: Key, count: int) -> tuple[Array, Array]:
        return self.from_uniform(jax.random.uniform(key, (count,), dtype=jnp.result_type(float)))

    def from_uniform(self, v: Array) -> tuple[Array, Array]:
        return v, self.label(v)

    def label(self, x: Array) -> Array:
        return self.target(x)

    def sample_loss(self, params: Params, x: Float[Array, " b"], y: Float[Array, " b"]) -> Scalar:
        """The mean over the batch of (f(x) - y)^2."""
        return jnp.mean((self.network(params, x) - y) ** 2, axis=0)

    def sample_losses(self, params: Params, x: Array, y: Array) -> Float[Array, " R"]:
        own = type(self).sample_loss is not Problem.sample_loss
        if own or type(self.network) is not ShallowNetwork:
            return super().sample_losses(params, x, y)
        return self.sample_loss(params, x, y)  # it takes the runs along

    def check(self, params: Params) -> None:
        type(self.network).check(self.network, params)  # see `simulate`
