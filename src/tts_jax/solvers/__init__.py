"""What diffrax lacks for this stiffness: a Rosenbrock method in a loop of its own, linear solves
that fold into it, and a root finder that converges."""

from .choice import stiff_solver
from .chord import Chord
from .derivatives import differentiable_run
from .inverse import symmetric_solver
from .loop import Control, Now
from .rodas import Rodas5P
from .rosenbrock import AbstractSystem

__all__ = [
    "AbstractSystem",
    "Chord",
    "Control",
    "Now",
    "Rodas5P",
    "differentiable_run",
    "stiff_solver",
    "symmetric_solver",
]
