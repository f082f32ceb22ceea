"""The gradient flow against SciPy on a compiled gradient, at equal achieved error.

    python benchmarks/flows.py [PART ...]

Parts: single, batch, width, cells, derivative, threshold, own_loop, reduced, limit, kinks;
all by default. Peers run in this process, side by side; medians of warm runs; float64. The error of
a run is the larger, over 100 recorded times, of max |u - u_ref| and |L - L_ref| / (L_ref + 1e-3),
against a reference of SciPy's Radau at rtol 1e-12. What was measured goes to
benchmarks/results/flows.json, and the work-precision plot to docs/work-precision.png. Needs the
extra `bench`.
"""

import functools
import os
import statistics
import subprocess
import sys
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from flow_peers import (
    ETA,
    HORIZONS,
    JUMPS,
    PROBLEM,
    VALUES,
    WIDTH,
    by_scipy,
    by_us,
    error_of,
    recorded,
    start,
)
from jax.scipy.special import betainc
from parts import main, once, timed
from single_flow import TARGETS, alternately, single

import tts_jax as tts
from tts_jax.closed_forms.banded_system import (
    AdaptiveBandwidthSystem,
    all_bandwidths,
    to_cells,
)
from tts_jax.closed_forms.pairwise import PairwiseRisk, state_of
from tts_jax.closed_forms.pairwise_system import PairwiseGradientSystem
from tts_jax.configuration import SMALL_LOOPS
from tts_jax.dynamics.limit_flow import _moment
from tts_jax.integrators import loop
from tts_jax.integrators.checkpointing import differentiable_run
from tts_jax.integrators.loop import initial_state, is_running, try_step
from tts_jax.integrators.step_size import StepControl


def batch():
    """256 runs, 4 epsilons and 64 starts, in one call on all cores, against SciPy one by one."""
    epsilons = jnp.repeat(jnp.asarray(list(HORIZONS)), 64)
    starts = [start(seed=seed) for seed in range(64)]
    firsts = jax.tree.map(lambda *leaves: jnp.tile(jnp.stack(leaves), (4, 1)), *starts)
    taus = jnp.stack([jnp.asarray(recorded(float(epsilon))) for epsilon in epsilons])

    @tts.map_runs
    def together(epsilon, first, taus, rtol):
        flow = tts.GradientFlow(epsilon, rtol=rtol, atol=1e-2 * rtol)
        return tts.simulate(PROBLEM, flow, first, taus, throw=False)

    found, references = {}, {}
    for target in TARGETS:
        rtol = jnp.full(epsilons.shape, target)

        run = together(epsilons, firsts, taus, rtol)
        seconds = timed(
            lambda rtol=rtol: jax.block_until_ready(together(epsilons, firsts, taus, rtol)),
            3,
        )
        # SciPy on a sample, every fourth start; LSODA at the tolerance that reaches the error.
        scipy_seconds, worst, theirs = [], [], []
        for k, epsilon in enumerate(HORIZONS):
            for seed in range(0, 64, 16):
                first = starts[seed]
                if (epsilon, seed) not in references:
                    references[epsilon, seed] = by_scipy("Radau", epsilon, 1e-12, first)
                reference = references[epsilon, seed]
                index = 64 * k + seed
                ours = np.concatenate([run.params.a[index], run.params.u[index]], axis=1)
                worst.append(error_of(ours, reference))
                for tighter in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
                    began = time.perf_counter()
                    states = by_scipy("LSODA by pairs", epsilon, target * tighter, first)
                    spent = time.perf_counter() - began
                    if (
                        error_of(states, reference) <= max(target, worst[-1])
                        or target * tighter < 1e-12
                    ):
                        break
                scipy_seconds.append(spent)
                theirs.append(epsilon)
        per_run = seconds / epsilons.size
        ratio = statistics.mean(scipy_seconds) / per_run
        print(
            f"256 runs at rtol {target:g}: {1e3 * per_run:.2f} ms a run, worst error of a sample "
            f"{max(worst):.1e}, median {statistics.median(worst):.1e}; LSODA by pairs, equal error "
            f"{1e3 * statistics.mean(scipy_seconds):.1f} ms, {ratio:.1f} times"
        )
        found[str(target)] = {
            "seconds_per_run": per_run,
            "errors": worst,
            "scipy_seconds": scipy_seconds,
            "failed": int(np.sum(np.asarray(run.status) != 0)),
        }
    return found


def width():
    """One run at epsilon 2e-5 for growing widths, in turn, and width 10 000."""

    runs = {m: functools.partial(by_us, 2e-5, 1e-6, start(m)) for m in (20, 80, 320, 1280, 10_000)}
    trajectories = {m: run() for m, run in runs.items()}
    widest = runs.pop(10_000)
    seconds = alternately(runs, 7) | {10_000: once(widest)}
    found = []
    for m, trajectory in trajectories.items():
        steps = int(trajectory.stats["steps"])
        found.append({"width": m, "seconds": seconds[m], "steps": steps})
        status = tts.Status(int(trajectory.status)).name
        each = 1e6 * seconds[m] / steps
        print(f"width {m}: {seconds[m]:.4f} s, {steps} steps, {each:.0f} us a step, {status}")
    grown = seconds[1280] / seconds[20]
    allowed = 64 * np.log(1280) / np.log(20)
    print(f"from width 20 to 1280: {grown:.0f} times; m log m: {allowed:.0f} times")
    exponent = np.polyfit(np.log(list(runs)), np.log([seconds[m] for m in runs]), 1)[0]
    print(f"exponent of the time in the width, 20 to 1280: {exponent:.2f}")
    return {"runs": found, "exponent": float(exponent), "20 to 1280": grown}


