"""What an accelerator does: SGD and flows in large batches, beside their peers; and whether it
agrees with the CPU.

    python benchmarks/accelerator.py [PART ...]

Parts: sgd, hand, loops, command_buffers, flows, lanes, sweep, solvers, equal; all by default.
`hand` needs CuPy.
On a CPU it is a rehearsal in small batches, whose numbers say nothing of an accelerator. Float32
products are taken at the highest precision, so that none is TF32. With SECONDS=200 in the
environment what would begin later is left out. Every row goes to
benchmarks/results/accelerator.json (rehearsal.json on a CPU) at once, with the device named.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from parts import main

import tts_jax as tts
from tts_jax.dynamics.sgd import gpu as sgd_kernel
from tts_jax.integrators import lane_queue as queue

# Processes of this benchmark share the accelerator.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
tts.configure()
jax.config.update("jax_default_matmul_precision", "highest")

HERE = Path(__file__).parent
REHEARSAL = jax.default_backend() == "cpu"
BEGAN, SECONDS = time.monotonic(), float(os.environ.get("SECONDS", "inf"))
BATCHES = (64,) if REHEARSAL else (1_000_000, 100_000, 10_000, 1_000)
FLOWS = (16,) if REHEARSAL else (100_000, 10_000, 1_000)
LANES = (16_384, 32_768, 131_072)
PATIENCE = 1.0 if REHEARSAL else 10.0
"""Seconds that the next larger batch of a peer may be expected to take."""
EPSILONS = (1.0, 1e-2, 1e-4, 1e-6)
WHILE = "--xla_gpu_enable_command_buffer=+WHILE"
PROBLEM = tts.Problem(
    tts.ShallowNetwork(tts.CubicStep(eta=4e-3)),
    tts.PiecewiseConstant([0.2, 0.35, 0.5, 0.65, 0.8], [1.0, 5.0, 1.0, 3.0, 1.0, 5.0]),
)
TAUS = jnp.linspace(0.0, 0.035, 11)
DTYPES = (jnp.float32, jnp.float64)
SOLVERS = {
    "Rodas5P by diffrax": tts.Rodas5P(),
    "Tsit5 by diffrax": diffrax.Tsit5(),
    "Kvaerno5 by diffrax": tts.stiff_solver(),
}


def starts(count, dtype=jnp.float64, seed=0):
    """Fresh random starts, one for each run."""
    keys = jax.random.split(jax.random.key(seed), count)
    params = jax.vmap(lambda key: tts.init_uniform(key, 20))(keys)
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params), keys


def measured(function, *arguments):
    """Seconds of the first call and of the next one, and the most memory, in bytes."""
    first, _ = _once(function, *arguments)
    again, out = _once(function, *arguments)
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {"first": first, "seconds": again, "peak_bytes": memory}, out


def _once(function, *arguments):
    began = time.perf_counter()
    out = jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began, out


def row(name, run, rate):
    """(name, what `run` returns, or why it failed, or that there was no time); printed."""
    if time.monotonic() - BEGAN > SECONDS:
        found = {"left out": f"after {SECONDS:g} s"}
    else:
        try:
            found = run()
        except Exception as error:  # such as too little memory: the others go on
            words = str(error).splitlines() or [""]
            found = {"failed": f"{type(error).__name__}: {words[0][:200]}"}
    print(f"  {name}: {_shown(found, rate)}", flush=True)
    return name, found


def _shown(found, rate):
    if rate not in found:
        return ", ".join(f"{key}: {value}" for key, value in found.items())
    more = [f"first result after {found['first']:.1f} s"] if "first" in found else []
    if found.get("peak_bytes"):
        more.append(f"{found['peak_bytes'] / 1e9:.2f} GB so far")
    return ", ".join([f"{found[rate]:.3g} a second", *more])


def sgd():
    """Steps of SGD per second, all runs together, by `jax.vmap` of `simulate`."""
    for count in BATCHES:
        for dtype in DTYPES:
            name = f"{jnp.dtype(dtype).name}, {count} runs"
            yield row(name, lambda c=count, d=dtype: _sgd(c, d, 2e10), "steps_per_second")


def hand():
    """The same by a kernel that is written by hand, in CUDA C."""

    def run(count, dtype):
        import cupy
        from cuda_sgd import HandWritten

        params, keys = starts(count, dtype)
        kernel, steps = HandWritten(PROBLEM, 20, dtype), _steps(count, 2e10)
        state = np.concatenate([params.a, params.u], axis=1).T
        state = cupy.asarray(np.ascontiguousarray(state))
        seeds = jax.vmap(lambda key: jax.random.bits(key, (2,), jnp.uint32))(keys)
        seeds = cupy.asarray(np.ascontiguousarray(seeds.T))

        def go():
            kernel.run(state, seeds, steps, 1e-5, 1e-2, 1.0)

        first, again = _once(go)[0], _once(go)[0]
        return {"first": first, "seconds": again, "steps_per_second": count * steps / again}

    for count in BATCHES:
        for dtype in DTYPES:
            name = f"{jnp.dtype(dtype).name}, {count} runs"
            yield row(name, lambda c=count, d=dtype: run(c, d), "steps_per_second")


def loops():
    """The same by loops of XLA, without the kernel."""
    before, sgd_kernel.LONGEST = sgd_kernel.LONGEST, 0
    jax.clear_caches()
    try:
        for count in BATCHES:
            for dtype in DTYPES:
                name = f"{jnp.dtype(dtype).name}, {count} runs"
                yield row(name, lambda c=count, d=dtype: _sgd(c, d, 1e9), "steps_per_second")
    finally:
        sgd_kernel.LONGEST = before
        jax.clear_caches()


def command_buffers():
    """`loops` with XLA's loops in command buffers, in a process of its own."""
    flags = f"{os.environ['XLA_FLAGS']} {WHILE}"
    words = [sys.executable, "-c", "import json, accelerator as a; print(json.dumps([*a.loops()]))"]
    done = subprocess.run(
        words, cwd=HERE, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True
    )
    if done.returncode:
        yield "failed", done.stderr.splitlines()[-1:]
        return
    print("\n".join(done.stdout.splitlines()[:-1]))
    yield from json.loads(done.stdout.splitlines()[-1])


