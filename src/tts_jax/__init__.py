"""Simulation of the training dynamics of networks with two time scales.

The clock of every public function is the slow time tau = epsilon t.
"""

from importlib.metadata import version

from . import metrics
from ._errors import CoarseStepsWarning, SimulationError, Status
from .activations import (
    AbstractActivation,
    AbstractStep,
    CubicStep,
    Erf,
    Logistic,
    ReLU,
    Tanh,
    check_activation,
)
from .dynamics import (
    SGD,
    AbstractDynamics,
    GradientFlow,
    LimitFlow,
    ReducedFlow,
    arrival_times,
    hit_times,
    recommended_solver,
)
from .empirical import EmpiricalProblem, sample_problem
from .networks import AbstractNetwork, AdditiveNetwork, Params, ShallowNetwork, init_uniform
from .problem import AbstractProblem, Problem
from .progress import ProgressBar
from .runs import map_runs
from .simulate import simulate
from .solvers import Rodas5P, stiff_solver
from .targets import AbstractTarget, AdditiveSteps, Function, PiecewiseConstant, Teacher
from .trajectory import Trajectory

__version__ = version("tts-jax")

__all__ = [
    "SGD",
    "AbstractActivation",
    "AbstractDynamics",
    "AbstractNetwork",
    "AbstractProblem",
    "AbstractStep",
    "AbstractTarget",
    "AdditiveNetwork",
    "AdditiveSteps",
    "CoarseStepsWarning",
    "CubicStep",
    "EmpiricalProblem",
    "Erf",
    "Function",
    "GradientFlow",
    "LimitFlow",
    "Logistic",
    "Params",
    "PiecewiseConstant",
    "Problem",
    "ProgressBar",
    "ReLU",
    "ReducedFlow",
    "Rodas5P",
    "ShallowNetwork",
    "SimulationError",
    "Status",
    "Tanh",
    "Teacher",
    "Trajectory",
    "arrival_times",
    "check_activation",
    "hit_times",
    "init_uniform",
    "map_runs",
    "metrics",
    "recommended_solver",
    "sample_problem",
    "simulate",
    "stiff_solver",
]
