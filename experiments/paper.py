"""What several figures share: the target, the network and the start of the paper."""

import jax.numpy as jnp
import numpy as np

import tts_jax as tts

ETA = 4e-3
WIDTH = 20
JUMPS = (0.2, 0.35, 0.5, 0.65, 0.8)
VALUES = (1.0, 5.0, 1.0, 3.0, 1.0, 5.0)
STEP_SIZE = 1e-5
NOISE = 1.0

TARGET = tts.PiecewiseConstant(JUMPS, VALUES)
PROBLEM = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=ETA)), TARGET)


def start() -> tts.Params:
    """The one start that is shown: u(0) from NumPy's legacy generator at seed 42, a = 0."""
    u = np.sort(np.random.RandomState(42).uniform(size=WIDTH))
    return tts.Params(a=jnp.zeros(WIDTH + 1), u=jnp.asarray(u))


def fine_grid(u: np.ndarray, eta: float, target: tts.PiecewiseConstant) -> np.ndarray:
    """Inputs that show every transition: an even grid, with more points on the transitions."""
    around = np.linspace(-0.75, 0.75, 13) * eta
    places = np.concatenate([np.ravel(u), np.asarray(target.jumps)])
    x = np.concatenate([np.linspace(0, 1, 201), np.ravel(places[:, None] + around)])
    return np.unique(np.clip(x, 0.0, 1.0))
