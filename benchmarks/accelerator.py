"""What an accelerator does today: SGD and flows in large batches; whether it agrees with the CPU.

    python benchmarks/accelerator.py [PART ...]

Parts: sgd, loops, flows, equal; all by default. On a CPU it is a rehearsal in small batches, whose
numbers say nothing of an accelerator. Float32 products are taken at the highest precision, so that
none is TF32. What was measured goes to benchmarks/results/accelerator.json (rehearsal.json on a
CPU), with the device named.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tts_jax.cli import prepare_jax

prepare_jax()

import diffrax  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from parts import main  # noqa: E402

import tts_jax as tts  # noqa: E402

jax.config.update("jax_default_matmul_precision", "highest")

HERE = Path(__file__).parent
REHEARSAL = jax.default_backend() == "cpu"
BATCHES = (16, 64) if REHEARSAL else (1_000, 10_000, 100_000, 1_000_000)
FLOWS = (16,) if REHEARSAL else (1_000, 10_000, 100_000)
PATIENCE = 1.0 if REHEARSAL else 12.0  # seconds that the next larger batch may be expected to take
EPSILONS = (1.0, 1e-2, 1e-4, 1e-6)
WHILE = "--xla_gpu_enable_command_buffer=+WHILE"
PROBLEM = tts.Problem(
    tts.ShallowNetwork(tts.CubicStep(eta=4e-3)),
    tts.PiecewiseConstant([0.2, 0.35, 0.5, 0.65, 0.8], [1.0, 5.0, 1.0, 3.0, 1.0, 5.0]),
)
TAUS = jnp.linspace(0.0, 0.035, 11)
SOLVERS = {
    "Rodas5P, own loop": (None, EPSILONS),
    "Rodas5P, diffrax": (tts.Rodas5P(), EPSILONS),
    "Kvaerno5": (tts.stiff_solver(), EPSILONS),
    "Tsit5": (diffrax.Tsit5(), (1.0, 1e-2)),  # below it would take minutes
}


def starts(count, dtype=jnp.float64, seed=0):
    """Fresh random starts, one for each run."""
    keys = jax.random.split(jax.random.key(seed), count)
    params = jax.vmap(lambda key: tts.init_uniform(key, 20))(keys)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params), keys


def measured(function, *arguments):
    """Seconds of the first call and of the next one, and the most memory, in bytes."""
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    first = time.perf_counter() - began
    began = time.perf_counter()
    out = jax.block_until_ready(function(*arguments))
    again = time.perf_counter() - began
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {"first": first, "seconds": again, "peak_bytes": memory}, out


def sgd():
    """Steps of SGD per second, all runs together, by `jax.vmap` of `simulate`."""
    found = {}
    for dtype in (jnp.float32, jnp.float64):
        for count in BATCHES:
            name = f"{jnp.dtype(dtype).name}, {count} runs"
            found[name] = _attempt(lambda c=count, d=dtype: _sgd(c, d))
            print(f"  {name}: {_shown(found[name], 'steps_per_second')}", flush=True)
    return found


def _sgd(count, dtype):
    params, keys = starts(count, dtype)
    steps = 2_000 if REHEARSAL else int(np.clip(4e9 / count, 5_000, 100_000))
    how, taus = tts.SGD(1e-2, 1e-5, noise=1.0), jnp.array([1e-7 * steps])

    @jax.jit
    def run(params, keys):
        def one(params, key):
            return tts.simulate(PROBLEM, how, params, taus, key=key, throw=False).risk[-1]

        return jax.vmap(one)(params, keys)

    row = measured(run, params, keys)[0]
    return row | {"steps_per_second": count * steps / row["seconds"]}


def loops():
    """The same with XLA's loops in one command buffer, in a process of its own."""
    flags = f"{os.environ['XLA_FLAGS']} {WHILE}"
    words = [sys.executable, "-c", "import json, accelerator as a; print(json.dumps(a.sgd()))"]
    done = subprocess.run(
        words, cwd=HERE, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True
    )
    if done.returncode:
        return {"failed": done.stderr.splitlines()[-1:]}
    print("\n".join(done.stdout.splitlines()[:-1]))
    return json.loads(done.stdout.splitlines()[-1])


