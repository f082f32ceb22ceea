from .adjoint import AbstractSymmetricSystem
from .banded import banded_solver
from .batches import in_turn
from .chord import Chord, stiff_solver
from .derivatives import differentiable_run
from .inverse import Layered, layered_solver, symmetric_solver
from .loop import Control, Now, all_finite
from .rodas import Rodas5P
from .rosenbrock import (
    COUPLINGS,
    GAMMA,
    STAGES,
    WEIGHTS,
    AbstractMotion,
    AbstractSystem,
    Step,
    rosenbrock_step,
)

__all__ = [
    "COUPLINGS",
    "GAMMA",
    "STAGES",
    "WEIGHTS",
    "AbstractMotion",
    "AbstractSymmetricSystem",
    "AbstractSystem",
    "Chord",
    "Control",
    "Layered",
    "Now",
    "Rodas5P",
    "Step",
    "all_finite",
    "banded_solver",
    "differentiable_run",
    "in_turn",
    "layered_solver",
    "rosenbrock_step",
    "stiff_solver",
    "symmetric_solver",
]
