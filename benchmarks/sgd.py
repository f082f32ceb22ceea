"""Nanoseconds per SGD step of one run, with and without XLA's flags, side by side.

    python benchmarks/sgd.py

Each setting runs in a process of its own, since the flag is read when JAX starts: three times in
turn, and the median of each is printed.
"""

import os
import statistics
import subprocess
import sys

from tts_jax.cli import SMALL_LOOPS, WIDE_VECTORS

STEPS = 4_000_000
CODE = f"""
import time
import jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
import tts_jax as tts
target = tts.PiecewiseConstant([.2, .35, .5, .65, .8], [1., 5., 1., 3., 1., 5.])
problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(eta=4e-3)), target)
start = tts.init_uniform(jax.random.key(0), 20)
taus = jnp.array([{STEPS} * 1e-7])
def run(seed):
    how = tts.SGD(1e-2, 1e-5, noise=1.)
    jax.block_until_ready(tts.simulate(problem, how, start, taus, key=jax.random.key(seed)))
run(0)
times = []
for seed in range(3):
    began = time.perf_counter()
    run(seed)
    times.append(time.perf_counter() - began)
print(sorted(times)[1] / {STEPS} * 1e9)
"""


def one(flags: str) -> float:
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


if __name__ == "__main__":
    small = f"--xla_backend_extra_options={SMALL_LOOPS}"
    settings = {"no flag": "", "small loops": small, "both": f"{small} {WIDE_VECTORS}"}
    found = {name: [] for name in settings}
    for _ in range(3):
        for name, flags in settings.items():
            found[name].append(one(flags))
    for name, values in found.items():
        print(f"{name}: {statistics.median(values):.0f} ns a step")
