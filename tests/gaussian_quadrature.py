"""Mean products of two neurons over Gaussian inputs: by the package, and by quadrature.

A pair of neurons of three inputs is a row (w, b, v, c) of 8 numbers. Rows come in batches of one
size, so that each function is compiled once.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tts_jax.closed_forms.gaussian_moments import covariances, gaussian_neurons, means
from tts_jax.models.activations import Erf, ReLU

ROWS, INPUTS = 16, 3
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(300)
_FAR = 12.0
_ndtr = jax.scipy.special.ndtr


def row(w, b, v, c):
    return np.concatenate([w, [b], v, [c]])


def second_moments(left, right):
    """E sigma(z_i) sigma(z'_j) (m, k) for two sets of neurons of one kind."""
    return covariances(left, right) + means(left)[:, None] * means(right)[None, :]


def _parts(x):
    return x[:INPUTS], x[INPUTS], x[INPUTS + 1 : -1], x[-1]


def _density(x):
    return jnp.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def closed(first, second, bias):
    """The mean product of a row in closed form."""

    def moment(x):
        w, b, v, c = _parts(x)
        biases = (b[None], c[None]) if bias else (None, None)
        left = gaussian_neurons(first, w[None], biases[0])
        right = gaussian_neurons(second, v[None], biases[1])
        return second_moments(left, right)[0, 0]

    return moment


def integrated(first, second, bias):
    """The mean product of a row: over z2 given z1 by hand, over z1 by 300 points."""

    def moment(x):
        w, b, v, c = _parts(x)
        if not bias:
            b, c = 0.0 * b, 0.0 * c
        length = jnp.sqrt(w @ w)
        slope = w @ v / length
        rest = jnp.sqrt(v @ v - slope**2)
        # Of the standard normal t with z1 = length t + b. A rectifier begins at t = -b/length.
        low = jnp.maximum(-b / length, -_FAR) if isinstance(first, ReLU) else -_FAR
        t = low + (_FAR - low) * 0.5 * (jnp.asarray(_NODES) + 1)
        mean = c + slope * t
        if isinstance(first, ReLU):
            inner = mean * _ndtr(mean / rest) + rest * _density(mean / rest)
            values = (length * t + b) * inner / (first.eta * second.eta)
        else:
            width = second.eta / (np.sqrt(2) if isinstance(second, Erf) else 1.0)
            inner = _ndtr(mean / jnp.sqrt(width**2 + rest**2))
            inner = 2 * inner - 1 if isinstance(second, Erf) else inner
            values = first((length * t + b) / first.eta) * inner
        return 0.5 * (_FAR - low) * jnp.sum(jnp.asarray(_WEIGHTS) * _density(t) * values)

    return moment


@functools.cache
def _compiled(of, first, second, bias, both):
    moment = of(_ACTIVATIONS[first], _ACTIVATIONS[second], bias)

    def all_of(x):
        def slopes(x):
            value, slope = jax.value_and_grad(moment)(x)
            return slope, (value, slope)

        bend, (value, slope) = jax.jacfwd(slopes, has_aux=True)(x)
        return value, slope, bend

    def of_pair(x):
        return jax.value_and_grad(moment)(x)

    return jax.jit(jax.vmap(all_of if both else of_pair))


_ACTIVATIONS = {}


def evaluate(of, first, second, rows, *, bias, hessian=True):
    """The values, gradients and, if asked for, Hessians of rows, at most ROWS."""
    names = []
    for activation in (first, second):
        names.append((type(activation).__name__, float(activation.eta)))
        _ACTIVATIONS[names[-1]] = activation
    rows = np.asarray(rows)
    filled = np.resize(rows, (ROWS, rows.shape[1]))
    found = _compiled(of, *names, bias, hessian)(jnp.asarray(filled))
    return tuple(np.asarray(part)[: len(rows)] for part in found)


def random_rows(seed, count=ROWS):
    return np.random.default_rng(seed).normal(size=(count, 2 * INPUTS + 2))


def difference(first, second, row, *, bias, step=1e-6):
    """The Hessian of a row by central differences of the gradient."""
    steps = step * np.eye(row.size)
    rows = np.concatenate([row + steps, row - steps])
    slopes = evaluate(closed, first, second, rows, bias=bias)[1]
    return (slopes[: row.size] - slopes[row.size :]) / (2 * step)


W, B = np.array([0.6, -1.1, 0.4]), 0.4
ACROSS = np.array([1.1, 0.6, 0.3]) - W * (np.array([1.1, 0.6, 0.3]) @ W) / (W @ W)
NONE = np.zeros(INPUTS)
SPECIAL = {
    "coincident": row(W, B, W, B),
    "parallel": row(W, B, 2 * W, 2 * B),
    "shifted": row(W, B, W, B + 0.3),
    "opposite": row(W, B, -W, -B),
    "mirrored": row(W, B, -W, B),
    "angle 1e-10": row(W, B, W + 1e-10 * ACROSS, B),
    "angle 1e-10, shifted": row(W, B, W + 1e-10 * ACROSS, B + 1e-10),
    "angle 1e-15": row(W, B, W + 1e-15 * ACROSS, B + 2e-16),
    "angle pi - 1e-10": row(W, B, -W + 1e-10 * ACROSS, -B),
    "one vanishes": row(NONE, B, W, B),
    "one vanishes, off": row(NONE, -B, W, B),
    "other vanishes": row(W, -B, NONE, B),
    "both vanish": row(NONE, B, NONE, B),
}
"""Pairs of neurons at which formulas divide by 0, and a Hessian exists with biases."""

KINKED = {
    "one is 0": row(NONE, 0.0, W, B),
    "both are 0": row(NONE, 0.0, NONE, 0.0),
}
"""Pairs at which a rectifier has no derivative."""
