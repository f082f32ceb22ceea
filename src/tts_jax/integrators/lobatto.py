"""The five Lobatto nodes of a step, and integrals of the polynomials through values at them.

A step is [0, 1] here; its ends are nodes. A polynomial of degree 4 is given by its values at the
nodes, as the sum of these times the Lagrange polynomials l_0, ..., l_4.
"""

import jax.numpy as jnp
import numpy as np

from .._types import Array, Float, Scalar
from ..numerics.products import product

NODES = 0.5 * (1 + np.asarray([-1.0, -np.sqrt(3 / 7), 0.0, np.sqrt(3 / 7), 1.0]))
"""Where the nodes are."""


def _lagrange(nodes: np.ndarray) -> np.ndarray:
    """Return the coefficients (j, power) of the Lagrange polynomials of some nodes."""
    others = [np.delete(nodes, j) for j in range(nodes.size)]
    return np.stack(
        [
            np.polynomial.polynomial.polyfromroots(rest) / np.prod(node - rest)
            for node, rest in zip(nodes, others, strict=True)
        ]
    )


def _integrals(coefficients: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the integrals (end, j) of polynomials from 0 to some ends."""
    powers = np.arange(1, coefficients.shape[1] + 1)
    return (ends[:, None] ** powers) @ (coefficients / powers).T


COEFFICIENTS = _lagrange(NODES)
"""The coefficients (j, power) of l_j."""

INTEGRALS = _integrals(COEFFICIENTS, NODES)
"""The integrals (i, j) of l_j from 0 to node i."""

TO_MIDDLE = _integrals(COEFFICIENTS, np.asarray([0.5]))[0]
"""The integrals (j,) of l_j from 0 to the middle."""

WITHOUT_FIRST = np.append(0.0, _integrals(_lagrange(NODES[1:]), np.ones(1))[0])
"""The weights (j,) of the quadrature over a step without its first node."""


BEFORE_OTHERS = _lagrange(NODES[1:])[:, 0]
"""The values (j,) at the first node of the Lagrange polynomials of the other four."""


def powers_of(at: Array) -> Array:
    """Return the powers (..., 5) of numbers, from 0 to 4."""
    return jnp.stack([jnp.ones_like(at), at, at**2, at**3, at**4], axis=-1)


def lagrange_at(at: Array) -> Float[Array, "... 5"]:
    """Return l_0, ..., l_4 at some places, which may lie outside of the step."""
    return product(powers_of(at), jnp.asarray(COEFFICIENTS.T))


def integrals_to(end: Scalar) -> Float[Array, " 5"]:
    """Return the integrals of l_0, ..., l_4 from 0 to a place."""
    return end * product(jnp.asarray(COEFFICIENTS / np.arange(1, 6)), powers_of(end))
