"""Other solvers of the flow of a network on a sample, as a strong user would call them.

Each is a function of a case and of rtol (atol is a hundredth of it) that returns the states
(11, P) at the recorded times and what it counts. All get the exact gradient compiled by JAX, and
what else they ask for: the Jacobian, or its products with vectors. Needs the extra `bench`.
"""

import functools
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp
from scipy.linalg.lapack import dpotrf, dpotrs
from sksundae.cvode import CVODE, CVODEJacTimes, CVODEPrecond

import tts_jax as tts

DENSE = 200
"""Parameters up to which CVODE gets the dense Jacobian."""

MOST_SECONDS = 20.0
"""Of one run that is expected to take longer nothing is asked."""


def by_scipy(method, case, rtol):
    """The implicit methods have the Jacobian; all step past the times, by their dense output."""
    functions, masses = case.functions, case.masses
    extra = {}
    if method in ("LSODA", "BDF", "Radau"):
        extra["jac"] = lambda _, flat: np.asarray(functions.jacobian(flat, masses))
    taus = np.asarray(case.taus)
    run = solve_ivp(
        lambda _, flat: np.asarray(functions.field(flat, masses)),
        *((0.0, taus[-1]), np.asarray(case.flat), method, taus),
        rtol=rtol,
        atol=1e-2 * rtol,
        **extra,
    )
    counts = {"gradients": int(run.nfev), "Jacobians": int(run.njev)}
    return run.y.T, {**counts, "status": "OK" if run.success else run.message}


def by_cvode(case, rtol):
    """Dense with the exact Jacobian for few parameters. Else GMRES with exact products, and the
    Cholesky factor of the fast block as the preconditioner: 1/epsilon stands in its rows alone."""
    functions, masses, fast = case.functions, case.masses, case.functions.fast
    counts = {"gradients": 0, "Jacobians": 0, "products": 0, "factorisations": 0}
    kept = {}

    def field(_, y, yp):
        counts["gradients"] += 1
        yp[:] = functions.field(y, masses)

    def jacobian(_, y, yp, out):
        counts["Jacobians"] += 1
        out[:] = functions.jacobian(y, masses)

    def times(_, y, yp, vector, out):
        counts["products"] += 1
        out[:] = functions.product(y, vector, masses)

    def prepare(_, y, yp, still_good, is_new, gamma):
        is_new[0] = 0 if still_good else 1
        if not still_good:
            kept["block"] = np.asarray(functions.fast_block(y))
        counts["factorisations"] += 1
        matrix = kept["block"] * (gamma / case.epsilon)
        matrix[np.diag_indices(fast)] += 1.0
        kept["factor"] = dpotrf(matrix, lower=1, overwrite_a=1)[0]

    def solve(_, y, yp, right, out, gamma, delta, side):
        out[:] = right
        out[:fast] = dpotrs(kept["factor"], right[:fast], lower=1)[0]

    if case.flat.size <= DENSE:
        linear = {"linsolver": "dense", "jacfn": jacobian}
    else:
        linear = {
            "linsolver": "gmres",
            "precond": CVODEPrecond(prepare, solve),
            "jactimes": CVODEJacTimes(None, times),
        }
    solver = CVODE(field, rtol=rtol, atol=1e-2 * rtol, max_num_steps=10**6, **linear)
    run = solver.solve(np.asarray(case.taus), np.asarray(case.flat))
    return run.y, {**counts, "status": "OK" if run.success else run.message}


def by_diffrax(solver):
    """A solver of diffrax, compiled once for all epsilons and tolerances of one size."""

    @functools.partial(jax.jit, static_argnums=0)
    def go(functions, masses, start, taus, rtol):
        term = diffrax.ODETerm(lambda _, flat, args: functions.field(flat, masses))
        control = diffrax.PIDController(rtol=rtol, atol=1e-2 * rtol)
        found = diffrax.diffeqsolve(
            *(term, solver, 0.0, taus[-1], None, start),
            saveat=diffrax.SaveAt(ts=taus),
            stepsize_controller=control,
            max_steps=None,
            adjoint=diffrax.ForwardMode(),  # the cheapest loop there is
            throw=False,
        )
        return found.ys, found.stats["num_steps"], found.result

    def run(case, rtol):
        found = go(case.functions, case.masses, case.flat, case.taus, jnp.asarray(rtol))
        states, steps, result = jax.block_until_ready(found)
        is_good = bool(result == diffrax.RESULTS.successful)
        return states, {"steps": int(steps), "status": "OK" if is_good else "failed"}

    return run


tsit5 = by_diffrax(diffrax.Tsit5())
kvaerno5 = by_diffrax(tts.stiff_solver())
"""Kvaerno5 with a corrected root finder: that of diffrax rejects half of all steps for nothing."""


def peers_of(case):
    """By name, the peers of a case as functions of rtol, and why some are left out."""
    sides = {
        method: functools.partial(by_scipy, method, case) for method in ("LSODA", "BDF", "Radau")
    }
    sides["CVODE"] = functools.partial(by_cvode, case)
    left_out = {}
    seconds = explicit_seconds(case)
    if seconds <= MOST_SECONDS:
        sides["Tsit5"] = functools.partial(tsit5, case)
    else:
        left_out["Tsit5"] = f"left out: would take about {seconds:.0f} s"
    if case.flat.size <= DENSE:
        sides["Kvaerno5"] = functools.partial(kvaerno5, case)
    else:
        left_out["Kvaerno5"] = f"left out above {DENSE} parameters: a dense Jacobian by autodiff"
    return sides, left_out


def explicit_seconds(case):
    """What an explicit method is expected to take, which is stable up to 3.3 over the largest
    rate: six gradients a step."""
    functions = case.functions
    flat = np.asarray(case.flat)
    rate = np.linalg.eigvalsh(functions.fast_block(flat))[-1] / case.epsilon
    np.asarray(functions.field(flat, case.masses))
    began = time.perf_counter()
    for _ in range(10):
        np.asarray(functions.field(flat, case.masses))
    return 6 * (time.perf_counter() - began) / 10 * float(case.taus[-1]) * rate / 3.3
