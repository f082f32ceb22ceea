"""Which method integrates a flow."""

import diffrax

from .._errors import argument_error, check_scalar, check_type
from .._types import Real
from ..problems.base import AbstractProblem

_EXPLICIT_FROM = 6e-5
_EXPLICIT_FROM_IF_WIDE = 3e-5
_WIDE = 30


def recommended_solver(
    epsilon: Real, width: int, problem: AbstractProblem
) -> diffrax.AbstractSolver | None:
    """The `solver` of a `GradientFlow` that is expected to take the least time on a CPU.

    **Arguments:** a number epsilon, the number of neurons, and the problem.

    **Returns:** None, which is the method of the package, for small epsilon and where the risk is
    known in closed form. Else an explicit method: without a closed form the Hessian in every step
    of the other costs more than many small steps. `python benchmarks/solvers.py` measures both.

    **Raises:** `ValueError` for an epsilon or width that is not positive.
    """
    check_scalar("epsilon", epsilon, minimum=0.0, strict=True)
    check_type("problem", problem, AbstractProblem)
    if width < 1:
        raise argument_error("width", "at least 1", width)
    explicit_from = _EXPLICIT_FROM if width < _WIDE else _EXPLICIT_FROM_IF_WIDE
    if problem.closed_form(width) is not None or epsilon < explicit_from:
        return None
    return diffrax.Tsit5()
