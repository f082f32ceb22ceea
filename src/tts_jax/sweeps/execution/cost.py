"""What a run is expected to cost, before any has been made."""

import numpy as np

from ...batching import devices as _device
from ...dynamics.limit_flow import LimitFlow
from ...dynamics.sgd.dynamics import SGD
from ..study.grid import Point
from ..study.study import Study, numbers_of

# Of one core of a machine of 2026 with wide vectors: for the order of the units and their size.
# `predict` in plan.py measures. From benchmarks/flows.py and benchmarks/sgd.py.
_SGD_STEP = 1e-9
"""Seconds, of one neuron and one run out of many side by side."""
_FLOW_STEP = 10e-6
"""Seconds, at width 20."""
_CLOSED_FORM = 1e-5
"""Seconds of the limit flow for one recorded time."""


def expected_steps(study: Study, point: Point) -> float:
    """Steps of the run at a point: exact for SGD, a fit for the flows, 1 for a closed form."""
    values = {**_numbers(study), **point}
    horizon = study.taus[-1]
    if isinstance(study.dynamics, SGD):
        count = horizon / (float(values["epsilon"]) * float(values["step_size"]))
        return float(max(1, round(count)))
    if isinstance(study.dynamics, LimitFlow):
        return 1.0
    # A method of order 5 with kinks on its way; more of them at larger epsilon, where neurons
    # turn back and meet.
    epsilon = float(values.get("epsilon", 0.0))
    kinks = 1.0 + 1.1 * float(np.clip(1 + np.log10(max(epsilon, 1e-9)) / 4, 0.0, 1.0))
    return 210.0 * kinks * (1e-6 / float(values.get("rtol", 1e-6))) ** 0.17


def expected_seconds(study: Study, point: Point) -> float:
    """Seconds of one core that the run at a point is expected to take."""
    steps, width = expected_steps(study, point), int(point["width"])
    if isinstance(study.dynamics, LimitFlow):
        return _CLOSED_FORM * len(study.taus)
    if isinstance(study.dynamics, SGD):
        batch = study.dynamics.batch_size
        return _SGD_STEP * width * steps * (batch if isinstance(batch, int) else 100)
    # All pairs of neurons in narrow networks, bands in wide ones.
    return _FLOW_STEP * steps * ((width / 20) ** 2 if width < 48 else width / 10)


def in_step(study: Study, name: str) -> bool:
    """Whether runs that differ in a coordinate alone may share a unit: whether none waits long."""
    return not isinstance(study.dynamics, SGD) or name not in ("epsilon", "step_size")


def on_accelerator() -> bool:
    return not _device.on_cpu()


def _numbers(study: Study) -> dict[str, float]:
    return {name: float(getattr(study.dynamics, name)) for name in numbers_of(study.dynamics)}
