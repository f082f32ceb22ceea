# The public face: what `import tts_jax as tts` offers. Loaded name by name by `__init__.py`.
from . import analyses, metrics, plot
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
from .simulation import simulate
from .solvers import Rodas5P, stiff_solver
from .sweeps import Study, StudyError, SweepError, read_study, sweep
from .targets import AbstractTarget, AdditiveSteps, Function, PiecewiseConstant, Teacher
from .trajectory import Trajectory

__version__: str

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
    "Study",
    "StudyError",
    "SweepError",
    "Tanh",
    "Teacher",
    "Trajectory",
    "analyses",
    "arrival_times",
    "check_activation",
    "hit_times",
    "init_uniform",
    "map_runs",
    "metrics",
    "plot",
    "read_study",
    "recommended_solver",
    "sample_problem",
    "simulate",
    "stiff_solver",
    "sweep",
]
