"""Sweeps: ten thousand flows against a pool of SciPy processes, and what storing them costs.

    python benchmarks/sweeps.py [PART ...]

Parts: flows, storing, again, memory, help; all by default. Peers run side by side, on the same
cores. What was measured goes to benchmarks/results/sweeps.json. Needs the extra `bench`.
"""

import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from compiled_gradient import by_cells, by_pairs, velocity
from parts import main
from scipy.integrate import solve_ivp

import tts_jax as tts
from tts_jax.sweeps.execution.runner import Runner
from tts_jax.sweeps.storage.store import Store

tts.configure()

HERE = Path(__file__).parent
CORES = len(os.sched_getaffinity(0))
JUMPS, VALUES, ETA = np.array([0.2, 0.35, 0.5, 0.65, 0.8]), np.array([1.0, 5, 1, 3, 1, 5]), 4e-3
PROBLEM = tts.Problem(
    tts.ShallowNetwork(tts.CubicStep(eta=ETA)), tts.PiecewiseConstant(JUMPS, VALUES)
)
EPSILONS = np.geomspace(1e-6, 1.0, 50)
TAUS = np.linspace(0.0, 0.1, 21)
RTOL = 1e-6
SAMPLE = 2
"""Starts of each epsilon that SciPy gets."""


def grid(starts, width=20):
    return {"epsilon": EPSILONS, "seed": range(starts), "width": width}


def swept(starts, rtol=RTOL, **options):
    flow = tts.GradientFlow(1.0, rtol=rtol, atol=1e-2 * rtol)
    return tts.sweep(PROBLEM, flow, grid(starts), TAUS, **options)


def by_scipy(case):
    """One run by LSODA: the positions (T, m), in a worker of the pool."""
    gradient, epsilon, u, rtol = case
    y0 = np.concatenate([np.zeros(u.size + 1), u])
    compiled = {"cells": by_cells, "pairs": by_pairs}[gradient]
    right = velocity(compiled, epsilon, ETA, JUMPS, VALUES, u.size)
    run = solve_ivp(right, (0.0, TAUS[-1]), y0, "LSODA", TAUS, rtol=rtol, atol=1e-2 * rtol)
    return run.y.T[:, u.size + 1 :]


