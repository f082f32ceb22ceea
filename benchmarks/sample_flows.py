"""Flows of networks on samples, by the package and by its peers, at equal achieved error.

    taskset -c 0 python benchmarks/sample_flows.py [PART ...]

Parts: small, middle, large (tanh networks of 140, 420 and 1200 parameters), kinds (ReLU and erf),
long (to tau = 100), wide (10 200 and 102 000 parameters), mlp, reduced, many (256 runs in one call:
on all cores, so without `taskset`), errors (of 50 random networks of each kind), counts, and plot,
which draws docs/work-precision-networks.png from what was measured; all by default. On one core,
since the cores of a machine that does other work wait for each other. What was measured goes to
benchmarks/results/sample_flows.json. Needs the extra `bench`.

The error is the larger of |L - L*|/(L* + 1e-3), the largest over eleven recorded times, and of the
root mean square difference of the networks on 1000 fresh inputs at these times; the reference is
the flow of the package at rtol 1e-11. Every side runs at the loosest of its tolerances that reaches
an error, and the runs are timed in turns. SciPy has the exact gradient and Jacobian, compiled by
JAX; see sample_peers.py. "Rosenbrock" is the package's method of Hessians.
"""

import json

import jax.numpy as jnp
from parts import RESULTS, main
from sample_cases import KEYS, Case, Functions, data_of, two_layer
from sample_errors import errors
from sample_many import many, reduced
from sample_peers import peers_of
from sample_plot import draw
from sample_times import compared, milliseconds

import tts_jax as tts

EPSILONS = (1.0, 1e-1, 1e-2, 1e-4, 1e-6)
SMALL, MIDDLE, LARGE = (20, 5, 500), (60, 5, 500), (100, 10, 1000)
"""Neurons, inputs, and samples."""


def measured(functions, size, epsilons, *, only=None, rosenbrock=False, patience=20.0, **options):
    """A row for each epsilon: the package and its peers, or those of a tuple `only`."""
    for epsilon in epsilons:
        case = Case(functions, epsilon, **options)
        peers, left_out = peers_of(case)
        if only is not None:
            peers, left_out = {name: peers[name] for name in only}, {}
        sides = {"tts_jax": case.package, **peers}
        if rosenbrock:
            sides["Rosenbrock"] = case.rosenbrock
        label = f"{size}, epsilon = {epsilon:g}"
        yield (
            label,
            compared(case, sides, left_out=left_out, patience=patience, label=label),
        )


def name_of(width, inputs, count):
    return f"m = {width}, d = {inputs}, N = {count}"


def small():
    """140 parameters: 20 neurons, 5 inputs, 500 samples."""
    yield from measured(two_layer(*SMALL), name_of(*SMALL), EPSILONS, rosenbrock=True, patience=8.0)


def middle():
    """420 parameters: 60 neurons, 5 inputs, 500 samples."""
    yield from measured(two_layer(*MIDDLE), name_of(*MIDDLE), EPSILONS, patience=12.0)


def large():
    """1200 parameters: 100 neurons, 10 inputs, 1000 samples."""
    yield from measured(two_layer(*LARGE), name_of(*LARGE), EPSILONS, patience=15.0)


def kinds():
    """420 parameters, of erf and of ReLU. The flow of ReLU has kinks, its counts are what they are;
    its reference is at rtol 1e-8."""
    peers = ("LSODA", "BDF", "CVODE")
    erf = two_layer(*MIDDLE, tts.TwoLayerNetwork(tts.Erf()))
    yield from measured(erf, f"erf, {name_of(*MIDDLE)}", EPSILONS, only=peers)
    relu = two_layer(*MIDDLE, tts.TwoLayerNetwork(tts.ReLU()))
    yield from measured(
        *(relu, f"ReLU, {name_of(*MIDDLE)}", (1.0, 1e-2, 1e-4)),
        only=peers,
        patience=8.0,
        reference=1e-8,
    )


def long():
    """To tau = 100, where sweeps saturate."""
    for size in (SMALL, MIDDLE):
        functions = two_layer(*size)
        for epsilon in (1e-2, 1e-4):
            given = functions, f"to 100, {name_of(*size)}", (epsilon,)
            yield from measured(*given, only=("LSODA", "CVODE"), horizon=100.0)


def wide():
    """10 200 parameters, and 102 000 without peers; the reference is at a rtol 100 times tighter
    than the tighter of two."""
    for width in (100, 1000):
        functions, size = two_layer(width, 100, 2000), name_of(width, 100, 2000)
        for epsilon in (1e-2, 1e-4):
            if width == 100:
                yield from measured(functions, size, (epsilon,), only=("CVODE",), reference=1e-8)
            else:
                label = f"{size}, epsilon = {epsilon:g}"
                yield label, counted(Case(functions, epsilon, reference=1e-7), label, (1e-3, 1e-5))


def mlp():
    """An MLP 10-64-64-1 of Equinox, its last layer fast: 4929 parameters."""
    import equinox as eqx

    x, y, fresh = data_of(jnp.tanh, 10, 2000)
    model = eqx.nn.MLP(10, 1, 64, 2, jnp.tanh, key=KEYS[2])
    problem, start = tts.from_module(model, x, y)
    functions = Functions(problem, start, fresh)
    size = "MLP 10-64-64-1, N = 2000"
    yield from measured(functions, size, (1e-2, 1e-4), only=("CVODE",), reference=1e-9)


def counted(case, label, rtols=(1e-4, 1e-6)):
    """What flows of the package count, their error, and the time of one warm run."""
    row = {}
    for rtol in rtols:
        case.package(rtol)
        run, ms = milliseconds(lambda rtol=rtol: case.package(rtol))
        states, counts = case.states_of(run)
        row[f"{rtol:g}"] = {"error": case.error(states), "ms": round(ms, 2), **counts}
    shown = {
        rtol: (each["gradients"], f"{each['error']:.1e}", each["ms"], each["status"])
        for rtol, each in row.items()
    }
    print(f"{label}: {shown}", flush=True)
    return row


def counts():
    """What flows of the package count, and their error, at rtol 1e-4 and 1e-6."""
    for size in (SMALL, MIDDLE, LARGE):
        functions = two_layer(*size)
        for epsilon in EPSILONS:
            label = f"{name_of(*size)}, epsilon = {epsilon:g}"
            yield label, counted(Case(functions, epsilon), label)


def plot():
    """docs/work-precision-networks.png, of the parts small, middle and large."""
    kept = json.loads((RESULTS / "sample_flows.json").read_text())
    rows = kept["small"] | kept["middle"] | kept["large"]
    return draw(
        rows,
        {
            name_of(*size): p
            for size, p in zip((SMALL, MIDDLE, LARGE), (140, 420, 1200), strict=True)
        },
        (1e-2, 1e-4),
    )


PARTS = {
    "small": small,
    "middle": middle,
    "large": large,
    "kinds": kinds,
    "long": long,
    "wide": wide,
    "mlp": mlp,
    "reduced": reduced,
    "many": many,
    "errors": errors,
    "counts": counts,
    "plot": plot,
}

if __name__ == "__main__":
    main("sample_flows", PARTS)
