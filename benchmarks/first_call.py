"""Seconds of the first flow of a process: trace, compile, run.

    python benchmarks/first_call.py [PART ...]

Parts: widths, cache; all by default. Each number is of a fresh process, after JAX has started. What
was measured goes to benchmarks/results/first_call.json.
"""

import os
import subprocess
import sys
import tempfile

from parts import main

WIDTHS = (20, 48, 80, 320, 1280)

FIRST = """
import sys, time
import jax, jax.numpy as jnp
import tts_jax as tts
width, configured, folder = int(sys.argv[1]), sys.argv[2] == "yes", sys.argv[3:]
if configured:
    tts.configure()
else:
    jax.config.update("jax_enable_x64", True)
if folder:
    jax.config.update("jax_compilation_cache_dir", folder[0])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
network = tts.ShallowNetwork(tts.CubicStep(eta=4e-3))
target = tts.PiecewiseConstant([.2, .35, .5, .65, .8], [1., 5., 1., 3., 1., 5.])
problem = tts.Problem(network, target)
start = tts.init_uniform(jax.random.key(0), width)
taus = jnp.linspace(0., .035, 101)
jax.block_until_ready(start)
began = time.perf_counter()
jax.block_until_ready(tts.simulate(problem, tts.GradientFlow(2e-5), start, taus))
print(time.perf_counter() - began)
"""


def fresh(width, configured, *folder):
    """Seconds of the first call in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", FIRST]
    arguments = [str(width), "yes" if configured else "no", *folder]
    done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    return float(done.stdout)


def widths():
    """The first call at each width, with `tts.configure()` and without."""
    for width in WIDTHS:
        found = {"configured": fresh(width, True), "bare": fresh(width, False)}
        print(f"width {width}: {found['configured']:.1f} s, bare {found['bare']:.1f} s", flush=True)
        yield str(width), found


def cache():
    """The first call at width 20, without and with JAX's cache on disk."""
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "first": fresh(20, True),
            "fills the cache": fresh(20, True, folder),
            "from the cache": fresh(20, True, folder),
        }
        entries = len(os.listdir(folder))
    for name, seconds in found.items():
        print(f"first call, {name}: {seconds:.2f} s")
    print(f"{entries} entries in the cache")
    return found


if __name__ == "__main__":
    main("first_call", {"widths": widths, "cache": cache})