def flows():
    """10 000 flows, 50 epsilons and 200 starts, in a store, and LSODA in a pool on a sample."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        data = swept(200, store=Path(folder, "flows.zarr"))
        seconds = time.perf_counter() - began
        failed = int((data.status != 0).sum())
        ours = data.u.isel(seed=slice(SAMPLE)).values
        session = json.loads(data.attrs["sessions"])[-1]
    rate = 10_000 / seconds
    print(
        f"10 000 flows: {seconds:.1f} s with compiling and storing, {rate:.0f} runs per second, "
        f"{failed} failed, efficiency {session['efficiency']}"
    )
    exact = swept(SAMPLE, rtol=1e-11).u.values
    worst = np.max(np.abs(ours - exact), axis=(-2, -1))
    starts = [np.asarray(exact[0, k, 0]) for k in range(SAMPLE)]
    found = {
        "seconds": seconds,
        "runs_per_second": rate,
        "failed": failed,
        "efficiency": session["efficiency"],
        "median_error": float(np.median(worst)),
        "largest_error": float(np.max(worst)),
    }
    print(f"  error of u in the sample: median {np.median(worst):.1e}, largest {worst.max():.1e}")
    for gradient in ("cells", "pairs"):
        for rtol in (1e-6, 1e-7, 1e-8, 1e-9):
            cases = [(gradient, e, u, rtol) for e, u in itertools.product(EPSILONS, starts)]
            context = multiprocessing.get_context("forkserver")
            with context.Pool(CORES, initializer=by_scipy, initargs=(cases[0],)) as pool:
                pool.map(by_scipy, cases[: 2 * CORES])  # compiled, from Numba's cache
                began = time.perf_counter()
                runs = pool.map(by_scipy, cases, chunksize=1)
                spent = time.perf_counter() - began
            errors = np.max(np.abs(np.reshape(runs, exact.shape) - exact), axis=(-2, -1))
            if np.median(errors) <= np.median(worst):
                break
        theirs = len(cases) / spent
        print(
            f"  LSODA by {gradient}, rtol {rtol:g}, a pool of {CORES}: {theirs:.1f} runs per "
            f"second, median error {np.median(errors):.1e}; {rate / theirs:.1f} times"
        )
        found[f"LSODA by {gradient}"] = {
            "rtol": rtol,
            "runs_per_second": theirs,
            "median_error": float(np.median(errors)),
            "ratio": rate / theirs,
        }
    return found


def storing():
    """What writing takes, of what computing takes: parameters at 21 times, and at the last."""
    found = {}
    for keep in ("all", "last"):
        spent = {"write": 0.0, "compute": 0.0}

        def timed(function, name, spent=spent):
            def wrapper(*arguments, **options):
                began = time.perf_counter()
                out = function(*arguments, **options)
                spent[name] += time.perf_counter() - began
                return out

            return wrapper

        originals = Store.write, Runner.__call__
        Store.write, Runner.__call__ = timed(Store.write, "write"), timed(originals[1], "compute")
        try:
            with tempfile.TemporaryDirectory() as folder:
                data = swept(100, keep=keep, store=Path(folder, "s.zarr"))
                size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        finally:
            Store.write, Runner.__call__ = originals
        share = spent["write"] / spent["compute"]
        print(
            f"parameters at {keep} times: {spent['write']:.2f} s writing {size / 1e6:.1f} MB "
            f"beside {spent['compute']:.1f} s computing, {100 * share:.1f} %; "
            f"{data.status.size} runs"
        )
        found[keep] = {**spent, "bytes": size, "share": share}
    return found


def again():
    """Seconds of a process that eight runs take, first and when their program is there."""
    found, taus = {}, TAUS[:4]
    for dynamics in (tts.GradientFlow(1.0, rtol=RTOL), tts.SGD(1e-2, 1e-3), tts.LimitFlow()):
        spent = []
        for k in range(6):
            began = time.process_time()
            tts.sweep(PROBLEM, dynamics, {"seed": range(8 * k, 8 * k + 8), "width": 20}, taus)
            spent.append(time.process_time() - began)
        name = type(dynamics).__name__
        found[name] = {"first": spent[0], "again": statistics.median(spent[1:])}
        print(f"{name}: {spent[0]:.2f} s first, then {1e3 * found[name]['again']:.0f} ms")
    return found


def memory():
    """The most memory that a process needs for ten thousand runs and for many more."""
    found = {}
    for runs in (10_000, 100_000, 400_000):
        code = (
            "import sweeps, tempfile, numpy as np, tts_jax as tts\n"
            f"grid = {{'seed': range({runs}), 'width': 20}}\n"
            "with tempfile.TemporaryDirectory() as folder:\n"
            "    tts.sweep(sweeps.PROBLEM, tts.LimitFlow(), grid, np.linspace(0, .1, 31),\n"
            "              store=folder + '/s.zarr')\n"
            # Not getrusage, which starts from what the parent had.
            "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        )
        began = time.perf_counter()
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, cwd=HERE, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - began
        found[str(runs)] = {"megabytes": int(done.stdout) / 1e3, "seconds": seconds}
        print(
            f"{runs} runs of the limit flow: at most {int(done.stdout) / 1e3:.0f} MB, "
            f"{seconds:.1f} s; the records are {runs * 31 * 42 * 8 / 1e6:.0f} MB"
        )
    return found


def help_():
    """Seconds from `tts-jax --help` to the prompt, and those of an empty Python."""

    def median(*words):
        times = []
        for _ in range(9):
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    found = {"help": median("-m", "tts_jax", "--help"), "empty": median("-c", "pass")}
    found["import tts_jax and jax"] = median("-c", "import tts_jax; tts_jax.simulate")
    print(", ".join(f"{name}: {seconds:.2f} s" for name, seconds in found.items()))
    return found


PARTS = {"flows": flows, "storing": storing, "again": again, "memory": memory, "help": help_}

if __name__ == "__main__":
    main("sweeps", PARTS)
