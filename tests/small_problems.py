"""Small problems of one shape, so that one compilation serves many checks, and their oracle."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np

import tts_jax as tts
from tts_jax.closed_forms.pairwise import params_of, state_of

WIDTH = 6
TIMES = 11


TRACED = []


class CountedRamp(tts.AbstractActivation):
    """A user's own activation, which notes whenever it is traced."""

    eta: float
    knots: ClassVar = (-0.5, 0.5)
    degree: ClassVar = 1
    limits: ClassVar = (0.0, 1.0)

    def __call__(self, z):
        TRACED.append(z.shape)
        return jnp.clip(z + 0.5, 0.0, 1.0)


def small_problem(*, eta: float = 0.08, jumps=(0.3, 0.65), values=(1.0, 3.0, 0.5)) -> tts.Problem:
    target = tts.PiecewiseConstant(list(jumps), list(values))
    return tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=eta)), target)


def random_problem(seed: int) -> tuple[tts.Problem, tts.Params]:
    """A random target and a random start, also of the outer layer."""
    rng = np.random.default_rng(seed)
    problem = small_problem(
        eta=rng.uniform(0.05, 0.1),
        jumps=(rng.uniform(0.2, 0.45), rng.uniform(0.55, 0.8)),
        values=rng.uniform(-2.0, 2.0, 3),
    )
    u = np.sort(rng.uniform(size=WIDTH))
    a = rng.normal(size=WIDTH + 1)
    return problem, tts.Params(jnp.asarray(a), jnp.asarray(u))


def spread_start() -> tts.Params:
    """Two neurons in every piece of `small_problem`, none near a jump; a = 0."""
    u = jnp.asarray([0.07, 0.19, 0.38, 0.49, 0.76, 0.91])
    return tts.Params(jnp.zeros(WIDTH + 1), u)


def slow_times(last: float) -> jnp.ndarray:
    return jnp.linspace(0.0, last, TIMES)


def step_and_slope(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cubic step and its derivative, written by cases as in the paper."""
    left = 4 * (z + 0.5) ** 3
    right = 1 - 4 * (0.5 - z) ** 3
    sigma = np.where(z <= -0.5, 0.0, np.where(z <= 0, left, np.where(z <= 0.5, right, 1.0)))
    slope = np.where(np.abs(z) < 0.5, 12 * (0.5 - np.abs(z)) ** 2, 0.0)
    return sigma, slope


class NumpyRisk:
    """The risk and its gradient by hand, with NumPy only: the formulas under the integral."""

    def __init__(self, problem: tts.Problem):
        self.eta = float(problem.network.activation.eta)
        self.jumps = np.asarray(problem.target.jumps)
        self.values = np.asarray(problem.target.values)
        self.nodes, self.weights = np.polynomial.legendre.leggauss(5)

    def __call__(self, a: np.ndarray, u: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """L, grad_a L and grad_u L."""
        cuts = np.concatenate([u - self.eta / 2, u, u + self.eta / 2, self.jumps, [0.0, 1.0]])
        ends = np.sort(np.clip(cuts, 0.0, 1.0))
        half = np.diff(ends)[:, None] / 2
        x = (ends[:-1, None] + half * (1 + self.nodes)).ravel()
        weight = (half * self.weights).ravel()
        sigma, slope = step_and_slope((x[:, None] - u) / self.eta)
        residual = a[0] + sigma @ a[1:] - self.values[np.searchsorted(self.jumps, x)]
        pull = 2 * weight * residual
        by_a = np.concatenate([[np.sum(pull)], pull @ sigma])
        return np.sum(weight * residual**2), by_a, -(pull @ slope) * a[1:] / self.eta


def gradient_of(risk, params):
    """The gradient of a `PairwiseRisk` as parameters."""
    return params_of(risk.gradient(state_of(params)))


def hessian_of(risk, params):
    """Its Hessian: by a twice (m+1, m+1), by a and u (m+1, m), and by u twice (m, m)."""
    blocks = risk.hessian(state_of(params))
    first = jnp.concatenate([2 * jnp.ones(1), blocks.hess_0a])[None, :]
    rest = jnp.concatenate([blocks.hess_0a[:, None], blocks.hess_aa], 1)
    by_a_u = jnp.concatenate([blocks.hess_0u[None, :], blocks.hess_au])
    return jnp.concatenate([first, rest]), by_a_u, blocks.hess_uu
