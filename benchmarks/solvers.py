"""Steps and seconds of the flows, the default beside diffrax's Kvaerno5 (corrected) and Tsit5.

    python benchmarks/solvers.py

The problem of the paper, at the default tolerances, wider networks on the same target, and a risk
without a closed form (tanh), at rtol 1e-6: what `recommended_solver` stands on. Warm, the median of
three runs in turn; the numbers of docs/solvers.md.
"""

import statistics
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import tts_jax as tts

tts.configure()

TARGET = tts.PiecewiseConstant([0.2, 0.35, 0.5, 0.65, 0.8], [1.0, 5.0, 1.0, 3.0, 1.0, 5.0])
PROBLEM = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=4e-3)), TARGET)
SMOOTH = tts.Problem(tts.ShallowNetwork(tts.Tanh(eta=0.02)), TARGET)
SOLVERS = {"default": None, "Kvaerno5": tts.stiff_solver(), "Tsit5": diffrax.Tsit5()}


def start(width: int) -> tts.Params:
    u = np.sort(np.random.RandomState(42).uniform(size=width))
    return tts.Params(jnp.zeros(width + 1), jnp.asarray(u))


def once(
    how: tts.AbstractDynamics, width: int, horizon: float, problem: tts.Problem
) -> tuple[int, float, int]:
    began = time.perf_counter()
    taus = jnp.linspace(0.0, horizon, 101)
    run = tts.simulate(problem, how, start(width), taus, throw=False)
    jax.block_until_ready(run)
    return int(run.stats["steps"]), time.perf_counter() - began, int(run.status)


def compare(
    label: str, make, horizon: float, width: int = 20, names=tuple(SOLVERS), problem=PROBLEM
) -> None:
    runs = {name: make(SOLVERS[name]) for name in names}
    firsts = {name: once(how, width, horizon, problem) for name, how in runs.items()}
    times = {name: [] for name in runs}
    for _ in range(3):
        for name, how in runs.items():
            times[name].append(once(how, width, horizon, problem)[1])
    found = [
        f"{name} {firsts[name][0]} steps {1e3 * statistics.median(times[name]):.1f} ms"
        + ("" if firsts[name][2] == 0 else f" ({tts.Status(firsts[name][2]).name})")
        for name in runs
    ]
    print(f"{label}, width {width}, tau to {horizon:g}: {', '.join(found)}", flush=True)


if __name__ == "__main__":
    for epsilon in (1.0, 1e-2, 1e-3, 1e-4, 2e-5):

        def flow(solver, epsilon=epsilon):
            return tts.GradientFlow(epsilon, solver=solver)

        compare(f"GradientFlow, epsilon {epsilon:g}", flow, 0.035)
        if epsilon in (1.0, 1e-2, 1e-4):
            for width in (80, 200):
                names = ("default", "Tsit5")
                compare(f"GradientFlow, epsilon {epsilon:g}", flow, 0.035, width, names)
    for horizon in (0.035, 3.0):
        compare("ReducedFlow", lambda solver: tts.ReducedFlow(solver=solver), horizon)
    for width in (5, 10, 20, 40):
        for epsilon, horizon in ((1.0, 1.0), (1e-2, 0.3), (1e-4, 0.01), (3e-5, 0.01), (1e-5, 0.01)):

            def smooth(solver, epsilon=epsilon):
                return tts.GradientFlow(epsilon, rtol=1e-6, atol=1e-8, solver=solver)

            label = f"tanh, epsilon {epsilon:g}"
            compare(label, smooth, horizon, width, ("default", "Tsit5"), SMOOTH)