def _steps(count, work):
    """Steps of each run, so that all runs together take about `work`."""
    return 2_000 if REHEARSAL else int(np.clip(work / count, 5_000, 200_000))


def _sgd(count, dtype, work):
    params, keys = starts(count, dtype)
    steps = _steps(count, work)
    how, taus = tts.SGD(1e-2, 1e-5, noise=1.0), jnp.array([1e-7 * steps])

    @jax.jit
    def run(params, keys):
        def one(params, key):
            return tts.simulate(PROBLEM, how, params, taus, key=key, throw=False).risk[-1]

        return jax.vmap(one)(params, keys)

    found = measured(run, params, keys)[0]
    return found | {"steps_per_second": count * steps / found["seconds"]}


def flows():
    """Flows per second to tau = 0.035 at rtol 1e-6: a grid of all epsilon, then of each alone."""
    run = jax.jit(jax.vmap(lambda p, e: _flow(p, e, None)))
    for count in FLOWS:
        for name, epsilons in {"all": EPSILONS, **{f"{e:g}": (e,) for e in EPSILONS}}.items():
            every = jnp.resize(jnp.asarray(epsilons), count)
            yield row(
                f"epsilon {name}, {count} runs",
                lambda c=count, e=every, twice=name == "all": _flows(run, c, e, twice),
                "flows_per_second",
            )


def lanes():
    """All epsilon at once, as in `flows`, by other numbers of lanes than the package has."""
    before = queue.LANES
    try:
        for queue.LANES in LANES:
            jax.clear_caches()
            run = jax.jit(jax.vmap(lambda p, e: _flow(p, e, None)))
            every = jnp.resize(jnp.asarray(EPSILONS), FLOWS[0])
            name = f"{FLOWS[0]} runs in {queue.LANES} lanes"
            yield row(name, lambda r=run, e=every: _flows(r, FLOWS[0], e), "flows_per_second")
    finally:
        queue.LANES = before
        jax.clear_caches()


