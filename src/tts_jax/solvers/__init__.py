"""What diffrax lacks for this stiffness, and the choice of a method."""

from .choice import stiff_solver
from .chord import Chord

__all__ = ["Chord", "stiff_solver"]
