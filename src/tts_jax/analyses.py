"""Analyses of a sweep, from its Dataset alone: success, risks against time, convergence times.

Axes of runs that are not asked for, such as seeds, count as repetitions.
"""

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import binomtest

from ._errors import Status, argument_error, check_type
from ._numbers import as_floats, as_real, check_scalar, shown

__all__ = [
    "bands",
    "convergence_time",
    "success",
    "threshold",
]


def __dir__() -> list[str]:
    return __all__


def threshold(data: xr.Dataset, below: float | None = None) -> xr.DataArray:
    """Return the risk below which a run has recovered its target.

    That is `below`, or `metrics.recovery_threshold` of the problem, which the sweep has.

    **Raises:** `ValueError` if neither is there.
    """
    _check_sweep(data)
    if below is not None:
        limit = float(as_real("below", below))
        check_scalar("below", limit, minimum=0.0, strict=True)
        return xr.DataArray(limit)
    if "recovered_below" not in data:
        expected = "a number: `data` has no `recovered_below` to compare with"
        raise argument_error("below", expected, None)
    return data.recovered_below


def success(
    data: xr.Dataset,
    over: str | Sequence[str] = ("epsilon", "width"),
    *,
    below: float | None = None,
    confidence: float = 0.95,
) -> xr.Dataset:
    """Return how likely a run recovers its target, over some axes of a sweep.

    A run succeeds if its risk at the last recorded time is below the `threshold`. A run that failed
    has not succeeded; a run that has not been made does not count.

    **Returns:** a Dataset over these axes with `probability`, its Wilson interval `low` to `high`
    at the given confidence, `successes`, `runs` and `failed`; NaN where no run has been made.

    **Raises:** `ValueError` for unknown axes, or a missing threshold.
    """
    over, others = _split_axes(data, over)
    confidence = as_real("confidence", confidence)
    if not 0 < confidence < 1:
        raise argument_error("confidence", "between 0 and 1", confidence)
    made = data.status >= 0
    below_threshold = data.risk.isel(tau=-1) < threshold(data, below)
    succeeded = made & (data.status == Status.OK) & below_threshold
    count, runs = succeeded.sum(others).transpose(*over), made.sum(others).transpose(*over)
    probability = (count / runs).where(runs > 0)
    ends = np.full((2, *count.shape), np.nan)
    for place in np.ndindex(count.shape):
        if runs.values[place]:
            test = binomtest(int(count.values[place]), int(runs.values[place]))
            interval = test.proportion_ci(confidence, method="wilson")
            ends[(slice(None), *place)] = interval.low, interval.high
    variables = {
        "probability": probability,
        "low": (count.dims, ends[0]),
        "high": (count.dims, ends[1]),
        "successes": count,
        "runs": runs,
        "failed": (made & (data.status != Status.OK)).sum(others).transpose(*over),
    }
    return xr.Dataset(variables, attrs={"confidence": confidence})


def bands(
    data: xr.Dataset,
    over: str | Sequence[str] = (),
    *,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
) -> xr.DataArray:
    """Return quantiles of the risk against slow time, over some axes of a sweep.

    The axes are (quantile, *over, tau). A time counts the runs that reached it.
    """
    over, others = _split_axes(data, over)
    asked = as_floats("quantiles", quantiles)
    if asked.ndim != 1 or not asked.size or not np.all((asked >= 0) & (asked <= 1)):
        raise argument_error("quantiles", "numbers from 0 to 1", shown(quantiles))
    if not others:
        risk = data.risk.expand_dims(quantile=asked)
    else:
        with warnings.catch_warnings():
            # NaN says that no run reached a time: no warning is needed.
            warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
            risk = data.risk.quantile(asked, dim=others)
    return risk.transpose("quantile", *over, "tau")


def convergence_time(data: xr.Dataset, *, below: float | None = None) -> xr.DataArray:
    """Return the first recorded slow time from which on a run's risk stays below the `threshold`.

    NaN for a run that ends above the threshold, or failed.
    """
    limit = threshold(data, below)
    under = data.risk < limit
    # True at a time if the risk is below the threshold at this and at all later times.
    stays = under.isel(tau=slice(None, None, -1)).cumprod("tau").isel(tau=slice(None, None, -1))
    first = data.tau.values[np.argmax(stays.transpose(..., "tau").values, axis=-1)]
    reached = stays.isel(tau=-1).astype(bool)
    times = xr.DataArray(first, dims=reached.dims, coords=reached.coords)
    return times.where(reached).rename("convergence_time")


def _check_sweep(data: Any) -> None:
    check_type("data", data, xr.Dataset)
    missing = [name for name in ("risk", "status", "tau") if name not in data.variables]
    if missing or "tau" not in data.risk.dims:
        got = f"a Dataset without {' and '.join(missing)}" if missing else "one without times"
        raise argument_error("data", "a sweep, as `tts.sweep` returns it", got)


def _split_axes(data: Any, over: Any) -> tuple[tuple[str, ...], list[Hashable]]:
    """Return the names of the axes of runs that are asked for, one or several, and the others."""
    _check_sweep(data)
    axes = data.status.dims
    names = (over,) if isinstance(over, str) else over
    if not isinstance(names, Sequence) or isinstance(names, bytes):
        raise argument_error("over", f"axes among {list(axes)}", shown(over))
    for name in names:
        if not isinstance(name, str) or name not in axes:
            raise argument_error("over", f"axes among {list(axes)}", f"`{name}`")
    if len(set(names)) < len(names):
        raise argument_error("over", "axes, each once", shown(over))
    return tuple(names), [axis for axis in axes if axis not in names]