def kinks():
    """Steps in which a neuron passes a kink of sigma at a jump or an end: what they can cost."""
    found = []
    places = np.concatenate([[0.0], JUMPS, [1.0]])
    knots = jnp.asarray(np.add.outer(places, ETA * np.asarray([-0.5, 0.0, 0.5])).ravel())
    risk = PairwiseRisk(PROBLEM.network.activation, PROBLEM.target)

    @jax.jit
    def steps(epsilon, horizon, rtol, first):
        system = PairwiseGradientSystem(risk, epsilon, jnp.zeros(()))
        control = StepControl(horizon, rtol, 1e-2 * rtol, jnp.asarray(100_000))

        def body(state):
            now, counts = state
            good, _, step, after = try_step(system, now, control)
            before, there = now.y.u[:, None] - knots, step.after.u[:, None] - knots
            passed = jnp.any(before * there < 0)
            seen = jnp.stack([passed & good, passed & ~good, ~passed & ~good])
            return after, counts + seen

        state = (initial_state(system, state_of(first), control), jnp.zeros(3, jnp.int32))
        now, counts = jax.lax.while_loop(lambda s: is_running(s[0], control), body, state)
        return now.steps, counts

    for epsilon, horizon in HORIZONS.items():
        for rtol in TARGETS:
            numbers = (jnp.asarray(x) for x in (epsilon, horizon, rtol))
            total, counts = jax.device_get(steps(*numbers, start()))
            passed, refused, others = counts.tolist()
            print(
                f"epsilon {epsilon:g}, rtol {rtol:g}: {total} steps, {passed} over a kink, "
                f"{refused} rejected at one, {others} rejected elsewhere"
            )
            found.append(
                {
                    "epsilon": epsilon,
                    "rtol": rtol,
                    "steps": int(total),
                    "over a kink": passed,
                    "rejected at one": refused,
                    "rejected elsewhere": others,
                }
            )
    return found


def cells():
    """A step by all pairs and by cells, around the width where the flow changes over."""
    risk = PairwiseRisk(PROBLEM.network.activation, PROBLEM.target)
    numbers = (risk, jnp.asarray(2e-5), jnp.zeros(()))
    control = StepControl(*(jnp.asarray(x) for x in (HORIZONS[2e-5], 1e-6, 1e-8, 100_000)))
    go = jax.jit(loop.run)
    found = []
    for m in (24, 32, 40, 48, 60, 80):
        by_pairs = (PairwiseGradientSystem(*numbers), state_of(start(m)))
        by_cells = (AdaptiveBandwidthSystem(*numbers, all_bandwidths(m)), to_cells(start(m))[0])
        each = []
        for system, y in (by_pairs, by_cells):
            taus = jnp.asarray(recorded(2e-5))
            steps = int(go(system, y, taus, control)[1].steps)

            def run(system=system, y=y, taus=taus):
                jax.block_until_ready(go(system, y, taus, control))

            each.append(timed(run) / steps)
        pairs, in_cells = (1e6 * seconds for seconds in each)
        print(f"width {m}: {pairs:.0f} us a step by all pairs, {in_cells:.0f} by cells")
        found.append({"width": m, "seconds by pairs": each[0], "seconds by cells": each[1]})
    return found


def derivative():
    """A reverse pass as a multiple of a run: by epsilon and the start, and by all numbers."""
    found = {}
    for epsilon in (1e-2, 2e-5):
        seconds = gradients(epsilon)
        line = f"epsilon {epsilon:g}: run {1e3 * seconds['run']:.1f} ms, gradient"
        for name in list(seconds)[1:]:
            line += f" {name} {seconds[name] / seconds['run']:.1f} times,"
        print(line.rstrip(","))
        found[str(epsilon)] = seconds
    return found


def gradients(epsilon):
    """Seconds of a run, and of its gradients."""
    taus = jnp.asarray(recorded(2e-5))

    def last(epsilon, first, eta, jumps, values):
        network = tts.ShallowNetwork(tts.CubicStep(eta=eta))
        problem = tts.Problem(network, tts.PiecewiseConstant(jumps, values))
        flow = tts.GradientFlow(epsilon, rtol=1e-8, atol=1e-10)
        return tts.simulate(problem, flow, first, taus, throw=False).risk[-1]

    ways = {
        "run": jax.jit(last),
        "by epsilon and start": jax.jit(jax.grad(last, argnums=(0, 1))),
        "by all numbers": jax.jit(jax.grad(last, argnums=(0, 1, 2, 3, 4))),
    }
    numbers = (jnp.asarray(epsilon), start(), *map(jnp.asarray, (ETA, JUMPS, VALUES)))
    return alternately({name: calling(way, *numbers) for name, way in ways.items()})


