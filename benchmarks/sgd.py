"""Nanoseconds of SGD per step and run, against loops written by hand for NumPy and Numba.

    python benchmarks/sgd.py [PART ...]

Parts: one, batch, cores, options, draws, exact, fixed, flags; all by default. The problem of the
paper, 20 neurons, samples drawn, risk recorded at the end. Peers run in this process, side by side,
all on one core except where it says so; the median of warm runs. What was measured goes to
benchmarks/results/sgd.json. Needs the extra `bench`.
"""

import os
import statistics
import subprocess
import sys

CORES = os.sched_getaffinity(0)
if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(CORES)[:1])

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from compiled_sgd import numpy_loop, scalar_loop, vector_loop  # noqa: E402
from parts import main, timed  # noqa: E402

import tts_jax as tts  # noqa: E402
from tts_jax.configuration import SMALL_LOOPS, WIDE_VECTORS  # noqa: E402
from tts_jax.dynamics.sgd.samples import Hashed  # noqa: E402

tts.configure()

JUMPS, VALUES = np.array([0.2, 0.35, 0.5, 0.65, 0.8]), np.array([1.0, 5.0, 1.0, 3.0, 1.0, 5.0])
ETA, WIDTH, EPSILON, STEP, NOISE = 4e-3, 20, 1e-2, 1e-5, 1.0
PROBLEM = tts.Problem(
    tts.ShallowNetwork(tts.CubicStep(eta=ETA)), tts.PiecewiseConstant(JUMPS, VALUES)
)
SGD = tts.SGD(EPSILON, STEP, noise=NOISE)
DTYPES = (np.float64, np.float32)
BATCHES = (16, 64, 256, 4096)


def start(dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tts.init_uniform(jax.random.key(0), WIDTH))


def until(steps):
    return jnp.array([steps * EPSILON * STEP])


def report(what, found):
    row = ", ".join(f"{name} {value:.1f}" for name, value in found.items())
    print(f"{what}: {row}", flush=True)
    return found


def alone(steps, dtype, how=SGD):
    """Nanoseconds a step of one run of ours."""
    begin, taus, key = start(dtype), until(steps), jax.random.key(1)

    def run():
        return jax.block_until_ready(tts.simulate(PROBLEM, how, begin, taus, key=key))

    return 1e9 * timed(run, 3) / steps


def together(runs, steps, dtype, mapped=None, how=SGD):
    """Nanoseconds a step and run of ours, many runs in a call."""
    begin, taus = start(dtype), until(steps)

    def one(key):
        return tts.simulate(PROBLEM, how, begin, taus, key=key, throw=False)

    call = jax.jit(jax.vmap(one)) if mapped is None else mapped(one)
    keys = jax.random.split(jax.random.key(1), runs)
    return 1e9 * timed(lambda: jax.block_until_ready(call(keys)), 3) / (runs * steps)


def scalar(steps):
    """Nanoseconds a step of the compiled scalar loop."""
    a, u = (np.array(half) for half in start(np.float64))
    numbers = (ETA, JUMPS, VALUES, STEP, EPSILON * STEP, NOISE)
    return 1e9 * timed(lambda: scalar_loop(a, u, *numbers, steps, 1), 3) / steps


def vectors(runs, steps, dtype):
    """Nanoseconds a step and run of the compiled loop with runs side by side, the best of three."""
    begin = start(dtype)
    numbers = (ETA, JUMPS.astype(dtype), VALUES.astype(dtype), STEP, EPSILON * STEP, NOISE)
    seconds = []
    for lanes in (16, 32, 64):
        if lanes <= runs:
            loop = vector_loop(dtype, lanes)
            a, u = (np.repeat(np.asarray(half)[:, None], runs, axis=1) for half in begin)

            def run(loop=loop, a=a, u=u):
                return loop(a, u, *numbers, steps, 1)

            seconds.append(timed(run, 3))
    return 1e9 * min(seconds) / (runs * steps)


def one():
    """One run, ns a step: ours, the compiled scalar loop, the NumPy loop."""
    a, u = (np.array(half) for half in start(np.float64))
    steps = 20_000
    slow = timed(
        lambda: numpy_loop(a, u, ETA, JUMPS, VALUES, STEP, EPSILON * STEP, NOISE, steps, 1), 1
    )
    found = {
        "ours, float64": alone(4_000_000, np.float64),
        "ours, float32": alone(4_000_000, np.float32),
        "Numba, scalar": scalar(4_000_000),
        "NumPy": 1e9 * slow / steps,
    }
    report("ns a step", found)
    report("million steps a second", {name: 1e3 / value for name, value in found.items()})
    return found


