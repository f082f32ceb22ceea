"""Times of several solvers at equal achieved error, in turns."""

import functools
import time

from parts import once

ERRORS = (1e-4, 1e-6)
RTOLS = tuple(10.0 ** (-k / 2) for k in range(6, 21))
PATIENCE = 20.0
"""Seconds of all runs of a side that look for its tolerance: then it gets no tighter one."""

ENOUGH = 1.5
"""Seconds of repeats: a slow run is not measured as often as others."""


def milliseconds(function):
    began = time.perf_counter()
    run = function()
    return run, 1e3 * (time.perf_counter() - began)


def curves(case, sides, patience=PATIENCE):
    """By side, its runs at ever tighter tolerances until one has the smallest error, in turns, and
    why a side stopped before."""
    found, stopped, spent = {name: [] for name in sides}, {}, dict.fromkeys(sides, 0.0)
    waiting = dict(sides)
    for name, side in sides.items():
        seconds = once(functools.partial(side, RTOLS[0]))  # compiles
        if seconds > 2 * patience:
            stopped[name] = f"left out: {seconds:.0f} s for rtol {RTOLS[0]:.0e}, with compiling"
            del waiting[name]
    for rtol in RTOLS:
        for name, side in list(waiting.items()):
            run, ms = milliseconds(functools.partial(side, rtol))
            states, counts = case.states_of(run)
            error = case.error(states)
            if ms < 300:
                ms = min(ms, milliseconds(functools.partial(side, rtol))[1])
            found[name].append({"rtol": rtol, "error": error, "ms": round(ms, 3), **counts})
            spent[name] += ms / 1e3
            if error <= ERRORS[-1]:
                del waiting[name]
            elif spent[name] > patience:
                del waiting[name]
                stopped[name] = f"left out: {spent[name]:.0f} s for rtol down to {rtol:.1e}"
    stopped |= dict.fromkeys(waiting, f"not reached at rtol {RTOLS[-1]:.1e}")
    return found, stopped


def in_turns(runs, first, repeats=5):
    """The least milliseconds of some functions, called in turns: other work only adds to them.
    `first`: what a run of each is known to take."""
    times, spent = dict(first), dict.fromkeys(runs, 0.0)
    for _ in range(repeats):
        for name, run in runs.items():
            if spent[name] < ENOUGH:
                ms = 1e3 * once(run)
                times[name], spent[name] = min(times[name], ms), spent[name] + ms / 1e3
    return times


def compared(case, sides, *, left_out=(), patience=PATIENCE, label=""):
    """A row: the curves, and by error the times in turns, each side at the loosest of its
    tolerances that reaches the error, or why it did not."""
    found, stopped = curves(case, sides, patience)
    row = {"curves": found}
    for error in ERRORS:
        at = {
            name: next((r for r in runs if r["error"] <= error), None)
            for name, runs in found.items()
        }
        there = {name: run for name, run in at.items() if run is not None}
        runs = {name: functools.partial(sides[name], run["rtol"]) for name, run in there.items()}
        times = in_turns(runs, {name: run["ms"] for name, run in there.items()})
        each = {name: {**there[name], "ms": round(ms, 2)} for name, ms in times.items()}
        row[f"{error:g}"] = each | {n: stopped[n] for n in at if n not in there} | dict(left_out)
        print(f"{label}, error {error:g}: {shown(row[f'{error:g}'])}", flush=True)
    return row


def shown(each):
    """Milliseconds and gradients of the sides, in one line."""
    words = []
    for name, found in each.items():
        if isinstance(found, str):
            words.append(f"{name} {found}")
            continue
        count = found.get("gradients")
        words.append(f"{name} {found['ms']:.1f} ms" + (f" ({count})" if count else ""))
    return "; ".join(words)
