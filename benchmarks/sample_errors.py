"""Achieved errors of flows of random networks. The part `errors` of sample_flows.py."""

import jax
import numpy as np
from sample_cases import Case, two_layer

import tts_jax as tts

KINDS = {"tanh": tts.Tanh, "erf": tts.Erf}
SIZES, EACH = 25, 2
"""Sizes of a kind, drawn at random, and networks of each: a new size compiles for seconds."""


def errors():
    """Achieved error over rtol of 50 random networks of each kind, against rtol 1e-11."""
    for kind, activation in KINDS.items():
        random = np.random.default_rng(0)
        network, found = tts.TwoLayerNetwork(activation()), []
        for index in range(SIZES):
            width, inputs = int(random.integers(5, 61)), int(random.integers(2, 11))
            count = int(random.integers(100, 501))
            functions = two_layer(
                *(width, inputs, count, network),
                jax.random.split(jax.random.key(1000 + index), 4),
            )
            for _ in range(EACH):
                epsilon, rtol = 10.0 ** random.uniform(-6, 0), 10.0 ** random.uniform(-8, -3)
                case = Case(functions, epsilon)
                states, counts = case.states_of(case.package(rtol))
                error = case.error(states)
                name = f"m = {width}, d = {inputs}, N = {count}, epsilon = {epsilon:.2g}"
                found.append(
                    {"name": name, "rtol": rtol, "error": error, "times": error / rtol, **counts}
                )
                times, status = error / rtol, counts["status"]
                print(
                    f"{kind}, {name}, rtol {rtol:.1e}: {times:.2f} times rtol, "
                    f"{counts['gradients']} gradients, {status}",
                    flush=True,
                )
        yield kind, summary(kind, found)


def summary(kind, found):
    times = np.array([run["times"] for run in found])
    worst = found[int(np.argmax(times))]
    quartiles = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
    failed = sum(run["status"] != "OK" for run in found)
    print(
        f"{kind}: error over rtol, quartiles {', '.join(f'{q:.2f}' for q in quartiles)}, "
        f"largest {times.max():.1f} ({worst['name']}, rtol {worst['rtol']:.1e}); "
        f"{(times > 20).sum()} of {len(found)} above 20; {failed} failed",
        flush=True,
    )
    return {
        "quartiles": quartiles,
        "largest": float(times.max()),
        "worst": worst,
        "above 20": int((times > 20).sum()),
        "failed": failed,
        "runs": found,
    }
