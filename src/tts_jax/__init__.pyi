# The public face: what `import tts_jax as tts` offers. Loaded name by name by `__init__.py`.
from . import analyses, metrics, plot
from ._errors import (
    CheckpointWarning,
    CoarseStepsWarning,
    CostlyRunWarning,
    NotAffineWarning,
    OffScaleWarning,
    QuadratureWarning,
    SimulationError,
    SlowSettingsWarning,
    Status,
)
from .batching.multi_device import map_runs
from .closed_forms.base import AbstractClosedForm
from .closed_forms.gradient_system import AbstractGradientSystem
from .configuration import configure
from .dynamics.arrivals import arrival_times
from .dynamics.base import AbstractDynamics
from .dynamics.gradient_flow import GradientFlow
from .dynamics.limit_flow import LimitFlow, hit_times
from .dynamics.passages import passage_times
from .dynamics.recommend import recommended_solver
from .dynamics.reduced_flow import ReducedFlow
from .dynamics.sgd.dynamics import SGD
from .integrators.diffrax.chord import stiff_solver
from .integrators.diffrax.rodas5p import Rodas5P
from .models.activations import (
    AbstractActivation,
    AbstractStep,
    CubicStep,
    Erf,
    HermiteSeries,
    Logistic,
    Probit,
    ReLU,
    Tanh,
)
from .models.additive import AdditiveNetwork
from .models.contracts import check_activation, check_network, check_target
from .models.initialisers import init_two_layer, init_uniform
from .models.network import AbstractNetwork, AbstractOneInputNetwork, Params
from .models.shallow import ShallowNetwork
from .models.targets import (
    AbstractLabels,
    AbstractTarget,
    AdditiveSteps,
    Function,
    PiecewiseConstant,
    Teacher,
)
from .models.two_layer import TwoLayerNetwork
from .problems.additive import AdditiveProblem
from .problems.base import AbstractProblem
from .problems.contracts import check_problem
from .problems.empirical import EmpiricalProblem, sample_problem
from .problems.from_model import from_apply, from_module
from .problems.gaussian import GaussianProblem
from .problems.model import ModelProblem, SeparableModelProblem
from .problems.population import Problem
from .problems.separable import SeparableProblem
from .progress import ProgressBar
from .simulation import simulate
from .sweeps.errors import StudyError, SweepError
from .sweeps.storage.opening import open_sweep
from .sweeps.study.study import Study
from .sweeps.study.toml import read_study
from .sweeps.sweep import sweep
from .trajectory import Trajectory

__version__: str

__all__ = [
    "SGD",
    "AbstractActivation",
    "AbstractClosedForm",
    "AbstractDynamics",
    "AbstractGradientSystem",
    "AbstractLabels",
    "AbstractNetwork",
    "AbstractOneInputNetwork",
    "AbstractProblem",
    "AbstractStep",
    "AbstractTarget",
    "AdditiveNetwork",
    "AdditiveProblem",
    "AdditiveSteps",
    "CheckpointWarning",
    "CoarseStepsWarning",
    "CostlyRunWarning",
    "CubicStep",
    "EmpiricalProblem",
    "Erf",
    "Function",
    "GaussianProblem",
    "GradientFlow",
    "HermiteSeries",
    "LimitFlow",
    "Logistic",
    "ModelProblem",
    "NotAffineWarning",
    "OffScaleWarning",
    "Params",
    "PiecewiseConstant",
    "Probit",
    "Problem",
    "ProgressBar",
    "QuadratureWarning",
    "ReLU",
    "ReducedFlow",
    "Rodas5P",
    "SeparableModelProblem",
    "SeparableProblem",
    "ShallowNetwork",
    "SimulationError",
    "SlowSettingsWarning",
    "Status",
    "Study",
    "StudyError",
    "SweepError",
    "Tanh",
    "Teacher",
    "Trajectory",
    "TwoLayerNetwork",
    "analyses",
    "arrival_times",
    "check_activation",
    "check_network",
    "check_problem",
    "check_target",
    "configure",
    "from_apply",
    "from_module",
    "hit_times",
    "init_two_layer",
    "init_uniform",
    "map_runs",
    "metrics",
    "open_sweep",
    "passage_times",
    "plot",
    "read_study",
    "recommended_solver",
    "sample_problem",
    "simulate",
    "stiff_solver",
    "sweep",
]
