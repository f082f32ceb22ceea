"""A flow by this package and by SciPy on a compiled gradient, and the error of either."""

import jax
import jax.numpy as jnp
import numpy as np
from compiled_gradient import by_cells, by_pairs, velocity
from scipy.integrate import solve_ivp

import tts_jax as tts

tts.configure()

JUMPS, VALUES = np.array([0.2, 0.35, 0.5, 0.65, 0.8]), np.array([1.0, 5.0, 1.0, 3.0, 1.0, 5.0])
ETA, WIDTH = 4e-3, 20
HORIZONS = {1.0: 10.0, 1e-2: 3.0, 2e-5: 0.035, 1e-6: 0.035}
PEERS = {
    "LSODA": ("LSODA", by_cells),
    "BDF": ("BDF", by_cells),
    "Radau": ("Radau", by_cells),
    "LSODA by pairs": ("LSODA", by_pairs),
}
"""Name, and SciPy's method with the gradient it gets: the first three as the risk is defined, the
last with the closed form of this package."""


PROBLEM = tts.Problem(
    tts.ShallowNetwork(tts.CubicStep(eta=ETA)), tts.PiecewiseConstant(JUMPS, VALUES)
)


def start(width=WIDTH, seed=42):
    u = np.sort(np.random.RandomState(seed).uniform(size=width))
    return tts.Params(jnp.zeros(width + 1), jnp.asarray(u))


def recorded(epsilon):
    return np.linspace(0.0, HORIZONS[epsilon], 101)[1:]


risk = jax.jit(jax.vmap(PROBLEM.risk))


def by_scipy(peer, epsilon, rtol, first):
    method, gradient = PEERS[peer]
    y0 = np.concatenate([first.a, first.u])
    right = velocity(gradient, epsilon, ETA, JUMPS, VALUES, first.u.size)
    taus = recorded(epsilon)
    return solve_ivp(right, (0.0, taus[-1]), y0, method, taus, rtol=rtol, atol=1e-2 * rtol).y.T


def by_us(epsilon, rtol, first):
    flow = tts.GradientFlow(epsilon, rtol=rtol, atol=1e-2 * rtol)
    run = tts.simulate(PROBLEM, flow, first, recorded(epsilon), throw=False)
    return jax.block_until_ready(run)


def risks(states):
    a, u = np.split(states, [(states.shape[1] + 1) // 2], axis=1)
    return np.asarray(risk(tts.Params(jnp.asarray(a), jnp.asarray(u))))


def error_of(states, reference):
    ours, theirs = risks(states), risks(reference)
    positions = np.abs(states - reference)[:, (states.shape[1] + 1) // 2 :]
    return float(max(np.max(positions), np.max(np.abs(ours - theirs) / (theirs + 1e-3))))


def stacked(trajectory):
    return np.concatenate([trajectory.params.a, trajectory.params.u], axis=1)
