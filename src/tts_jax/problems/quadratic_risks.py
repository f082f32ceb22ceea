"""Risks of separable problems as the collocation method has them: quadratic in the outer layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Array, Float, Scalar, Tree
from ..integrators.quadratic_risk import AbstractQuadraticRisk, QuadraticNodes
from ..models.network import Params
from ..numerics.products import product, summed_over_blocks

MOST_AT_ONCE = 2**22
"""Numbers, at most, of the features that are kept at once, so that none is computed twice."""

_BLOCK = 2048
"""Samples that are worked on at once where there are more."""


class SampleRisk(AbstractQuadraticRisk):
    """The risk sum_i shares_i |features(u, x_i) a - y_i|^2 + penalty |a|^2 of a sample.

    `features`: a function of u and inputs (n, ...) to (n, p); `y` (N, K); `shares` (N,), in all 1.
    """

    features: Callable[[Tree, Array], Array]
    x: Array
    y: Float[Array, "N K"]
    shares: Float[Array, " N"]
    penalty: Scalar

    def nodes(self, us: Tree) -> QuadraticNodes:
        if self._is_large(us):
            return self._nodes_in_blocks(us)
        # The last place apart: changes are asked for there alone.
        split = [jax.tree.map(lambda leaf, part=part: leaf[part], us) for part in _parts(us)]
        parts = [self._linearised(part) for part in split]

        def residuals(a: Array) -> list[Array]:
            halves = [a[part] for part in _parts(us)]
            return [
                self.shares[None, :, None] * (product(part.features, half) - self.y[None])
                for part, half in zip(parts, halves, strict=True)
            ]

        def by_outer(a: Array, found: list[Array]) -> Array:
            sums = [
                product(jnp.swapaxes(part.features, 1, 2), each)
                for part, each in zip(parts, found, strict=True)
            ]
            return jnp.concatenate(sums) + self.penalty * a

        def gradients(a: Array) -> tuple[Array, Tree]:
            found = residuals(a)
            halves = [jnp.swapaxes(a[part], 1, 2) for part in _parts(us)]
            pulled = [
                part.pull(2 * product(each, half))[0]
                for part, each, half in zip(parts, found, halves, strict=True)
            ]
            return by_outer(a, found), jax.tree.map(lambda *each: jnp.concatenate(each), *pulled)

        def moved(a: Array, change: Tree) -> Scalar:
            push = parts[-1].push(jax.tree.map(lambda leaf: leaf[None], change))[0]
            return _size(product(push, a), self.shares)

        return QuadraticNodes(lambda a: by_outer(a, residuals(a)), gradients, moved)

    def gram(self, u: Tree) -> Float[Array, "p p"]:
        def of_block(block: tuple[Array, Array]) -> Array:
            x, shares = block
            features = self.features(u, x)
            return product((features * shares[:, None]).T, features)

        return self._penalised(summed_over_blocks(of_block, (self.x, self.shares), _BLOCK))

    def _linearised(self, us: Tree) -> "_Linearised":
        features, push = jax.linearize(
            lambda us: jax.vmap(lambda u: self.features(u, self.x))(us), us
        )
        return _Linearised(features, push, jax.linear_transpose(push, us))

    def _is_large(self, us: Tree) -> bool:
        """Return whether the features are too many to be kept at once."""
        shape = jax.eval_shape(lambda us: self.features(_last(us), self.x), us).shape
        return jax.tree.leaves(us)[0].shape[0] * shape[0] * shape[1] > MOST_AT_ONCE

    def outputs(self) -> int:
        return self.y.shape[1]

    def scale(self) -> Scalar:
        return _spread(self.y, self.shares)

    def _nodes_in_blocks(self, us: Tree) -> QuadraticNodes:
        """Return what `nodes` returns, with the features of few samples at a time."""
        rows = (self.x, self.y, self.shares)

        def equations(u: Tree) -> tuple[Array, Array]:
            def of_block(block: tuple[Array, Array, Array]) -> tuple[Array, Array]:
                x, y, shares = block
                features = self.features(u, x)
                weighted = (features * shares[:, None]).T
                return product(weighted, features), product(weighted, y)

            gram, moments = summed_over_blocks(of_block, rows, _BLOCK)
            return self._penalised(gram), moments

        def gradient(at: tuple[Array, Tree]) -> tuple[Array, Tree]:
            a, u = at

            def of_block(block: tuple[Array, Array, Array]) -> tuple[Array, Tree]:
                x, y, shares = block
                features, pull = jax.vjp(lambda u: self.features(u, x), u)
                residual = shares[:, None] * (product(features, a) - y)
                return product(features.T, residual), pull(2 * product(residual, a.T))[0]

            by_outer, by_inner = summed_over_blocks(of_block, rows, _BLOCK)
            return by_outer + self.penalty * a, by_inner

        def moved(a: Array, change: Tree) -> Scalar:
            def of_block(block: tuple[Array, Array, Array]) -> Array:
                x, _, shares = block
                push = jax.jvp(lambda u: self.features(u, x), (_last(us),), (change,))[1]
                return shares @ product(push, a) ** 2

            return jnp.sqrt(jnp.sum(summed_over_blocks(of_block, rows, _BLOCK)))

        found = [equations(u) for u in _each(us)]
        gram, moments = (jnp.stack(parts) for parts in zip(*found, strict=True))

        def gradients(a: Array) -> tuple[Array, Tree]:
            each = [gradient(at) for at in zip(a, _each(us), strict=True)]
            return jax.tree.map(lambda *parts: jnp.stack(parts), *each)

        def residual(a: Array) -> Array:
            return product(gram, a) - moments

        return QuadraticNodes(residual, gradients, moved)

    def _penalised(self, gram: Array) -> Array:
        return gram + self.penalty * jnp.eye(gram.shape[-1])


class PopulationRisk(AbstractQuadraticRisk):
    """The risk of a problem over all inputs.

    `axes`: (), or (K,) for K outputs, as in the outer layers of the problem. `x` (n, d) are inputs
    on which changes of the network are measured, and `y` (n, K) their targets: for the size of an
    error a few hundred are enough.
    """

    problem: Any  # separable, with `predict`: its class stands above this file
    axes: tuple[int, ...] = eqx.field(static=True)
    x: Array
    y: Float[Array, "n K"]

    def nodes(self, us: Tree) -> QuadraticNodes:
        # In a loop: such formulas are long, and would be compiled for each place.
        gram, moments = jax.lax.map(self._equations, us)

        def residual(a: Array) -> Array:
            return product(gram, a) - moments

        def gradients(a: Array) -> tuple[Array, Tree]:
            by_inner = jax.grad(lambda u, a: self.problem.risk(self._params(a, u)))
            return residual(a), jax.lax.map(lambda at: by_inner(*at), (us, a))

        def moved(a: Array, change: Tree) -> Scalar:
            def predict(u: Tree) -> Array:
                return self.problem.predict(self._params(a, u), self.x)

            push = jax.jvp(predict, (_last(us),), (change,))[1]
            return _size(push.reshape(self.y.shape), self._shares())

        return QuadraticNodes(residual, gradients, moved)

    def gram(self, u: Tree) -> Float[Array, "p p"]:
        return self._equations(u)[0]

    def _params(self, a: Float[Array, "p K"], u: Tree) -> Params:
        return Params(a.reshape(-1, *self.axes), u)

    def _equations(self, u: Tree) -> tuple[Array, Array]:
        gram, moments = self.problem.normal_equations(u)
        penalty = jnp.asarray(self.problem.penalty)
        return gram + penalty * jnp.eye(gram.shape[0]), moments.reshape(gram.shape[0], -1)

    def _shares(self) -> Float[Array, " n"]:
        return jnp.full(self.y.shape[0], 1 / self.y.shape[0])

    def outputs(self) -> int:
        return self.y.shape[1]

    def scale(self) -> Scalar:
        return _spread(self.y, self._shares())


class _Linearised(NamedTuple):
    """Features (n, N, p) at n places, and their derivative as a function, and that transposed."""

    features: Array
    push: Callable[[Tree], Array]
    pull: Callable[[Array], tuple[Tree]]


def _parts(us: Tree) -> list[slice]:
    """Return the places but the last one, and that one."""
    count = jax.tree.leaves(us)[0].shape[0]
    return [slice(0, count - 1), slice(count - 1, count)] if count > 1 else [slice(0, 1)]


def _each(us: Tree) -> list[Tree]:
    """Return the places one by one."""
    count = jax.tree.leaves(us)[0].shape[0]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], us) for i in range(count)]


def _last(us: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf[-1], us)


def _spread(y: Float[Array, "n K"], shares: Float[Array, " n"]) -> Scalar:
    """Return the standard deviation of targets; for targets that are all alike, their size."""
    apart, whole = _size(y - (shares @ y)[None], shares), _size(y, shares)
    return jnp.where(apart > 1e-2 * whole, apart, whole)


def _size(values: Float[Array, "n K"], shares: Float[Array, " n"]) -> Scalar:
    """Return the root mean square of values, each by its share."""
    return jnp.sqrt(jnp.sum(shares @ values**2))
