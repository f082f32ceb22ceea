from .arrivals import arrival_times
from .base import AbstractDynamics, Records
from .choice import recommended_solver
from .gradient_flow import GradientFlow
from .limit_flow import LimitFlow, hit_times
from .long_runs import run_in_pieces
from .reduced_flow import ReducedFlow
from .sgd import SGD
from .sgd_scales import FINE

__all__ = [
    "FINE",
    "SGD",
    "AbstractDynamics",
    "GradientFlow",
    "LimitFlow",
    "Records",
    "ReducedFlow",
    "arrival_times",
    "hit_times",
    "recommended_solver",
    "run_in_pieces",
]
