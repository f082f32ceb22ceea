"""Flows, SGD and sweeps of another commit and of this working tree, side by side.

    python benchmarks/before_after.py COMMIT [ROUNDS]

Both in fresh processes, in turn, so that what else a machine does counts for both alike; of each
case the least of all rounds, 3 by default, each the median of warm calls. Prints milliseconds and
the ratio, after over before. Cases that the other commit cannot run are left out.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CASES = """
import json, sys
sys.path.insert(0, sys.argv[1])
import jax, jax.numpy as jnp
from parts import timed
import tts_jax as tts
tts.configure()
network = tts.ShallowNetwork(tts.CubicStep(eta=4e-3))
target = tts.PiecewiseConstant([.2, .35, .5, .65, .8], [1., 5., 1., 3., 1., 5.])
problem, key = tts.Problem(network, target), jax.random.key(0)

def run(dynamics, width=20, horizon=.035, count=101, **options):
    start = tts.init_uniform(key, width)
    taus = jnp.linspace(0., horizon, count)
    return lambda: jax.block_until_ready(tts.simulate(problem, dynamics, start, taus, **options))

def many(dynamics, count, horizon=.035, **options):
    starts = jax.vmap(lambda k: tts.init_uniform(k, 20))(jax.random.split(key, count))
    taus = jnp.linspace(0., horizon, 101)
    one = jax.jit(jax.vmap(lambda s, k: tts.simulate(problem, dynamics, s, taus, key=k)))
    return lambda: jax.block_until_ready(one(starts, jax.random.split(key, count)))

def gradient():
    start, taus = tts.init_uniform(key, 20), jnp.linspace(0., .01, 11)
    run = lambda u: tts.simulate(problem, tts.GradientFlow(1e-2), start._replace(u=u), taus)
    slope = jax.jit(jax.grad(lambda u: run(u).risk[-1]))
    return lambda: jax.block_until_ready(slope(start.u))

def sweep():
    grid = {"epsilon": [1e-2, 1e-3, 1e-4], "seed": range(8), "width": 20}
    return lambda: tts.sweep(problem, tts.GradientFlow(1e-2), grid, [0., .01])

cases = {
    "flow, epsilon 1": lambda: run(tts.GradientFlow(1.), horizon=1e-3),
    "flow, epsilon 1e-2": lambda: run(tts.GradientFlow(1e-2)),
    "flow, epsilon 2e-5": lambda: run(tts.GradientFlow(2e-5)),
    "reduced flow": lambda: run(tts.ReducedFlow()),
    "flow, width 80": lambda: run(tts.GradientFlow(2e-5), 80),
    "flow, width 320": lambda: run(tts.GradientFlow(2e-5), 320),
    "16 flows": lambda: many(tts.GradientFlow(2e-5), 16),
    "gradient of a flow": gradient,
    "SGD, 20 000 steps": lambda: run(tts.SGD(1e-2, 1e-4), horizon=.02, key=key),
    "SGD, batches of 8": lambda: run(tts.SGD(1e-2, 1e-4, batch_size=8), horizon=.02, key=key),
    "64 runs of SGD": lambda: many(tts.SGD(1e-2, 1e-4), 64, horizon=.02),
    "sweep of 24 flows": sweep,
}
found = {}
for name, make in cases.items():
    try:
        found[name] = 1e3 * timed(make())
    except Exception as error:
        print(f"{name}: {error!r:.200}", file=sys.stderr)
print(json.dumps(found))
"""


def measured(source):
    """Milliseconds of each case that runs, with the package in this folder."""
    command = [sys.executable, "-W", "ignore", "-c", CASES, str(ROOT / "benchmarks")]
    environment = {"PYTHONPATH": str(source), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main(commit, rounds=3):
    """Measure both and print a row for each case."""
    before, after = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            for _ in range(int(rounds)):
                for kept, source in ((before, tree / "src"), (after, ROOT / "src")):
                    for name, value in measured(source).items():
                        kept[name] = min(value, kept.get(name, value))
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    print(f"{'':24}{'before':>10}{'after':>10}{'ratio':>8}")
    for name in after:
        if name in before:
            ratio = after[name] / before[name]
            print(f"{name:24}{before[name]:10.2f}{after[name]:10.2f}{ratio:8.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
