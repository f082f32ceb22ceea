"""Problems of a user's own model on a sample: any model, and one that is affine in its fast leaves.

`from_module` and `from_apply` make them.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._numbers import real, reals
from .._types import Array, Float, Real, Scalar, Tree
from ..models.adapters import FAST, Halves
from ..models.network import Params
from ..numerics.gram import RIDGE
from ..numerics.products import product
from .affine import Head
from .sample import AbstractSampleProblem, as_weights
from .separable import AbstractSeparableSample


class ModelProblem(AbstractSampleProblem):
    """A user's own model fitted to a sample (x_i, y_i), i = 1..N, by its mean squared error.

    `tts.from_module` and `tts.from_apply` make one. The flow and SGD run on it. Where the model is
    affine in its fast leaves they make a `SeparableModelProblem`, on which `ReducedFlow` runs, too.

    Fields: `apply`, the function that makes predictions (n,) or (n, K) of a model and inputs
    (n, ...); `halves`, how the model is made of parameters; `x` (N, ...) and `y`, (N,) or (N, K);
    `weights` (N,), how much each sample counts, None for all the same; `penalty`, the factor of
    |a|^2 in the risk, the sum of the squares of all fast leaves; `not_affine`: the paths of fast
    leaves that the model is found not to be affine in.
    """

    apply: Callable[[Any, Array], Array] = eqx.field(static=True)
    halves: Halves
    x: Array = eqx.field(converter=reals("x"))
    y: Array = eqx.field(converter=reals("y"))
    weights: Array | None = eqx.field(default=None, kw_only=True, converter=as_weights)
    penalty: Real = eqx.field(default=0.0, kw_only=True, converter=real("penalty"))
    not_affine: tuple[str, ...] = eqx.field(static=True, default=(), kw_only=True)

    def to_model(self, params: Params) -> Any:
        """Return the user's model with these parameters, which may have leading axes.

        **Raises:** `ValueError` for parameters of another structure.
        """
        return self.halves.to_model(params)

    def predict(self, params: Params, x: Array) -> Array:
        """Return the predictions for inputs (n, ...): (n,) or (n, K), as y is."""
        found = self.apply(self.to_model(params), x)
        return found.reshape(-1, *self.y.shape[1:])  # (n, 1) for y (N,), and the other way round

    def check(self, params: Params) -> None:
        self.halves.check(params)


class SeparableModelProblem(ModelProblem, AbstractSeparableSample):
    """A `ModelProblem` whose model is affine in its fast leaves a, written as a vector:

        f(x; a, u) = features(u, x) @ a + offset(u, x).

    Where K outputs share their features, a is a matrix (q, K) with a row for each feature.
    `head`: what the model is like, found once when the problem is made.
    """

    head: Head = eqx.field(static=True, kw_only=True, default=Head())

    def features(self, u: Tree, x: Array) -> Array:
        """Return the features (n, q), or (n, K, p) for K outputs that do not share them.

        They are the derivative of the predictions by the fast leaves, in the order of the leaves.
        """
        zeros = self.halves.zeros(jnp.result_type(*jax.tree.leaves(u)))
        own = self._own_features()

        def one(a: Tree, x: Array) -> Array:
            outputs = self.predict(Params(a, u), x[None]).reshape(-1)
            return outputs if own else outputs[0]

        slopes = jax.vmap(jax.jacrev(one), in_axes=(None, 0))(zeros, x)
        lead = 2 if own else 1
        leaves = jax.tree.leaves(slopes)
        if self.head.axes is not None:
            rows = zip(leaves, self.head.axes, strict=True)
            leaves = [jnp.take(leaf, 0, axis=1 + axis) for leaf, axis in rows]
        return jnp.concatenate([leaf.reshape(*leaf.shape[:lead], -1) for leaf in leaves], axis=-1)

    def suits_collocation(self, parameters: int) -> bool:
        del parameters
        # Not for a subclass, whose risk may be another one.
        is_own = type(self) is SeparableModelProblem
        return is_own and not (self.head.has_kinks or self.head.has_offset or self._own_features())

    def outer_matrix(self, a: Tree) -> Float[Array, "p K"]:
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(a)]
        if self.head.axes is None:
            return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])[:, None]
        rows = zip(leaves, self.head.axes, strict=True)
        columns = [jnp.moveaxis(leaf, axis, -1) for leaf, axis in rows]
        return jnp.concatenate([leaf.reshape(-1, leaf.shape[-1]) for leaf in columns])

    def outer_layer(self, matrix: Float[Array, "p K"], like: Tree) -> Tree:
        del like
        return self._leaves(matrix if self.head.axes is not None else matrix[:, 0])

    def normal_equations(self, u: Tree) -> tuple[Float[Array, "p p"], Array]:
        """Return H and b of the fast leaves as a vector (p,), or as a matrix (q, K).

        The offset of the model counts as a part of the targets.
        """
        return self._equations(u, self._targets(u))

    def best_outer(self, u: Tree, *, ridge: float | Scalar = RIDGE) -> Tree:
        """Return the fast leaves of least squares."""
        return self._leaves(self._best_outer(u, self._targets(u), ridge, self.head.bias))

    def _own_features(self) -> bool:
        """Return whether each of several outputs has features of its own."""
        return self.head.axes is None and self.y.ndim == 2 and self.y.shape[1] > 1

    def _targets(self, u: Tree) -> Array:
        """Return what the fast leaves are to fit: y without the offset of the model."""
        y = jnp.asarray(self.y)
        if not self.head.has_offset:
            return y
        zeros = self.halves.zeros(jnp.result_type(*jax.tree.leaves(u)))
        return y - self._in_blocks(Params(zeros, u), jnp.asarray(self.x))

    def _equations(
        self, u: Tree, y: Array, bias: int | None = None, common: Array | float = 0.0
    ) -> tuple[Array, Array]:
        if not self._own_features():
            return super()._equations(u, y, bias, common)

        def of_block(block: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            x, y, shares = block
            phi = self.features(u, x)
            weighted = (phi * shares[:, None, None]).reshape(-1, phi.shape[-1])
            phi = phi.reshape(weighted.shape)
            return product(phi.T, weighted), product(weighted.T, y.reshape(-1))

        return self._summed(of_block, y)

    def _leaves(self, flat: Array) -> Tree:
        """Return the tree of the fast leaves that stand in a vector (p,) or a matrix (q, K)."""
        places = self.halves.skeleton.places(FAST)
        axes = self.head.axes
        found, begin = [], 0
        for i, place in enumerate(places):
            shape = list(place.shape)
            if axes is not None:
                outputs = shape.pop(axes[i])
                shape.append(outputs)
            end = begin + int(np.prod(shape if axes is None else shape[:-1]))
            leaf = flat[begin:end].reshape(shape)
            found.append(leaf if axes is None else jnp.moveaxis(leaf, -1, axes[i]))
            begin = end
        return self.halves.skeleton.filled(FAST, found)