def sweep():
    """The same flows by `tts.sweep`, from the grid to the last byte in the store."""

    def run():
        grid = {"epsilon": EPSILONS, "seed": range(FLOWS[0] // len(EPSILONS)), "width": 20}
        how = tts.GradientFlow(1.0, rtol=1e-6, atol=1e-8)
        with tempfile.TemporaryDirectory() as folder:
            seconds, data = _once(
                lambda: tts.sweep(PROBLEM, how, grid, np.asarray(TAUS), store=f"{folder}/s.zarr")
            )
            bad = int((data.status != 0).sum())
        return {"first": seconds, "flows_per_second": FLOWS[0] / seconds, "ended_badly": bad}

    yield row(f"{FLOWS[0]} runs", run, "flows_per_second")


def solvers():
    """The same by solvers of diffrax, all runs of a batch going on until the last has ended."""
    for solver, method in SOLVERS.items():
        run = jax.jit(jax.vmap(lambda p, e, m=method: _flow(p, e, m), in_axes=(0, None)))
        for epsilon in EPSILONS[:2] if "Tsit5" in solver else EPSILONS:
            for count in FLOWS[::-1]:
                name = f"{solver}, epsilon {epsilon:g}, {count} runs"
                found = row(
                    name,
                    lambda r=run, c=count, e=epsilon: _flows(r, c, jnp.asarray(e)),
                    "flows_per_second",
                )
                yield found
                if 10 * found[1].get("seconds", np.inf) > PATIENCE:
                    break


def _flows(run, count, epsilon, twice=True):
    params = starts(count)[0]
    if twice:
        found, (risk, steps, status) = measured(run, params, epsilon)
    else:  # it is compiled
        seconds, (risk, steps, status) = _once(run, params, epsilon)
        found = {"seconds": seconds}
    return found | {
        "flows_per_second": count / found["seconds"],
        "mean_steps": float(jnp.mean(steps)),
        "most_steps": int(jnp.max(steps)),
        "ended_badly": int(jnp.sum(status != 0)),
        "median_risk": float(jnp.median(risk)),
    }


def _flow(params, epsilon, method):
    flow = tts.GradientFlow(epsilon, rtol=1e-6, atol=1e-8, solver=method)
    run = tts.simulate(PROBLEM, flow, params, TAUS, throw=False)
    return run.risk[-1], run.stats["steps"], run.status


def cases(seed):
    """name: function, arguments of 32 runs, tolerance of u, and of a."""
    params = starts(32, seed=seed)[0]
    epsilons = jnp.resize(jnp.asarray(EPSILONS), 32)
    x = jax.random.uniform(jax.random.key(seed), (32, 1000))
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)

    def by(how, params):
        return tts.simulate(PROBLEM, how, params, TAUS, throw=False).params

    def replay(params, x):
        taus, samples = jnp.array([1e-7 * 1000]), (x, jnp.zeros(1000))
        how = tts.SGD(1e-2, 1e-5)
        return tts.simulate(PROBLEM, how, params, taus, samples=samples, throw=False).params

    def flow(params, epsilon):
        return by(tts.GradientFlow(epsilon, rtol=1e-8), params)

    return {
        "SGD, replayed": (replay, (params, x), 1e-14, 1e-12),
        "SGD, replayed, float32": (replay, (single, x.astype(jnp.float32)), 1e-6, 1e-5),
        "limit flow": (lambda p: by(tts.LimitFlow(), p), (params,), 1e-13, 1e-11),
        "flows, all epsilon": (flow, (params, epsilons), 1e-7, 1e-4),
        "reduced flow": (lambda p: by(tts.ReducedFlow(rtol=1e-8), p), (params,), 1e-6, 1e-3),
    }


def computed(seed):
    """The results of each case, when they are asked for, as a list of arrays."""
    for name, (function, arguments, *_) in cases(seed).items():
        yield name, lambda f=function, a=arguments: jax.tree.leaves(jax.jit(jax.vmap(f))(*a))


def by_cpu(seed, file):
    """Keep them in a file. For a process that has no accelerator: what is traced depends on it."""
    results = {f"{name} {i}": v for name, run in computed(seed) for i, v in enumerate(run())}
    np.savez(file, **results)


def equal():
    """Largest differences to the CPU on fresh starts, against the tolerance stated for each."""
    seed = int(time.time())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cpu.npz"
        words = [sys.executable, "-c", f"import accelerator as a; a.by_cpu({seed}, {str(file)!r})"]
        subprocess.run(words, cwd=HERE, env={**os.environ, "JAX_PLATFORMS": "cpu"}, check=True)
        expected = dict(np.load(file))
    tolerances = {name: case[2:] for name, case in cases(seed).items()}
    for name, run in computed(seed):
        wanted = [expected[f"{name} {i}"] for i in range(2)]
        yield row(name, lambda r=run, w=wanted, t=tolerances[name]: _apart(r(), w, t, seed), "")


def _apart(found, wanted, tolerance, seed):
    found = [np.asarray(v) for v in found]
    apart = [float(np.nanmax(np.abs(f - w))) for f, w in zip(found, wanted, strict=True)]
    same = [np.array_equal(np.isnan(f), np.isnan(w)) for f, w in zip(found, wanted, strict=True)]
    met = all(same) and all(d <= t for d, t in zip(apart[::-1], tolerance, strict=True))
    return {"a, u apart": apart, "tolerances of u, a": tolerance, "met": met, "seed": seed}


PARTS = {
    part.__name__: part
    for part in (sgd, hand, loops, command_buffers, flows, lanes, sweep, solvers, equal)
}

if __name__ == "__main__":
    main("rehearsal" if REHEARSAL else "accelerator", PARTS)
