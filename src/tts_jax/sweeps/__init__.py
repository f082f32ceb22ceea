"""Sweeps: grids of runs as one labelled data set."""

from .errors import StudyError, SweepError
from .files import read_study
from .study import Study
from .sweep import sweep

__all__ = ["Study", "StudyError", "SweepError", "read_study", "sweep"]
