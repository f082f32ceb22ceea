"""The base of the flows that are integrated in time: tolerances, a solver, and statuses."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from .._errors import Status, argument_error, check_type
from .._numbers import check_scalar, real, shown, whole
from .._types import Array, Real, Scalar, Times, Tree, is_sharded
from ..closed_forms.base import AbstractClosedForm
from ..closed_forms.hessian_system import AbstractHessianSystem
from ..integrators.checkpointing import differentiable_run
from ..integrators.rosenbrock import AbstractStagedSystem, AbstractSystem
from ..integrators.step_size import StepControl
from ..models.network import Params
from ..problems.base import AbstractProblem
from ..problems.recorded_risks import recorded_risks
from ..trajectory import Trajectory
from .base import AbstractDynamics, RunInputs, RunOutputs
from .first_try import second_try
from .rated_system import RatedSystem, takes_rates
from .rates import as_rates, check_rates, rates_like

if TYPE_CHECKING:
    import diffrax


Integrated = tuple[Tree, Array, dict[str, Any]]
"""The result of an integration: states at the recorded times, with a leading axis (T,) and NaN at
times that were not reached; the status code; counts of steps."""


class Motion(NamedTuple):
    """A flow of a problem as a system with its method.

    `params`: from what the system records of its states, with a leading axis (T,), to parameters
    with that axis. `solver` and `velocity`, of what is recorded: where a solver of diffrax takes
    the steps, else None.
    """

    system: AbstractSystem
    start: Tree
    params: Callable[[Tree], Params]
    solver: "diffrax.AbstractSolver | None" = None
    velocity: Callable[[Tree], Tree] | None = None


_MOST_STEPS = 2**31 - 1
"""Steps are counted in 32 bits."""


class AbstractFlow(AbstractDynamics):
    """A flow that is integrated in time, with its tolerances, solver and adjoint."""

    sweepable: ClassVar[tuple[str, ...]] = ("rtol", "atol")

    rtol: Real = eqx.field(default=1e-8, converter=real("rtol"), kw_only=True)
    atol: Real = eqx.field(default=1e-10, converter=real("atol"), kw_only=True)
    solver: "diffrax.AbstractSolver | None" = eqx.field(default=None, kw_only=True)
    max_steps: int = eqx.field(
        static=True, default=100_000, kw_only=True, converter=whole("max_steps", most=_MOST_STEPS)
    )
    adjoint: "diffrax.AbstractAdjoint | None" = eqx.field(default=None, kw_only=True)

    rates: Tree = eqx.field(default=None, kw_only=True, converter=as_rates)

    _default_method: ClassVar[str] = "Rodas5P, Hessian by automatic differentiation"
    """The method of a run without a `solver` and without a closed form, in words."""

    def __check_init__(self):
        check_scalar("rtol", self.rtol, minimum=0.0, strict=True)
        check_scalar("atol", self.atol, minimum=0.0, strict=True)
        _check_parts(self.solver, self.adjoint)
        check_rates(self.rates)
        if self.adjoint is not None and self.solver is None:
            raise argument_error(
                "adjoint", "None unless a diffrax `solver` is given", shown(self.adjoint)
            )

    def method(self, given: RunInputs) -> str:
        if self.solver is not None:
            return type(self.solver).__name__
        form = self._form(given)
        return self._default_method if form is None else f"Rodas5P, {type(form).__name__}"

    def again(self, given: RunInputs, run: Trajectory) -> RunInputs | None:
        if given.limit is None and not given.only_known:
            return None
        return second_try(given, run)

    def _form(self, given: RunInputs) -> AbstractClosedForm | None:
        """Return the closed form that a run takes, if there is one, no `solver` is asked for, and
        it goes with the rates."""
        form = given.problem.closed_form(given.problem.width(given.params))
        if form is None or self.solver is not None:
            return None
        if self.rates is not None:
            form = form.with_hessian()
            return form if takes_rates(form) else None
        return form.limited(given.limit)

    def with_rates(self, system: AbstractStagedSystem, u: Tree) -> AbstractStagedSystem:
        """Return the system of the flow with its rates, from that without, which shows its
        Hessian."""
        if self.rates is None:
            return system
        assert isinstance(system, AbstractHessianSystem)
        return RatedSystem(system, rates_like(self.rates, u))

    def expected_steps(self, horizon: float) -> float:
        # A fit, for a method of order 5 with kinks on its way; the horizon matters little.
        del horizon
        return 210.0 * (1e-6 / float(self.rtol)) ** 0.17

    @abc.abstractmethod
    def motion(self, given: RunInputs) -> Motion:
        """Return the flow as the system that `run` integrates."""

    @abc.abstractmethod
    def velocity(self, problem: AbstractProblem, params: Params) -> Params:
        """Return d(a, u)/dtau."""

    def control(self, horizon: Scalar) -> StepControl:
        """Return the control of the steps of a run to a horizon."""
        return StepControl(
            horizon, jnp.asarray(self.rtol), jnp.asarray(self.atol), jnp.asarray(self.max_steps)
        )

    def states_at(self, taus: Times, motion: Motion) -> Tree:
        """Return what is recorded at `taus`, which may be equal, NaN where they are not reached.

        `taus` count as fixed.
        """
        taus = jax.lax.stop_gradient(taus)
        if motion.solver is None or motion.velocity is None:
            return self._integrate(motion.system, motion.start, taus)[0]
        start = motion.system.recorded(motion.start)
        return self._integrate_with(motion.solver, motion.velocity, start, taus)[0]

    def _integrate(
        self, system: AbstractSystem, start: Tree, taus: Times
    ) -> tuple[Tree, Array, dict[str, Any], Tree]:
        """Integrate a system from y(0) = start by the steps of its method.

        Returns the entries of `Integrated`, and the last state.
        """
        control = self.control(taus[-1])
        ys, now = differentiable_run(system, start, taus, control, self.max_steps)
        status = jnp.where(now.steps >= self.max_steps, Status.MAX_STEPS, Status.STAGNATION).astype(
            jnp.int32
        )
        status = jnp.where(now.t >= control.horizon, Status.OK, status)
        # The vector field was not finite where the run ended, or at a start without a first step.
        non_finite = now.lost & ((status != Status.OK) | (now.steps == 0))
        status = jnp.where(non_finite, Status.NON_FINITE, status)
        rejected = now.steps - now.accepted
        stats = {"steps": now.steps, "accepted": now.accepted, "rejected": rejected}
        return ys, status.astype(jnp.int32), stats, now.y

    def _known_motion(
        self, form: AbstractClosedForm, epsilon: Scalar, ridge: Scalar, params: Params
    ) -> Motion:
        """Return the ODE system of a closed form."""
        start, kept = form.to_state(params)
        system = self.with_rates(form.system(epsilon, ridge), params.u)
        return Motion(system, start, lambda states: form.to_params(states, kept))

    def _solver_motion(
        self,
        solver: "diffrax.AbstractSolver",
        velocity: Callable[[Tree], Tree],
        start: Tree,
        params: Callable[[Tree], Params],
    ) -> Motion:
        """Return dy/dtau = velocity(y) with the steps of a solver of diffrax."""
        from ..integrators.diffrax.system import DiffraxSystem  # as below

        system = DiffraxSystem(solver, velocity, jnp.asarray(self.rtol), jnp.asarray(self.atol))
        return Motion(system, system.begin(start), params, solver, velocity)

    def _descend(self, form: AbstractClosedForm, motion: Motion, given: RunInputs) -> RunOutputs:
        """Integrate the ODE system of a closed form."""
        states, status, stats, end = self._integrate(motion.system, motion.start, given.taus)
        ys = motion.params(states)
        risk = recorded_risks(given.problem, ys, form, only_known=given.only_known)
        return RunOutputs(ys, risk, form.failure(status, end), stats)

    def _integrate_with(
        self,
        solver: "diffrax.AbstractSolver",
        velocity: Callable[[Tree], Tree],
        start: Tree,
        taus: Times,
    ) -> Integrated:
        """Integrate dy/dtau = velocity(y) from y(0) = start with a solver of diffrax."""
        if is_sharded(start):
            expected = "None inside `jax.shard_map`, whose checks diffrax does not pass: give it "
            raise argument_error("solver", f"{expected}`check_vma=False`", type(solver).__name__)
        # Not at the top of the file: importing diffrax takes longer than a run without it.
        from ..integrators.diffrax.integrate import integrate

        return integrate(
            solver, velocity, start, taus, self.rtol, self.atol, self.max_steps, self.adjoint
        )


def _check_parts(solver: Any, adjoint: Any) -> None:
    """Raise unless a solver and an adjoint are instances of the classes of diffrax, or None."""
    if solver is None and adjoint is None:
        return
    import diffrax  # here, since it takes longer to import than a run without it

    for name, part, kind in (
        ("solver", solver, diffrax.AbstractSolver),
        ("adjoint", adjoint, diffrax.AbstractAdjoint),
    ):
        if part is not None:
            check_type(name, part, kind, hint=" of diffrax, or None")