def batch():
    """Many runs in a call on one core, ns a step and run: ours, the compiled vector loop."""
    found = {}
    for runs in BATCHES:
        steps = min(2**27 // runs, 2**20)
        row = {}
        for dtype in DTYPES:
            row[f"ours, {dtype.__name__}"] = together(runs, steps, dtype)
            row[f"Numba, {dtype.__name__}"] = vectors(runs, steps, dtype)
        found[str(runs)] = report(f"{runs} runs", row)
    return found


def elsewhere(code, *, cores=None, flags=None):
    """The numbers that some code prints in a process of its own, with this module as `sgd`."""
    pin = "" if cores is None else f"import os; os.sched_setaffinity(0, {cores})"
    done = subprocess.run(
        [sys.executable, "-c", f"{pin}\nimport sgd, tts_jax as tts\n{code}"],
        cwd=os.path.dirname(os.path.abspath(__file__)),
        env={**os.environ, "XLA_FLAGS": flags or ""},
        check=True,
        capture_output=True,
        text=True,
    )
    return [float(word) for word in done.stdout.split()]


def cores():
    """256 runs on one core by `jax.vmap`, and on all cores by `tts.map_runs`."""
    found = {}
    for dtype in DTYPES:
        name = dtype.__name__
        code = f"print(sgd.together(256, 65_536, sgd.np.{name}, tts.map_runs))"
        found[f"one, {name}"] = together(256, 65_536, dtype)
        found[f"{len(CORES)}, {name}"] = elsewhere(code, cores=CORES)[0]
    return report("ns a step and run", found)


def options():
    """What other settings cost, ns a step: one run, and 64 runs side by side."""
    label = tts.Params("a", "u")
    rates = {"a": optax.sgd(STEP), "u": optax.sgd(STEP * EPSILON)}
    falling = optax.exponential_decay(STEP, 1_000_000, 0.5)
    settings = {
        "plain": SGD,
        "without noise": tts.SGD(EPSILON, STEP),
        "box": tts.SGD(EPSILON, STEP, noise=NOISE, gradient="box"),
        "minibatch of 8": tts.SGD(EPSILON, STEP, noise=NOISE, batch_size=8),
        "optax, two rates": tts.SGD(
            EPSILON, STEP, noise=NOISE, optimiser=optax.partition(rates, label)
        ),
        "optax, schedules": tts.SGD(
            EPSILON,
            STEP,
            noise=NOISE,
            optimiser=optax.partition(
                {"a": optax.sgd(falling), "u": optax.sgd(lambda n: EPSILON * falling(n))}, label
            ),
        ),
        "optax, Adam on a": tts.SGD(
            EPSILON,
            STEP,
            noise=NOISE,
            optimiser=optax.partition({**rates, "a": optax.adam(1e-4)}, label),
        ),
    }
    found = {}
    for name, how in settings.items():
        row = {
            "one": alone(2_000_000, np.float64, how),
            "of 64": together(64, 16_384, np.float64, how=how),
        }
        found[name] = report(name, row)
    return found


def draws():
    """The share of the samples in a step of 64 runs: the loop without its updates."""
    found = {}
    for dtype in DTYPES:
        runs, chunks = 64, 64

        @jax.jit
        def total(seeds, dtype=dtype, chunks=chunks):
            source = Hashed(seeds, jnp.asarray(NOISE), size=1, dtype=np.dtype(dtype))

            def more(number, sums):
                x, y = source.chunk(PROBLEM, number)
                # Added in the loop that a run would have, so that they are made as for a run.
                return jax.lax.fori_loop(0, source.length, lambda i, s: s + x[i] + y[i], sums)

            return jax.lax.fori_loop(0, chunks, more, jnp.zeros((1, seeds.shape[1]), dtype))

        seeds = jax.random.bits(jax.random.key(0), (2, 32), jnp.uint32)
        seconds = timed(lambda: jax.block_until_ready(total(seeds)))  # noqa: B023
        made = 1e9 * seconds / (32 * chunks * 4096)
        whole = together(runs, 65_536, dtype)
        row = {"samples": made, "whole": whole, "percent": 100 * made / whole}
        found[dtype.__name__] = report(f"{dtype.__name__}, ns a step and run", row)
    return found


def fixed():
    """Microseconds of a record of one run, and of a run of 256 besides its steps."""
    taus, begin, key = until(100), start(np.float64), jax.random.key(1)
    times = []
    for count in (1, 101):
        some = jnp.linspace(0.0, taus[-1], count + 1)[1:]
        times.append(
            timed(
                lambda some=some: jax.block_until_ready(
                    tts.simulate(PROBLEM, SGD, begin, some, key=key, throw=False)
                )
            )
        )
    short, long = (together(256, steps, np.float64) * steps for steps in (4096, 8192))
    return report(
        "microseconds",
        {"a record": 1e4 * (times[1] - times[0]), "a run": 1e-3 * (2 * short - long)},
    )


def exact():
    """The largest difference to plain loops on the same samples, 10 000 steps.

    To `jax.lax.scan` of the definition, with nothing filled up, cut into chunks or reordered; and
    to a loop in NumPy with derivatives by hand.
    """
    rng = np.random.default_rng(0)
    x, noise = rng.uniform(size=10_000), rng.uniform(-1, 1, 10_000)
    epsilon = 1e-3
    sgd, begin = tts.SGD(epsilon, STEP), start(np.float64)
    taus = jnp.array([10_000 * epsilon * STEP])
    ours = tts.simulate(PROBLEM, sgd, begin, taus, samples=(x, noise)).final

    def scanned(params, sample):
        one_x, extra = sample
        y = PROBLEM.target(one_x) + extra
        by_a, by_u = jax.grad(lambda p: (PROBLEM.network(p, one_x) - y) ** 2)(params)
        return tts.Params(params.a - STEP * by_a, params.u - STEP * epsilon * by_u), None

    plain, _ = jax.jit(lambda p, s: jax.lax.scan(scanned, p, s))(begin, (x, noise))
    a, u = (np.array(half) for half in begin)
    for one_x, extra in zip(x, noise, strict=True):
        z = np.clip((one_x - u) / ETA, -0.5, 0.5)
        b = np.abs(z)
        sigma, slope = 0.5 + z * (3 + b * (4 * b - 6)), 12 * (0.5 - b) ** 2
        r = a[0] + a[1:] @ sigma - VALUES[np.sum(one_x >= JUMPS)] - extra
        by_u = -2 * r * a[1:] * slope / ETA
        a = a - STEP * 2 * r * np.concatenate([[1.0], sigma])
        u = u - STEP * epsilon * by_u
    found = {
        "a from the scan": float(np.max(np.abs(ours.a - plain.a))),
        "u from the scan": float(np.max(np.abs(ours.u - plain.u))),
        "a from NumPy": float(np.max(np.abs(ours.a - a))),
        "u from NumPy": float(np.max(np.abs(ours.u - u))),
        "moved": float(np.max(np.abs(u - begin.u))),
    }
    print(", ".join(f"{name} {value:.1e}" for name, value in found.items()))
    return found


def flags():
    """Ours with and without XLA's flags, each in processes of its own, the median of three."""
    small, wide = SMALL_LOOPS, WIDE_VECTORS
    no_loops, no_width = f"{small.rpartition('=')[0]}=0", wide.replace("512", "256")
    settings = {
        "none": f"{no_loops} {no_width}",
        "small loops": f"{small} {no_width}",
        "both": f"{small} {wide}",
    }
    code = "print(sgd.alone(1_000_000, float), sgd.together(64, 16_384, float))"
    times = {name: [] for name in settings}
    for _ in range(3):
        for name, setting in settings.items():
            times[name].append(elsewhere(code, flags=setting))
    found = {}
    for name, rows in times.items():
        one_ns, many_ns = (statistics.median(column) for column in zip(*rows, strict=True))
        found[name] = report(name, {"one": one_ns, "of 64": many_ns})
    return found


PARTS = {
    "one": one,
    "batch": batch,
    "cores": cores,
    "options": options,
    "draws": draws,
    "exact": exact,
    "fixed": fixed,
    "flags": flags,
}

if __name__ == "__main__":
    main("sgd", PARTS)
