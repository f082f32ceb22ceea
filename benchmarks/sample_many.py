"""Many flows in one call, and the reduced flow: parts `many` and `reduced` of sample_flows.py."""

import functools
import os
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from sample_cases import START, TANH, Case, two_layer
from sample_peers import by_scipy
from sample_times import RTOLS, compared, milliseconds
from scipy.integrate import solve_ivp

import tts_jax as tts

SEEDS, EPSILONS = 64, (1e-1, 1e-2, 1e-4, 1e-6)
SAMPLE = 4
"""Starts of each epsilon that SciPy gets, and whose error is looked at."""


def many():
    """256 runs (4 epsilons, 64 starts) of 140 parameters in one call, and SciPy one by one."""
    functions = two_layer(20, 5, 500)
    problem, taus = functions.problem, jnp.linspace(0.0, 1.0, 11)
    keys = jax.random.split(jax.random.key(7), SEEDS)
    starts = [tts.init_two_layer(key, TANH, 5, 20, **START) for key in keys]
    firsts = jax.tree.map(lambda *leaves: jnp.stack(leaves * len(EPSILONS)), *starts)
    epsilons = jnp.repeat(jnp.asarray(EPSILONS), SEEDS)

    def one(epsilon, first, rtol):
        flow = tts.GradientFlow(epsilon, rtol=rtol, atol=1e-2 * rtol)
        return tts.simulate(problem, flow, first, taus, throw=False)

    ways = {"map_runs": tts.map_runs(one), "vmap": jax.jit(jax.vmap(one))}
    cores = len(os.sched_getaffinity(0))
    for rtol in (1e-4, 1e-6):
        numbers = epsilons, firsts, jnp.full(epsilons.shape, rtol)
        row, runs = {"cores": cores}, {}
        for name, way in ways.items():
            runs[name] = jax.block_until_ready(way(*numbers))
            _, ms = milliseconds(lambda way=way, n=numbers: jax.block_until_ready(way(*n)))
            row[f"{name}, ms a run"] = ms / epsilons.size
        row["failed"] = int(np.sum(np.asarray(runs["map_runs"].status) != 0))
        row |= _by_scipy(functions, starts, runs["map_runs"], rtol)
        ratio = row["SciPy, ms a run"] / row["map_runs, ms a run"]
        print(
            f"256 runs at rtol {rtol:g} on {cores} cores: {row['map_runs, ms a run']:.2f} ms a "
            f"run by map_runs, {row['vmap, ms a run']:.2f} by vmap, {row['failed']} failed; "
            f"errors of a sample: median {row['median error']:.1e}, largest "
            f"{row['largest error']:.1e}; SciPy {row['SciPy, ms a run']:.1f} ms, {ratio:.1f} times",
            flush=True,
        )
        yield f"rtol {rtol:g}", row


def _by_scipy(functions, starts, runs, rtol):
    """Of a sample: the errors, and what the better of LSODA and BDF takes at equal error."""
    spent, errors = [], []
    for k, epsilon in enumerate(EPSILONS):
        for seed in range(0, SEEDS, SEEDS // SAMPLE):
            case = Case(functions, epsilon, start=starts[seed])
            picked = jax.tree.map(lambda leaf, at=SEEDS * k + seed: leaf[at], runs)
            errors.append(case.error(case.states_of(picked)[0]))
            wanted, best = max(errors[-1], 1e-2 * rtol), float("inf")
            for method in ("LSODA", "BDF"):
                for tolerance in RTOLS:
                    found, ms = milliseconds(functools.partial(by_scipy, method, case, tolerance))
                    if case.error(found[0]) <= wanted:
                        best = min(best, ms)
                        break
            spent.append(best)
    return {
        "SciPy, ms a run": statistics.mean(spent),
        "SciPy, each": spent,
        "median error": statistics.median(errors),
        "largest error": max(errors),
    }


class ReducedCase(Case):
    """The reduced flow; the reference is SciPy's DOP853 at rtol 1e-12, on the same field."""

    def __init__(self, functions):
        self.functions, self.start = functions, functions.start
        self.taus = jnp.linspace(0.0, 1.0, 11)
        states, _ = self.by_scipy("DOP853", 1e-12)
        self.wanted = functions.risks(states), functions.outputs(states)

    def by_scipy(self, method, rtol):
        run = solve_ivp(
            lambda _, u: np.asarray(self.functions.reduced(u)),
            *((0.0, 1.0), np.asarray(self.functions.inner), method, np.asarray(self.taus)),
            rtol=rtol,
            atol=1e-2 * rtol,
        )
        status = "OK" if run.success else run.message
        return self.functions.completed(run.y.T), {"gradients": int(run.nfev), "status": status}

    def package(self, rtol):
        flow = tts.ReducedFlow(rtol=rtol, atol=1e-2 * rtol)
        given = self.functions.problem, flow, self.start, self.taus
        return jax.block_until_ready(tts.simulate(*given, throw=False))


def reduced():
    """ReducedFlow of 140, 420 and 1200 parameters, and SciPy's RK45 on the compiled field."""
    for width, inputs, count in ((20, 5, 500), (60, 5, 500), (100, 10, 1000)):
        case = ReducedCase(two_layer(width, inputs, count))
        sides = {"tts_jax": case.package, "RK45": functools.partial(case.by_scipy, "RK45")}
        label = f"reduced, m = {width}, d = {inputs}, N = {count}"
        yield label, compared(case, sides, label=label)
