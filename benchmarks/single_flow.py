"""One flow: time against achieved error, for every method. The part `single` of flows.py."""

import statistics
import time
from pathlib import Path

from flow_peers import HORIZONS, PEERS, by_scipy, by_us, error_of, stacked, start
from parts import once, timed

HERE = Path(__file__).parent
TARGETS = (1e-6, 1e-8)
GRID = tuple(10.0 ** (-k / 3) for k in range(12, 34))
PLAIN = ("LSODA", "BDF", "Radau")
PATIENCE = 3.0
"""Seconds: a peer that took longer is not asked for a tighter tolerance."""


def single():
    """One run, m = 20: time against achieved error, for every method."""
    first, found = start(), []
    for peer in PEERS:  # Numba compiles, which is not to count as patience
        by_scipy(peer, 1.0, 1e-2, first)
    for epsilon in HORIZONS:
        reference = by_scipy("Radau", epsilon, 1e-12, first)
        ours = by_us(epsilon, 1e-12, first)
        check = error_of(stacked(ours), reference)
        print(f"epsilon {epsilon:g}: ours at rtol 1e-12 differs from the reference by {check:.1e}")
        methods = ("tts_jax", *PEERS)
        late = set()
        for rtol in GRID:
            for method in methods:
                if method in late:
                    continue
                if method == "tts_jax":
                    trajectory = by_us(epsilon, rtol, first)
                    states = stacked(trajectory)
                    stats = {name: int(value) for name, value in trajectory.stats.items()}

                    def run(epsilon=epsilon, rtol=rtol):
                        by_us(epsilon, rtol, first)
                else:
                    began = time.perf_counter()
                    states, stats = by_scipy(method, epsilon, rtol, first), {}
                    if time.perf_counter() - began > PATIENCE:
                        late.add(method)

                    def run(method=method, epsilon=epsilon, rtol=rtol):
                        by_scipy(method, epsilon, rtol, first)

                slow = method in late
                seconds = time.perf_counter() - began if slow else timed(run)
                row = {"epsilon": epsilon, "method": method, "rtol": rtol, "seconds": seconds}
                found.append({**row, "error": error_of(states, reference), **stats})
    draw(found)
    return {"all": found, "side by side": table(found, first)}


def cheapest(found, epsilon, methods, target):
    rows = [
        row
        for row in found
        if row["epsilon"] == epsilon and row["method"] in methods and row["error"] <= target
    ]
    return min(rows, key=lambda row: row["seconds"], default=None)


def table(found, first):
    """The cheapest runs that reach an error, timed once more, in turn; what is printed is kept."""
    kept = []
    for epsilon in HORIZONS:
        for target in TARGETS:
            names = {"ours": ("tts_jax",), "peer": PLAIN, "by pairs": ("LSODA by pairs",)}
            rows = {name: cheapest(found, epsilon, those, target) for name, those in names.items()}
            reached = {name: row for name, row in rows.items() if row is not None}
            seconds = alternately({name: again(row, first) for name, row in reached.items()})
            line = f"epsilon {epsilon:g}, error {target:g}:"
            for name, row in rows.items():
                if row is None:
                    line += f" {', '.join(names[name])} did not reach it;"
                    continue
                line += f" {row['method']} {1e3 * seconds[name]:.2f} ms"
                if name == "ours":
                    line += f", {row['steps']} steps, {row['rejected']} rejected;"
                elif "ours" in seconds:
                    line += f", {seconds[name] / seconds['ours']:.1f} times;"
            print(line.rstrip(";"))
            kept.append({"epsilon": epsilon, "error": target, "seconds": seconds, "rows": reached})
    return kept


def again(row, first):
    epsilon, rtol = row["epsilon"], row["rtol"]
    if row["method"] == "tts_jax":
        return lambda: by_us(epsilon, rtol, first)
    return lambda: by_scipy(row["method"], epsilon, rtol, first)


def alternately(runs, rounds=15):
    """Medians of seconds: each a tenth of a second and twice or more, in turn, so that what else
    the machine does slows all of them. The first call after other work does not count."""
    found = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times = [once(run), once(run)]
            while sum(times) < 0.1:
                times.append(once(run))
            found[name] += times[1:]
    return {name: statistics.median(times) for name, times in found.items()}


def draw(found):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), sharey=True, layout="constrained")
    styles = {
        "tts_jax": ("#0072B2", "o", "-"),
        "LSODA": ("#D55E00", "s", "--"),
        "BDF": ("#009E73", "^", ":"),
        "Radau": ("#CC79A7", "v", "-."),
        "LSODA by pairs": ("#E69F00", "D", (0, (5, 1, 1, 1, 1, 1))),
    }
    for ax, epsilon in zip(axes, HORIZONS, strict=True):
        for method, (colour, marker, line) in styles.items():
            rows = [r for r in found if r["epsilon"] == epsilon and r["method"] == method]
            rows = [r for r in rows if r["error"] < 1e-2]
            ax.loglog(
                [r["error"] for r in rows],
                [1e3 * r["seconds"] for r in rows],
                color=colour,
                marker=marker,
                linestyle=line,
                markersize=4,
                label=method if method == "tts_jax" else f"SciPy {method}",
            )
        ax.set_title(rf"$\epsilon$ = {epsilon:g}, $\tau$ to {HORIZONS[epsilon]:g}")
        ax.set_xlabel("achieved error")
        ax.invert_xaxis()
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("time of one run, ms")
    axes[0].legend(fontsize=8)
    figure.savefig(HERE.parent / "docs" / "work-precision.png", dpi=150)
