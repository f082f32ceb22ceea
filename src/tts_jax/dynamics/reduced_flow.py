"""The reduced flow: the limit epsilon -> 0 at a finite transition width."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import argument_error, is_concrete
from .._numbers import check_scalar, real
from .._types import Real, Tree
from ..closed_forms.base import AbstractClosedForm
from ..integrators.diffrax.chord import stiff_solver
from ..models.network import Params
from ..problems.base import AbstractProblem
from ..problems.separable import AbstractSeparableProblem
from .base import RunInputs, RunOutputs, check_no_samples, only_real
from .first_try import UNKNOWN, known_limit, limited
from .flow import AbstractFlow, Motion
from .rates import check_rates_fit, rates_like
from .recommend import EXPLICIT, explicit_solver

_LEAST_RIDGE = float(np.finfo(np.float64).eps)


class ReducedFlow(AbstractFlow):
    """The reduced flow du/dtau = -rates grad_u L(a*(u), u), where a*(u) minimises L(a, u) in a.

    By the envelope theorem the derivative of a* is not needed. The outer layer of the start is
    ignored: at tau = 0 the record holds a*(u(0)).

    **Arguments:** `ridge`: relative ridge of the linear solve for a*(u), which keeps a* finite
    where neurons meet. There the velocity has a rounding error of the order of 1e-16/ridge: a ridge
    below 1e-16/rtol can make steps fail without end when neurons coincide; where they stay apart, a
    smaller one is more exact. The ridge pulls all weights to 0, but for an outer bias of the
    package's networks: that one goes to a value typical of the target. So to add a number to the
    target adds it to the bias, and changes nothing else. `solver`: any diffrax solver, or None for
    Tsit5 for separable problems unless the activation is a step, the Rosenbrock method for closed
    forms, and Kvaerno5 elsewhere. `rtol`, `atol`, `max_steps`, `adjoint`, `rates` as in
    `GradientFlow`.

    Differentiable in the start, the rates, and the numbers of the problem.

    **Raises:** `ValueError` for a tolerance that is not positive, a ridge below 2.22e-16, and for
    rates that are negative, not finite or not like u.
    """

    sweepable: ClassVar[tuple[str, ...]] = (*AbstractFlow.sweepable, "ridge")
    _default_method: ClassVar[str] = "Kvaerno5"

    ridge: Real = eqx.field(default=1e-8, converter=real("ridge"), kw_only=True)

    def __check_init__(self):
        check_scalar("ridge", self.ridge, minimum=0.0, strict=True)
        if is_concrete(self.ridge) and float(self.ridge) < _LEAST_RIDGE:
            expected = f"at least {_LEAST_RIDGE:.3g}, below which rounding swallows it"
            raise argument_error("ridge", expected, float(self.ridge))

    def check(self, given: RunInputs) -> None:
        check_no_samples(given.samples, "ReducedFlow")
        only_real(given.params.u, "params.u")
        check_rates_fit(self.rates, given.params.u)
        if not given.problem.has_best_outer():
            kind, loss = type(given.problem).__name__, getattr(given.problem, "loss", None)
            got = f"a {kind}" if loss is None else f"a {kind} with the loss {loss!r}"
            raise argument_error("problem", "one with a `best_outer(u, ridge=...)`", got)

    def prepared(self, given: RunInputs) -> tuple["ReducedFlow", RunInputs]:
        if self.solver is not None or self.rates is not None:
            return self, given
        known = known_limit(given)
        if known is not UNKNOWN:
            return self, given._replace(limit=known if given.only_known else None)
        form = self._known_form(given)
        return self, given if form is None else limited(form, given)

    def motion(self, given: RunInputs) -> Motion:
        problem, u = given.problem, given.params.u
        form = self._known_form(given)
        if form is not None:
            # The system of the gradient flow with epsilon = 0, where a has no mass and follows u.
            start = Params(problem.best_outer(u, ridge=self.ridge), u)
            return self._known_motion(form, jnp.zeros(()), jnp.asarray(self.ridge), start)

        def best(u: Tree) -> Params:
            return Params(problem.best_outer(u, ridge=self.ridge), u)

        # A tree: derivatives are those by the numbers in it.
        velocity = eqx.Partial(self._inner_velocity, problem)
        if not self._is_explicit(given):
            solver = stiff_solver() if self.solver is None else self.solver
            return self._solver_motion(solver, velocity, u, jax.vmap(best))
        # In the loop of the package, and with a loop over its stages, that have derivatives in both
        # directions.
        solver = dataclasses.replace(explicit_solver(), scan_kind="bounded")
        motion = self._solver_motion(solver, velocity, u, jax.vmap(best))
        return motion._replace(solver=None, velocity=None)

    def velocity(self, problem: AbstractProblem, params: Params) -> Params:
        along = self._inner_velocity(problem, params.u)
        outer = jax.jvp(lambda u: problem.best_outer(u, ridge=self.ridge), (params.u,), (along,))[1]
        return Params(outer, along)

    def run(self, given: RunInputs) -> RunOutputs:
        problem, motion = given.problem, self.motion(given)
        form = self._known_form(given)
        if form is not None:
            return self._descend(form, motion, given)
        if motion.solver is None or motion.velocity is None:
            us, status, stats, _ = self._integrate(motion.system, motion.start, given.taus)
        else:
            us, status, stats = self._integrate_with(
                motion.solver, motion.velocity, given.params.u, given.taus
            )
        outer, risks = jax.vmap(lambda u: problem.at_best_outer(u, ridge=self.ridge)[:2])(us)
        return RunOutputs(Params(outer, us), risks, status, stats)

    def method(self, given: RunInputs) -> str:
        return EXPLICIT if self._is_explicit(given) else super().method(given)

    def _is_explicit(self, given: RunInputs) -> bool:
        """Return whether the flow takes an explicit method by itself."""
        if self.solver is not None or not isinstance(given.problem, AbstractSeparableProblem):
            return False
        return not given.problem.has_stiff_reduction()

    def _known_form(self, given: RunInputs) -> AbstractClosedForm | None:
        """Return the closed form that a run takes, if there is one."""
        return None if self._is_explicit(given) else self._form(given)

    def _inner_velocity(self, problem: AbstractProblem, u: Tree) -> Tree:
        gradient = problem.at_best_outer(u, ridge=self.ridge).by_inner
        if self.rates is not None:
            gradient = jax.tree.map(jnp.multiply, rates_like(self.rates, u), gradient)
        return jax.tree.map(lambda g: -g, gradient)
