"""The contracts of users' own activations, networks and targets, and checks that they are kept.

Each check raises a `ValueError` that names what does not hold, and returns an error of the
quadrature rule that `Problem.risk` uses.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import check_64_bit, check_type
from .._types import Array
from ..numerics.quadrature import cell_rule, gauss_legendre, points_per_cell
from .activations import AbstractActivation, AbstractStep
from .network import AbstractNetwork, AbstractOneInputNetwork, Params
from .targets import AbstractTarget


def check_activation(activation: AbstractActivation) -> float:
    """Check an activation against its contract; return the error of the quadrature rule for it.

    **Arguments:** an instance of a user's own `AbstractActivation`.

    **Returns:** the largest error, over the cells between the knots and a few units beyond, of
    the rule's integrals of sigma^2 and of sigma sigma', against a rule of four times the order.

    **Raises:** `ValueError` naming what does not hold: elementwise with shape and dtype kept,
    knots increasing, limits reached at the outermost knots, a polynomial of the stated degree on
    every piece, finite first and second derivatives, also on the knots, a first one that matches
    finite differences; of an `AbstractStep` also that its integrals are those of its values.
    """
    check_64_bit()
    check_type("activation", activation, AbstractActivation)
    fail = functools.partial(contract_error, activation)

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
    # The default flow solves with the Hessian of the risk.
    bend = jax.jit(jax.vmap(jax.grad(jax.grad(lambda point: jnp.sum(activation(point))))))
    if not np.all(np.isfinite(bend(jnp.asarray(edges)))):
        raise fail("sigma'' must be finite on the knots", bend(jnp.asarray(edges)))
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
    if isinstance(activation, AbstractStep):
        _check_integrals(activation)
    return error


def _check_integrals(step: AbstractStep) -> None:
    """Check the integrals that a step states against Gauss rules of its values."""
    nodes, weights = gauss_legendre(4 * points_per_cell(step.degree, 0))

    def integral(function: Callable[[np.ndarray], np.ndarray], cuts: np.ndarray) -> float:
        low, width = cuts[:-1, None], np.diff(cuts)[:, None]
        return float(np.sum(width * weights * function(low + width * nodes)))

    def product(p: float, q: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda y: np.asarray(step(jnp.asarray(y - p)) * step(jnp.asarray(y - q)))

    def compare(name: str, stated: Array, expected: float, at: object) -> None:
        if not np.isclose(float(stated), expected, rtol=1e-10, atol=1e-12):
            what = f"`{name}` must be the integral that it stands for, {expected:.12g} at {at}"
            raise contract_error(step, what, float(stated))

    knots = np.asarray(step.knots, dtype=np.float64)
    for z in (-0.4, -0.1, 0.3, 0.9):
        cuts = np.unique(np.clip([-0.5, *knots, z], -0.5, z))
        expected = integral(lambda y: np.asarray(step(jnp.asarray(y))), cuts)
        compare("primitive", step.primitive(jnp.asarray(z)), expected, z)
    for t in (-1.2, -0.7, -0.2, 0.0, 0.4, 0.8, 1.5):
        end = max(t, 0.0) + 0.5  # from there on both steps are 1
        cuts = np.unique(np.clip([*knots, *(knots + t), end], min(t, 0.0) - 0.5, end))
        compare("overlap", step.overlap(jnp.asarray(t)), end - integral(product(t, 0.0), cuts), t)
    for p, q in ((-0.4, 0.3), (0.1, 0.2), (0.45, -0.2)):
        cuts = np.unique(np.clip([-1.0, *(knots + p), *(knots + q), 0.0], -1.0, 0.0))
        stated = step.beyond(jnp.asarray(p), jnp.asarray(q))
        compare("beyond", stated, integral(product(p, q), cuts), (p, q))


def contract_error(part: object, what: str, got: object) -> ValueError:
    """Return the error for a user's own part that does not keep its contract."""
    return ValueError(f"{type(part).__name__}: {what}, but got {got}.")


def check_target(target: AbstractTarget) -> float:
    """Check a target of one input against its contract; return the error of the rule for it.

    **Arguments:** an instance of a user's own `AbstractTarget`, or a `Function`.

    **Returns:** the error of `target_rule_error`.

    **Raises:** `ValueError` naming what does not hold: elementwise with shape kept, finite, cuts
    inside [0, 1], a polynomial of the stated degree between them, and the same values by `on_cells`
    inside the cells.
    """
    check_64_bit()
    check_type("target", target, AbstractTarget)
    fail = functools.partial(contract_error, target)
    x = (np.arange(60).reshape(4, 15) + 0.5) / 60
    values = target(jnp.asarray(x))
    if jnp.shape(values) != x.shape:
        raise fail("f*(x) must keep the shape of x", f"{jnp.shape(values)} for {x.shape}")
    if not np.all(np.isfinite(values)):
        raise fail("f* must be finite", values)
    single = jnp.stack([target(point) for point in jnp.asarray(x.ravel())])
    if not np.allclose(np.ravel(values), single, rtol=1e-12, atol=1e-14):
        raise fail("f* must be elementwise", "values that depend on their neighbours")
    cuts = np.asarray(target.cuts())
    if cuts.ndim != 1 or np.any(cuts < 0) or np.any(cuts > 1):
        raise fail("`cuts()` must be numbers of [0, 1], of shape (k,)", cuts)
    nodes, _, lower = cell_rule(jnp.asarray(cuts), points_per_cell(target.degree))
    on_cells = np.asarray(target.on_cells(nodes, lower))
    if on_cells.shape != nodes.shape:
        raise fail("`on_cells` must keep the shape of the nodes", on_cells.shape)
    wide = np.diff(np.append(np.asarray(lower), 1.0)) > 1e-9
    if not np.allclose(on_cells[wide], target(nodes)[wide], rtol=1e-9, atol=1e-12):
        raise fail("`on_cells` must be f* at the nodes", on_cells - target(nodes))
    error = target_rule_error(target)
    if target.degree is not None and error > 1e-9:
        raise fail(f"f* must be of degree {target.degree} between its cuts", f"an error of {error}")
    return error