def flows():
    """Flows per second to tau = 0.035 at rtol 1e-6, by epsilon and solver."""
    found = {}
    for solver, (method, epsilons) in SOLVERS.items():
        run = jax.jit(jax.vmap(lambda p, e, m=method: _flow(p, e, m), in_axes=(0, None)))
        for epsilon in epsilons:
            for count in FLOWS:
                name = f"{solver}, epsilon {epsilon:g}, {count} runs"
                found[name] = _attempt(lambda r=run, c=count, e=epsilon: _flows(r, c, e))
                print(f"  {name}: {_shown(found[name], 'flows_per_second')}", flush=True)
                if "failed" in found[name] or 10 * found[name]["seconds"] > PATIENCE:
                    break
    return found


def _flows(run, count, epsilon):
    row, (risk, steps, status) = measured(run, starts(count)[0], jnp.asarray(epsilon))
    return row | {
        "flows_per_second": count / row["seconds"],
        "efficiency": float(jnp.mean(steps) / jnp.max(steps)),
        "ended_badly": int(jnp.sum(status != 0)),
        "median_risk": float(jnp.median(risk)),
    }


def _flow(params, epsilon, method):
    flow = tts.GradientFlow(epsilon, rtol=1e-6, atol=1e-8, solver=method)
    run = tts.simulate(PROBLEM, flow, params, TAUS, throw=False)
    return run.risk[-1], run.stats["steps"], run.status


def equal():
    """Largest differences to the CPU on fresh starts, against the tolerance stated for each."""
    seed = int(time.time())
    params = starts(8, seed=seed)[0]
    x = jax.random.uniform(jax.random.key(seed), (8, 1000))
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    sgd = tts.SGD(1e-2, 1e-5)

    def by(how):
        return lambda p: tts.simulate(PROBLEM, how, p, TAUS, throw=False).params

    def replay(p, x):
        taus = jnp.array([1e-7 * 1000])
        samples = (x, jnp.zeros(1000))
        return tts.simulate(PROBLEM, sgd, p, taus, samples=samples, throw=False).params

    cases = {
        # name: function, arguments, tolerance of u, and of a
        "risk": (PROBLEM.risk, (params,), 1e-12, 1e-12),
        "limit flow": (by(tts.LimitFlow()), (params,), 1e-13, 1e-11),
        "reduced flow": (by(tts.ReducedFlow(rtol=1e-8)), (params,), 1e-6, 1e-3),
        **{
            f"flow, {e:g}": (by(tts.GradientFlow(e, rtol=1e-8)), (params,), 1e-7, 1e-4)
            for e in EPSILONS
        },
        "SGD, replayed": (replay, (params, x), 1e-14, 1e-12),
        "SGD, replayed, float32": (replay, (single, x.astype(jnp.float32)), 1e-6, 1e-5),
    }
    found = {}
    cpu = jax.devices("cpu")[0]
    for name, (function, arguments, *tolerance) in cases.items():
        run = jax.jit(jax.vmap(function))
        here = jax.tree.leaves(run(*jax.device_put(arguments, jax.devices()[0])))
        there = jax.tree.leaves(run(*jax.device_put(arguments, cpu)))
        apart = [
            float(np.nanmax(np.abs(np.asarray(h) - np.asarray(t))))
            for h, t in zip(here, there, strict=True)
        ]
        met = all(d <= t for d, t in zip(apart[::-1], tolerance, strict=False))
        found[name] = {
            "a, u apart": apart,
            "tolerances of u, a": tolerance,
            "met": met,
            "seed": seed,
        }
        print(f"  {name}: {', '.join(f'{d:.1e}' for d in apart)}, {'met' if met else 'MISSED'}")
    return found


def _attempt(run):
    """What it returns, or why it failed, such as by too little memory: the others go on."""
    try:
        return run()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}


def _shown(row, rate):
    if "failed" in row:
        return row["failed"]
    memory = f", {row['peak_bytes'] / 1e9:.2f} GB" if row["peak_bytes"] else ""
    return f"{row[rate]:.3g} a second, first result after {row['first']:.1f} s{memory}"


PARTS = {"sgd": sgd, "loops": loops, "flows": flows, "equal": equal}

if __name__ == "__main__":
    main("rehearsal" if REHEARSAL else "accelerator", PARTS)
