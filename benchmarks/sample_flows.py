"""Flows of two-layer networks on samples, by the package and by SciPy, at equal achieved error.

    taskset -c 0 python benchmarks/sample_flows.py [PART ...]

Parts: small, middle, large (140, 420 and 1200 parameters), and counts, of the package alone; all by
default. On one core, since the
cores of a machine that does other work wait for each other. What was measured goes to
benchmarks/results/sample_flows.json.

Two-layer tanh networks of m neurons learn a teacher of three neurons on N Gaussian inputs of
dimension d, to tau = 1. The error is the larger of |L - L*|/(L* + 1e-3), the largest over eleven
recorded times, and of the root mean square difference of the networks on 1000 fresh inputs at these
times; the reference is the flow of the package at rtol 1e-11. Every side runs at the loosest of its
tolerances that reaches an error, and the runs are timed in turns. SciPy has the exact gradient
and Jacobian, compiled by JAX, and steps to the recorded times by its dense output; "Rosenbrock" is
the package's method of Hessians.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from parts import main, once
from scipy.integrate import solve_ivp

import tts_jax as tts
from tts_jax.dynamics.base import RunInputs

tts.configure()

NETWORK = tts.TwoLayerNetwork(tts.Tanh())
KEYS = jax.random.split(jax.random.key(0), 4)
TAUS = jnp.linspace(0.0, 1.0, 11)
ERRORS = (1e-4, 1e-6)
RTOLS = tuple(10.0 ** (-k / 2) for k in range(6, 17))
EPSILONS = (1.0, 1e-1, 1e-2, 1e-4, 1e-6)


class Case:
    """A problem, its start and its reference at one epsilon; every side is a function of rtol."""

    def __init__(self, width, inputs, count, epsilon):
        x = jax.random.normal(KEYS[0], (count, inputs))
        y = jnp.tanh(x @ jax.random.normal(KEYS[1], (3, inputs)).T) @ jnp.array([1.0, -2.0, 1.5])
        self.problem = tts.EmpiricalProblem(NETWORK, x, y)
        start = {"bias_scale": 0.5, "outer_scale": 0.1}
        self.start = tts.init_two_layer(KEYS[2], NETWORK, inputs, width, **start)
        self.flat, self.whole = ravel_pytree(self.start)
        self.epsilon = epsilon
        masses = np.where(np.arange(self.flat.size) <= width, epsilon, 1.0)

        def risk(flat):
            params = self.whole(flat)
            return jnp.mean((NETWORK(params, x) - y) ** 2)

        field = jax.jit(lambda flat: -jax.grad(risk)(flat) / masses)
        jacobian = jax.jit(lambda flat: -jax.hessian(risk)(flat) / masses[:, None])
        self.field = lambda _, flat: np.asarray(field(flat))
        self.jacobian = lambda _, flat: np.asarray(jacobian(flat))

        @jax.jit
        def by_rosenbrock(rtol):
            given = RunInputs(self.problem, self.start, TAUS, None, None)
            return self.flow(rtol).run(given)

        self._by_rosenbrock = by_rosenbrock
        fresh = jax.random.normal(KEYS[3], (1000, inputs))
        self.risks = jax.jit(jax.vmap(risk))
        self.outputs = jax.jit(jax.vmap(lambda flat: NETWORK(self.whole(flat), fresh)))
        reference, _ = self.states_of(self.package(1e-11))
        self.wanted = self.risks(reference), self.outputs(reference)

    def error(self, states):
        risks, outputs = self.risks(states), self.outputs(states)
        by_risk = jnp.abs(risks - self.wanted[0]) / (self.wanted[0] + 1e-3)
        by_output = jnp.sqrt(jnp.mean((outputs - self.wanted[1]) ** 2, axis=1))
        return float(jnp.max(jnp.maximum(by_risk, by_output)))

    def flow(self, rtol):
        return tts.GradientFlow(self.epsilon, rtol=rtol, atol=1e-2 * rtol)

    def package(self, rtol):
        return jax.block_until_ready(tts.simulate(self.problem, self.flow(rtol), self.start, TAUS))

    def rosenbrock(self, rtol):
        return jax.block_until_ready(self._by_rosenbrock(jnp.asarray(rtol)))

    def scipy(self, method, rtol):
        return solve_ivp(
            self.field,
            *((0.0, 1.0), np.asarray(self.flat), method, np.asarray(TAUS)),
            jac=self.jacobian,
            rtol=rtol,
            atol=1e-2 * rtol,
        )

    def states_of(self, run):
        """Flat states (11, P), and what the run counts."""
        if hasattr(run, "params"):
            flat = jax.vmap(lambda params: ravel_pytree(params)[0])(run.params)
            return flat, {name: int(count) for name, count in run.stats.items()}
        counts = {"gradients": int(run.nfev), "Jacobians": int(run.njev)}
        return jnp.asarray(run.y.T), counts


def sides_of(case, with_rosenbrock):
    sides = {
        "tts_jax": case.package,
        "LSODA": functools.partial(case.scipy, "LSODA"),
        "BDF": functools.partial(case.scipy, "BDF"),
    }
    return sides | ({"Rosenbrock": case.rosenbrock} if with_rosenbrock else {})


def reached(case, side):
    """By error, the loosest tolerance at which a side reaches it, with what it counts there."""
    found, wanted = {}, list(ERRORS)
    for rtol in RTOLS:
        states, counts = case.states_of(side(rtol))
        error = case.error(states)
        while wanted and error <= wanted[0]:
            found[wanted.pop(0)] = {"rtol": rtol, "error": error, **counts}
        if not wanted:
            break
    return found


def in_turns(runs, repeats=5):
    """The least milliseconds of some functions, called in turns: other work only adds to them."""
    times = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(1e3 * once(run))
    return {name: min(each) for name, each in times.items()}


def measured(width, inputs, count, epsilons, *, with_rosenbrock=True):
    for epsilon in epsilons:
        case = Case(width, inputs, count, epsilon)
        sides = sides_of(case, with_rosenbrock)
        found = {name: reached(case, side) for name, side in sides.items()}
        row = {}
        for error in ERRORS:
            runs = {
                name: functools.partial(sides[name], at[error]["rtol"])
                for name, at in found.items()
                if error in at
            }
            times = in_turns(runs)
            row[f"{error:g}"] = {
                name: {"ms": round(time, 2), **found[name][error]} for name, time in times.items()
            }
            shown = {name: round(time, 1) for name, time in times.items()}
            print(f"m = {width}, epsilon = {epsilon:g}, error {error:g}:", shown, flush=True)
        yield f"m = {width}, d = {inputs}, N = {count}, epsilon = {epsilon:g}", row


SMALL, MIDDLE, LARGE = (20, 5, 500), (60, 5, 500), (100, 10, 1000)
"""Neurons, inputs, and samples."""


def small():
    """140 parameters: 20 neurons, 5 inputs, 500 samples."""
    yield from measured(*SMALL, EPSILONS)


def middle():
    """420 parameters: 60 neurons, 5 inputs, 500 samples."""
    yield from measured(*MIDDLE, EPSILONS)


def large():
    """1200 parameters: 100 neurons, 10 inputs, 1000 samples; without the Rosenbrock method, which
    takes minutes."""
    yield from measured(*LARGE, EPSILONS, with_rosenbrock=False)


def counts():
    """What flows of the package count, and their error, at rtol 1e-4 and 1e-6."""
    for size in (SMALL, MIDDLE, LARGE):
        for epsilon in EPSILONS:
            case, row = Case(*size, epsilon), {}
            for rtol in (1e-4, 1e-6):
                states, counted = case.states_of(case.package(rtol))
                row[f"{rtol:g}"] = {"error": case.error(states), **counted}
            shown = {
                rtol: (each["gradients"], f"{each['error']:.1e}") for rtol, each in row.items()
            }
            print(f"m = {size[0]}, epsilon = {epsilon:g}:", shown, flush=True)
            yield f"m = {size[0]}, d = {size[1]}, N = {size[2]}, epsilon = {epsilon:g}", row


if __name__ == "__main__":
    main("sample_flows", {"small": small, "middle": middle, "large": large, "counts": counts})