def calling(function, *arguments):
    return lambda: jax.block_until_ready(function(*arguments))


def threshold():
    """A gradient by all numbers, for two values of XLA's flag for small loops."""
    found = {}
    for size in (1_000_000, 4_000_000):
        flags = f"{SMALL_LOOPS.rpartition('=')[0]}={size}"
        code = "import flows; print(flows.gradients(2e-5)['by all numbers'])"
        environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.path.dirname(__file__)}
        command = [sys.executable, "-c", code]
        out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        found[str(size)] = float(out.stdout.split()[-1])
        print(f"{size}: {1e3 * found[str(size)]:.1f} ms")
    return found


def own_loop():
    """The same step in the package's loop and in diffrax's: a run, a gradient, 32 runs by vmap."""
    taus, every = jnp.asarray(recorded(2e-5)), jnp.asarray(list(HORIZONS) * 8)
    risk = PairwiseRisk(PROBLEM.network.activation, PROBLEM.target)
    control = StepControl(taus[-1], *(jnp.asarray(x) for x in (1e-6, 1e-8, 100_000)))
    one, many = state_of(start()), [state_of(start(seed=seed)) for seed in range(32)]
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)

    def ours(epsilon, y):
        system = PairwiseGradientSystem(risk, epsilon, jnp.zeros(()))
        ys, now = differentiable_run(system, y, taus, control, 100_000)
        return ys.u[-1], now.steps

    def theirs(epsilon, y):
        system = PairwiseGradientSystem(risk, epsilon, jnp.zeros(()))
        term = diffrax.ODETerm(lambda t, y, _: system.velocity(y))
        steps = diffrax.PIDController(rtol=1e-6, atol=1e-8)
        found = diffrax.diffeqsolve(
            *(term, tts.Rodas5P(system), 0.0, taus[-1], None, y),
            saveat=diffrax.SaveAt(ts=taus),
            stepsize_controller=steps,
            max_steps=4096,
        )
        return found.ys.u[-1], found.stats["num_steps"]

    def ways(run):
        slope = jax.grad(lambda epsilon, y: jnp.sum(run(epsilon, y)[0] ** 2), (0, 1))
        return {
            "run": (jax.jit(run), jnp.asarray(2e-5), one),
            "gradient": (jax.jit(slope), jnp.asarray(2e-5), one),
            "32 runs": (jax.jit(jax.vmap(run)), every, many),
        }

    found = {}
    for name, (go, *given) in ways(ours).items():
        calls = {"ours": calling(go, *given), "diffrax": calling(ways(theirs)[name][0], *given)}
        found[name] = seconds = alternately(calls, 5)
        ratio = seconds["diffrax"] / seconds["ours"]
        print(f"{name}: ours {1e3 * seconds['ours']:.2f} ms, diffrax {ratio:.1f} times", flush=True)
    return found


def reduced():
    """ReducedFlow, one run."""
    found = {}
    for horizon in (0.035, 3.0):
        taus = jnp.linspace(0.0, horizon, 101)

        def run(taus=taus):
            return jax.block_until_ready(tts.simulate(PROBLEM, tts.ReducedFlow(), start(), taus))

        steps, seconds = int(run().stats["steps"]), timed(run)
        print(f"ReducedFlow to {horizon:g}: {1e3 * seconds:.1f} ms, {steps} steps")
        found[str(horizon)] = {"seconds": seconds, "steps": steps}
    return found


def limit():
    """LimitFlow, 256 runs at 31 times; its incomplete beta function beside that of JAX."""
    taus = jnp.linspace(0.0, 0.1, 31)
    keys = jax.random.split(jax.random.key(0), 256)

    @jax.jit
    @jax.vmap
    def runs(key):
        first = tts.init_uniform(key, WIDTH)
        return tts.simulate(PROBLEM, tts.LimitFlow(), first, taus, throw=False).risk

    t = jnp.linspace(0.0, 1.0, 10_000)
    ours = jax.jit(lambda t: _moment(t, 1 - t**3))
    jaxs = jax.jit(lambda t: betainc(2 / 3, 2 / 3, t**3))
    found = {"seconds_per_run": timed(lambda: jax.block_until_ready(runs(keys))) / keys.size}
    for name, function in (("series", ours), ("betainc", jaxs)):
        run = timed(lambda function=function: jax.block_until_ready(function(t)))
        found[name] = run / t.size
    print(
        f"LimitFlow: {1e3 * found['seconds_per_run']:.3f} ms a run; a value by the series "
        f"{1e9 * found['series']:.0f} ns, by JAX's betainc {1e9 * found['betainc']:.0f} ns"
    )
    return found


PARTS = {
    "single": single,
    "batch": batch,
    "width": width,
    "derivative": derivative,
    "threshold": threshold,
    "own_loop": own_loop,
    "reduced": reduced,
    "limit": limit,
    "kinks": kinks,
    "cells": cells,
}

if __name__ == "__main__":
    main("flows", PARTS)
