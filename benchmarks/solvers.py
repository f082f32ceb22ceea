"""Steps and seconds of the flows on the paper's problem, the default solver beside Tsit5.

    python benchmarks/solvers.py

Warm, the median of three runs in turn; the numbers of docs/solvers.md.
"""

import statistics
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
import tts_jax as tts  # noqa: E402

TARGET = tts.PiecewiseConstant([0.2, 0.35, 0.5, 0.65, 0.8], [1.0, 5.0, 1.0, 3.0, 1.0, 5.0])
PROBLEM = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=4e-3)), TARGET)
START = tts.Params(jnp.zeros(21), jnp.asarray(np.sort(np.random.RandomState(42).uniform(size=20))))


def once(how: tts.AbstractDynamics, horizon: float) -> tuple[int, float]:
    began = time.perf_counter()
    run = tts.simulate(PROBLEM, how, START, jnp.linspace(0.0, horizon, 101))
    jax.block_until_ready(run)
    return int(run.stats["steps"]), time.perf_counter() - began


def compare(label: str, make, horizon: float) -> None:
    both = {"default": make(None), "Tsit5": make(diffrax.Tsit5())}
    steps = {name: once(how, horizon)[0] for name, how in both.items()}
    times = {name: [] for name in both}
    for _ in range(3):
        for name, how in both.items():
            times[name].append(once(how, horizon)[1])
    found = [f"{n} {steps[n]} steps {statistics.median(times[n]):.3f} s" for n in both]
    print(f"{label}, tau to {horizon:g}: {', '.join(found)}", flush=True)


if __name__ == "__main__":
    for epsilon in (1e-2, 1e-3, 1e-4, 2e-5):
        compare(
            f"GradientFlow, epsilon {epsilon:g}",
            lambda solver, epsilon=epsilon: tts.GradientFlow(epsilon, solver=solver),
            0.035,
        )
    for horizon in (0.035, 3.0):
        compare("ReducedFlow", lambda solver: tts.ReducedFlow(solver=solver), horizon)
