"""What `tts.configure()` is worth: nothing set, that one line, and the flags by hand.

    python benchmarks/configure.py

The problem of the paper, 20 neurons, float64; flows at rtol 1e-8, with 101 recorded times. Each way
in fresh processes, in turn, since JAX reads its settings once: the median of five processes, each
the median of warm calls. Seconds of the clock, and of the cores (for a machine that others use
too). Both go to benchmarks/results/configure.json.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from parts import main

import tts_jax as tts
from tts_jax.configuration import SMALL_LOOPS, WIDE_VECTORS

CORES = len(os.sched_getaffinity(0))
HAND = f"{SMALL_LOOPS} {WIDE_VECTORS} --xla_force_host_platform_device_count={CORES}"
WAYS = {
    "nothing": ("jax.config.update('jax_enable_x64', True)", {}),
    "tts.configure()": ("tts.configure()", {}),
    "flags by hand": ("", {"XLA_FLAGS": HAND, "JAX_ENABLE_X64": "1"}),
}
"""What a script says first, and what stands in its environment."""
PROCESSES = 5
RUNS, STEP, EPSILON = 64, 1e-5, 2e-5
ONE_STEPS, MANY_STEPS = 400_000, 16_384


def workloads():
    """What is timed, by name: functions without arguments."""
    target = tts.PiecewiseConstant([0.2, 0.35, 0.5, 0.65, 0.8], [1.0, 5.0, 1.0, 3.0, 1.0, 5.0])
    problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=4e-3)), target)
    key = jax.random.key(1)
    keys, start = jax.random.split(key, RUNS), tts.init_uniform(key, 20)
    starts = jax.vmap(lambda key: tts.init_uniform(key, 20))(keys)

    def flow(epsilon, horizon, start):
        how = tts.GradientFlow(epsilon, rtol=1e-8, atol=1e-10)
        taus = jnp.linspace(0.0, horizon, 101)
        return tts.simulate(problem, how, start, taus, throw=False)

    def sgd(steps, key):
        how = tts.SGD(EPSILON, STEP, noise=1.0)
        return tts.simulate(problem, how, start, jnp.array([steps * EPSILON * STEP]), key=key)

    flows = tts.map_runs(lambda start: flow(EPSILON, 0.035, start))
    many = jax.jit(jax.vmap(lambda key: sgd(MANY_STEPS, key)))
    return {
        "flow, epsilon 2e-5": lambda: flow(2e-5, 0.035, start),
        "flow, epsilon 1": lambda: flow(1.0, 10.0, start),
        f"{RUNS} flows, map_runs": lambda: flows(starts),
        f"SGD, {ONE_STEPS} steps": lambda: sgd(ONE_STEPS, key),
        f"{RUNS} x SGD, {MANY_STEPS} steps": lambda: many(keys),
    }


def measure():
    """Print seconds (of the clock, of the cores) of the warm calls in this process."""
    found = {}
    for name, run in workloads().items():
        jax.block_until_ready(run())
        seconds = []
        while len(seconds) < 5 or sum(clock for clock, _ in seconds) < 0.2:
            began = time.perf_counter(), time.process_time()
            jax.block_until_ready(run())
            seconds.append((time.perf_counter() - began[0], time.process_time() - began[1]))
        found[name] = [statistics.median(column) for column in zip(*seconds, strict=True)]
    print(json.dumps(found))


def elsewhere(first, environment):
    """What `measure` prints in a process of its own, which begins with a line."""
    clean = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    code = f"import jax, configure, tts_jax as tts\n{first}\nconfigure.measure()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env=clean | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def ways():
    """Seconds of a warm call, by the way in which JAX is set up."""
    rounds = {way: [] for way in WAYS}
    for _ in range(PROCESSES):
        for way, setting in WAYS.items():
            rounds[way].append(elsewhere(*setting))
    found = {}
    for way, each in rounds.items():
        found[way] = {}
        for name in each[0]:
            columns = zip(*(seconds[name] for seconds in each), strict=True)
            clock, cores = (statistics.median(column) for column in columns)
            found[way][name] = {"seconds": clock, "seconds of cores": cores}
    table(found)
    return found


def table(found):
    """Print milliseconds of the cores, and how many times as many as with our line."""
    print(f"{'ms of the cores':24}" + "".join(f"{way:>22}" for way in found))
    for name, ours in found["tts.configure()"].items():
        line = f"{name:24}"
        for row in (found[way][name] for way in found):
            ratio = row["seconds of cores"] / ours["seconds of cores"]
            line += f"{1e3 * row['seconds of cores']:>13.2f} ({ratio:>5.2f}x)"
        print(line)


if __name__ == "__main__":
    main("configure", {"ways": ways})
