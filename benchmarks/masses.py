"""How errors of weights count against those of positions: steps of a flow at equal achieved error.

    python benchmarks/masses.py [PART ...]

For eta from 1e-3 to 2e-2, epsilon from 1e-6 to 1e3 and some starts, the steps that reach an error
are interpolated between tolerances, and compared in the geometric mean. The error is that of
flows.py, against this package at rtol 1e-12. The numbers go to benchmarks/results/masses.json.
"""

from unittest import mock

from flow_peers import JUMPS, VALUES, start  # first: it sets up JAX
from parts import main

import jax  # isort: skip
import jax.numpy as jnp
import numpy as np

import tts_jax as tts
from tts_jax.closed_forms import error_norm, pairwise_system

HORIZONS = {
    1e3: 30.0,
    1e2: 30.0,
    1.0: 10.0,
    1e-1: 3.0,
    1e-2: 3.0,
    1e-3: 0.3,
    1e-4: 0.1,
    2e-5: 0.035,
    1e-6: 0.035,
}
ETAS = (2e-2, 4e-3, 1e-3)
TARGETS = (1e-4, 1e-6, 1e-8)
TOLERANCES = 10.0 ** -np.arange(2.0, 10.4, 1 / 3)
STARTS = [start(seed=700 + k) for k in range(6)]


def equally(eta, epsilon, weights, error, rtol, atol):
    """A weight against the largest one, a position against eta, and no more."""
    return jnp.maximum(weights, error_norm.largest(error) / (eta * (atol + rtol)))


def runner():
    """A new function, since JAX does not see that what it calls has been replaced."""

    def run(eta, epsilon, first, taus, rtols):
        network = tts.ShallowNetwork(tts.CubicStep(eta=eta))
        problem = tts.Problem(network, tts.PiecewiseConstant(JUMPS, VALUES))

        def one(rtol):
            flow = tts.GradientFlow(epsilon, rtol=rtol, atol=1e-2 * rtol)
            got = tts.simulate(problem, flow, first, taus, throw=False)
            return got.params.u, got.risk, got.stats["steps"]

        return jax.lax.map(one, rtols)

    return jax.jit(run)


def steps(run, references):
    """Steps for every eta, epsilon and start (rows), and target; NaN if it is not reached."""
    found = []
    for (eta, epsilon, k), (u_ref, risk_ref) in references.items():
        taus = jnp.linspace(0.0, HORIZONS[epsilon], 101)[1:]
        given = (jnp.asarray(eta), jnp.asarray(epsilon), STARTS[k], taus, jnp.asarray(TOLERANCES))
        u, risk, counts = jax.device_get(run(*given))
        off = np.max(np.abs(risk - risk_ref) / (risk_ref + 1e-3), axis=1)
        errors = np.maximum(np.max(np.abs(u - u_ref), axis=(1, 2)), off)
        found.append([reaching(errors, counts, target) for target in TARGETS])
    return np.asarray(found)


def reaching(errors, counts, target):
    good = np.flatnonzero(errors <= target)
    if good.size == 0:
        return np.nan
    i = good[0]
    if i == 0:
        return counts[0]
    logs = np.log(errors[i - 1 : i + 1])[::-1], np.log(counts[i - 1 : i + 1])[::-1]
    return np.exp(np.interp(np.log(target), *logs))


def masses():
    """Steps at equal error against those of the package: other factors, and no masses at all."""
    ours, references = runner(), {}
    for eta in ETAS:
        for epsilon, horizon in HORIZONS.items():
            taus = jnp.linspace(0.0, horizon, 101)[1:]
            for k, first in enumerate(STARTS):
                given = (jnp.asarray(eta), jnp.asarray(epsilon), first, taus, jnp.asarray([1e-12]))
                u, risk, _ = jax.device_get(ours(*given))
                references[eta, epsilon, k] = (u[0], risk[0])
    base, found = steps(ours, references), {}
    print(f"{base.size} cases, of which the package does not reach {int(np.sum(np.isnan(base)))}")
    ways = {"equally": mock.patch.object(pairwise_system, "position_error", equally)} | {
        f"factor {factor:g}": mock.patch.object(error_norm, "_LIGHTER", factor)
        for factor in (1.0, 5.0, 50.0, 400.0)
    }
    for name, way in ways.items():
        with way:
            jax.clear_caches()
            ratios = steps(runner(), references) / base
        logs = np.log(ratios)
        mean = np.exp(np.nanmean(logs))
        by_epsilon = {
            epsilon: float(np.exp(np.nanmean(logs[[e == epsilon for _, e, _ in references]])))
            for epsilon in HORIZONS
        }
        missed = int(np.sum(np.isnan(ratios)))
        found[name] = {"all": float(mean), "by epsilon": by_epsilon, "not reached": missed}
        each = ", ".join(f"{epsilon:g}: {ratio:.2f}" for epsilon, ratio in by_epsilon.items())
        print(f"{name}: {mean:.3f} times the steps; by epsilon {each}; {missed} not reached")
    return found


if __name__ == "__main__":
    main("masses", {"masses": masses})