def target_rule_error(target: AbstractTarget) -> float:
    """Return the relative error of the quadrature rule for the integral of f*^2, against a rule
    of about twice the order on cells of half the width, whose cuts are others.

    It does not see a function whose jumps both rules miss in the same way.
    """
    cuts, points = np.asarray(target.cuts(), dtype=np.float64), points_per_cell(target.degree)

    def rule(ends: np.ndarray, points: int) -> tuple[np.ndarray, ...]:
        nodes, weights = gauss_legendre(points)
        width, lower = np.diff(ends)[:, None], np.repeat(ends[:-1], points)
        return (ends[:-1, None] + width * nodes).ravel(), (width * weights).ravel(), lower

    ends = np.unique(np.clip([0.0, *cuts, 1.0], 0.0, 1.0))
    # Not in the middle, where a rule with an odd number of points has a node.
    inner = ends[:-1] + 0.43 * np.diff(ends)
    rules = rule(ends, points), rule(np.sort(np.append(ends, inner)), 2 * points + 1)
    # At all nodes at once, each a cell: every operation of a target compiles for every shape.
    nodes, weights, lower = map(np.concatenate, zip(*rules, strict=True))
    values = np.asarray(target.on_cells(jnp.asarray(nodes[:, None]), jnp.asarray(lower)))
    terms = weights * values.ravel() ** 2
    coarse, fine = np.sum(terms[: rules[0][0].size]), np.sum(terms[rules[0][0].size :])
    return float(abs(coarse - fine) / max(abs(fine), 1e-300))


def check_network(network: AbstractNetwork, params: Params) -> float:
    """Check a network against its contract at some parameters; return the error of the rule.

    **Arguments:** an instance of a user's own network, and parameters of generic values.

    **Returns:** for a network of one input, the relative error of the quadrature rule for the
    integral of f^2, against a rule of four times the order; 0 for others.

    **Raises:** `ValueError` naming what does not hold: the shapes of features and of a, f equal to
    the sum of a times the features, elementwise in x, finite derivatives, and cuts between which it
    is a polynomial of the degree of its activation, if that has one.
    """
    check_64_bit()
    check_type("network", network, AbstractNetwork)
    network.check(params)
    fail = functools.partial(contract_error, network)
    shape = network.input_shape(params.u)
    numbers = (np.arange(7 * int(np.prod(shape, dtype=int))) * 0.618 + 0.1) % 1
    x = jnp.asarray(numbers.reshape(7, *shape))
    features, outer = network.features(params.u, x), jnp.asarray(params.a)
    one_output = tuple(network.outer_shape(params.u))
    if one_output != outer.shape[: len(one_output)] or outer.ndim > len(one_output) + 1:
        raise fail("`outer_shape` must be the shape of a", one_output)
    if features.shape != (7, *one_output):
        raise fail("`features` must have the axes of x, then those of a", features.shape)
    values = network(params, x)
    expected = jnp.tensordot(features, outer, len(one_output))
    if values.shape != expected.shape or not np.allclose(values, expected, rtol=1e-10, atol=1e-12):
        raise fail("f(x) must be the sum of a times the features", values)
    single = jnp.stack([network(params, point[None])[0] for point in x])
    if not np.allclose(values, single, rtol=1e-10, atol=1e-12):
        raise fail("f must be elementwise in x", "values that depend on their neighbours")
    slopes = jax.grad(lambda params: jnp.sum(network(params, x) ** 2))(params)
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes)):
        raise fail("the derivatives of f must be finite", slopes)
    if not isinstance(network, AbstractOneInputNetwork):
        return 0.0
    cuts = network.cuts(params.u)
    if cuts.ndim != 1:
        raise fail("`cuts` must be of shape (k,)", cuts.shape)

    def integral(points: int) -> float:
        nodes, weights, _ = cell_rule(cuts, points)
        return float(jnp.sum(weights * network(params, nodes) ** 2))

    points = points_per_cell(network.activation.degree, 0)
    exact = integral(4 * points)
    error = abs(integral(points) - exact) / max(abs(exact), 1e-300)
    if error > 1e-9:
        raise fail("the `cuts` must part the network into smooth pieces", f"an error of {error}")
    return error
