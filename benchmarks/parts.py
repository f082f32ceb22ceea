"""What the benchmarks share: parts to choose from, times, and results kept as JSON."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax

RESULTS = Path(__file__).resolve().parent / "results"


def once(run):
    """Seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def timed(run, repeats=5):
    """Seconds of a warm call, the median of at least so many, and of a fifth of a second of them.

    The first few milliseconds after other work are slow, whatever is run.
    """
    run()
    found = []
    while len(found) < repeats or sum(found) < 0.2:
        found.append(once(run))
    return statistics.median(found)


def main(name, parts):
    """Run the parts named on the command line, all by default; keep what they return in NAME.json.

    Each part is a function whose docstring says what it measures. One that yields (row, value) has
    every row kept at once.
    """
    wanted = sys.argv[1:] or list(parts)
    unknown = set(wanted) - set(parts)
    if unknown:
        sys.exit(f"Unknown part {sorted(unknown)}. There are: {', '.join(parts)}.")
    file = RESULTS / f"{name}.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "devices": [device.device_kind for device in jax.devices()],
    }
    for part in wanted:
        print(f"# {part}: {parts[part].__doc__}", flush=True)
        found = parts[part]()
        rows = {}
        for row, value in found if isinstance(found, Iterator) else ():
            rows[row] = value
            _keep(file, kept | {part: rows})
        kept[part] = rows if isinstance(found, Iterator) else found
        _keep(file, kept)


def _keep(file, kept):
    RESULTS.mkdir(exist_ok=True)
    half = file.with_suffix(".part")
    half.write_text(json.dumps(kept, indent=1))
    half.replace(file)
