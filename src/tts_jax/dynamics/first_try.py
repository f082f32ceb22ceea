"""What the first try of a flow leaves out, so that its program compiles in about half the time.

A closed form that is compiled for all that may happen is far larger than most runs need. A run
whose numbers are known is tried with what its start needs; where that turns out to be too little,
it is run again with more, and so are all runs of the same classes and shapes after it.
"""

from typing import Any

import jax
import numpy as np

from .._errors import Status, is_concrete, is_traced
from ..closed_forms.base import AbstractClosedForm
from ..trajectory import Trajectory
from .base import RunInputs

UNKNOWN = object()
"""In place of a limit that is to be chosen by numbers, or of a method."""

_LIMITS: dict[Any, Any] = {}
"""Limits by the classes and shapes of problems and parameters, where a flow has nothing more to
choose by numbers. To look for a closed form takes a tenth of a short run."""


def known_limit(given: RunInputs) -> Any:
    """Return the limit that is known for runs of these classes and shapes, or `UNKNOWN`."""
    return _LIMITS.get(_key_of(given), UNKNOWN)


def remember(given: RunInputs, limit: Any) -> None:
    """Let all runs of these classes and shapes have this limit."""
    if len(_LIMITS) > 1000:
        _LIMITS.clear()
    _LIMITS[_key_of(given)] = limit


def limited(form: AbstractClosedForm, given: RunInputs) -> RunInputs:
    """Return what a run is given, its closed form limited to what the start needs.

    Not under a transformation, where the status does not tell whether to try again.
    """
    if type(form).limit_for is AbstractClosedForm.limit_for:
        if form.hessian_work() is None:  # else a method is to be chosen
            remember(given, None)
        return given
    if not is_concrete(given) or is_traced():
        return given
    limit = form.limit_for(given.params)
    if form.limit_lasts:
        remember(given, limit)
    return given._replace(limit=limit)


def second_try(given: RunInputs, run: Trajectory) -> RunInputs | None:
    """Return what a run that ended so is to be given to end better, or None if nothing was left
    out that it lacked."""
    if int(run.status) == Status.OK:
        return None
    if given.limit is not None and int(run.status) == Status.CROWDED:
        remember(given, None)
        return given._replace(limit=None)
    if given.only_known and _has_lost_digits(run):
        return given._replace(only_known=False)
    return None


def _has_lost_digits(run: Trajectory) -> bool:
    """Return whether a risk is unknown of parameters that are known."""
    known = np.ones(run.taus.shape, bool)
    for leaf in jax.tree.leaves(run.params):
        known &= np.isfinite(leaf).reshape(known.size, -1).all(axis=1)
    return bool((known & np.isnan(run.risk)).any())


def _key_of(given: RunInputs) -> Any:
    leaves, structure = jax.tree.flatten((given.problem, given.params))
    return structure, tuple(getattr(leaf, "shape", ()) for leaf in leaves)
