"""The slow-fast gradient flow at any epsilon."""

import dataclasses
import warnings
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import CostlyRunWarning, is_concrete, is_traced
from .._numbers import check_scalar, real
from .._types import Real, as_arrays
from ..closed_forms.gradient_system import MOST_DENSE
from ..integrators.collocation import CollocationSystem
from ..integrators.rosenbrock import AbstractStagedSystem
from ..integrators.swept_state import Halves
from ..models.network import Params
from ..problems.base import AbstractProblem
from ..problems.recorded_risks import recorded_risks
from ..problems.separable import AbstractSeparableProblem
from .autodiff_system import AutodiffGradientSystem
from .base import RunInputs, RunOutputs, check_no_samples, only_real
from .first_try import UNKNOWN, known_limit, limited
from .flow import AbstractFlow, Motion
from .rates import check_rates_fit, rates_like
from .recommend import (
    AUTODIFF_HESSIAN,
    by_collocation,
    explicit_pays,
    explicit_solver,
    largest_rate,
)

COLLOCATION = "exponential collocation"
"""The name of the method, for people."""


class GradientFlow(AbstractFlow):
    """The gradient flow epsilon da/dtau = -grad_a L, du/dtau = -rates grad_u L, tau = epsilon t.

    **Arguments:**

    - `epsilon`: the ratio of the step sizes, from 1e-7 to 1e3.
    - `rtol`, `atol`: tolerances of the step size control. They bound the estimated error of one
      step of the solver. In the closed forms of steps of one input the bounds depend on
      r = min(epsilon, 1)/(20 eta^2) and on A, the largest |a_j|:

      |                      | error of a position u_j   | error of a weight a_j         |
      |----------------------|---------------------------|-------------------------------|
      | weights fast, r <= 1 | eta (rtol + atol)         | (rtol A + atol)/max(r, 0.1)   |
      | weights slow, r > 1  | eta (rtol + atol) sqrt(r) | (rtol A + atol)/sqrt(r)       |

      A position may err by eta/10 at most. The relative error of the risk is of the order of rtol,
      and up to ten times that at epsilon = 1 (docs/solvers.md). For separable problems the network
      may err by rtol s + atol in a step, in its root mean square over the sample (or a few hundred
      inputs of a population), with s the standard deviation of the targets. For all other problems
      the bound is 1 for the root mean square, over all parameters, of error/(rtol |value| + atol).
    - `solver`: any diffrax solver, or None for the method that is expected to take the least time:
      the Rosenbrock method of the package, Rodas5P, for the closed forms of steps of one input;
      exponential collocation for a `SeparableProblem` and an `EmpiricalProblem` with the squared
      loss, at any epsilon, unless the activation has kinks (ReLU, steps), for models of
      `from_module` and `from_apply` that are linear in their fast leaves and smooth, and for a
      `GaussianProblem` of more than 500 parameters; elsewhere an explicit method, Tsit5, where the
      flow is not stiff for its number of parameters, which depends on numbers: a new epsilon or
      horizon that changes that choice compiles again. Under a jax transformation, where numbers
      are unknown, it is Rodas5P up to 500 parameters.
    - `max_steps`: after so many steps of the solver a run ends with the status MAX_STEPS.
    - `adjoint`: how a diffrax solver is differentiated.
    - `rates`: how fast the leaves of u move, relative to each other: a tree like u, such as
      `{"w": 1.0, "b": 0.1}`, or the beginning of one (a number for all of u), whose leaves are
      numbers or arrays that broadcast to those of u. None is 1 for all. At a rate of 0 a leaf
      rests. A step of the solver takes as long as without rates for two-layer networks on a sample
      and where there is no closed form. Steps of one input have dense matrices then, also where
      they would be banded, and no kernel on a GPU. A closed form of one's own whose system is no
      `AbstractGradientSystem` is left aside.

    Differentiable, forward and reverse, in epsilon, the start, the rates, and the numbers of the
    problem; the recorded times count as fixed.

    **Warns:** `CostlyRunWarning` where a stiff flow of many parameters needs its whole Hessian.

    **Raises:** `ValueError` for an epsilon or tolerance that is not positive, for rates that are
    negative, not finite or not like u, and for an adjoint without a diffrax solver.
    """

    sweepable: ClassVar[tuple[str, ...]] = (*AbstractFlow.sweepable, "epsilon")

    epsilon: Real = eqx.field(converter=real("epsilon"))

    def __check_init__(self):
        check_scalar("epsilon", self.epsilon, minimum=0.0, strict=True)

    def expected_steps(self, horizon: float) -> float:
        # More kinks at larger epsilon, where neurons turn back and meet.
        share = 1.0 + np.log10(max(float(self.epsilon), 1e-9)) / 4
        return (1.0 + 1.1 * float(np.clip(share, 0.0, 1.0))) * super().expected_steps(horizon)

    def check(self, given: RunInputs) -> None:
        check_no_samples(given.samples, "GradientFlow")
        only_real(given.params, "params")
        check_rates_fit(self.rates, given.params.u)

    def prepared(self, given: RunInputs) -> tuple["GradientFlow", RunInputs]:
        if self.solver is not None:
            return self, given
        # What was found without rates says nothing about a flow with them.
        known = known_limit(given) if self.rates is None else UNKNOWN
        if known is not UNKNOWN:
            return self, given._replace(limit=known if given.only_known else None)
        form = self._form(given)
        hessian = AUTODIFF_HESSIAN if form is None else form.hessian_work()
        if hessian is None:
            assert form is not None
            return self, limited(form, given) if self.rates is None else given
        problem, params = given.problem, given.params
        count = sum(np.size(leaf) for leaf in jax.tree.leaves(params))
        if by_collocation(problem, count):
            return self, given._replace(by_collocation=True)
        explicit = count > MOST_DENSE
        if is_concrete(self, problem, params, given.taus) and not is_traced():
            rate = float(largest_rate(*as_arrays((problem, params, self.epsilon, self.rates))))
            explicit = explicit_pays(rate, float(given.taus[-1]), count, hessian)
            if not explicit and count > MOST_DENSE:
                warnings.warn(
                    f"This flow is stiff and has {count} parameters: every step forms and inverts "
                    f"a dense Hessian of {count} x {count}. A larger `epsilon`, a shorter time, or "
                    "SGD costs less.",
                    CostlyRunWarning,
                    stacklevel=3,
                )
        return dataclasses.replace(self, solver=explicit_solver()) if explicit else self, given

    def motion(self, given: RunInputs) -> Motion:
        problem, params = given.problem, given.params
        epsilon = jnp.asarray(self.epsilon)
        if given.by_collocation:
            return self._by_collocation(given)
        form = self._form(given)
        if form is not None:
            return self._known_motion(form, epsilon, jnp.zeros(()), params)
        system = self._system(problem, params)
        if self.solver is None:
            return Motion(system, params, lambda states: states)
        return self._solver_motion(self.solver, system.velocity, params, lambda states: states)

    def velocity(self, problem: AbstractProblem, params: Params) -> Params:
        return self._system(problem, params).velocity(params)

    def run(self, given: RunInputs) -> RunOutputs:
        problem, params, taus = given.problem, given.params, given.taus
        form = None if given.by_collocation else self._form(given)
        if form is not None:
            return self._descend(form, self.motion(given), given)
        if self.solver is not None:
            velocity = self._system(problem, params).velocity
            ys, status, stats = self._integrate_with(self.solver, velocity, params, taus)
        else:
            motion = self.motion(given)
            states, status, stats, end = self._integrate(motion.system, motion.start, taus)
            ys = motion.params(states)
            if given.by_collocation:
                counts = {"gradients": end.gradients, "eigenvectors": end.factorisations}
                stats |= {name: count.astype(jnp.int32) for name, count in counts.items()}
        risk = recorded_risks(problem, ys, only_known=given.only_known)
        return RunOutputs(ys, risk, status, stats)

    def method(self, given: RunInputs) -> str:
        return COLLOCATION if given.by_collocation else super().method(given)

    def _system(self, problem: AbstractProblem, params: Params) -> AbstractStagedSystem:
        """Return the flow of any risk, by automatic differentiation."""
        system = AutodiffGradientSystem(problem=problem, epsilon=jnp.asarray(self.epsilon))
        return self.with_rates(system, params.u)

    def _by_collocation(self, given: RunInputs) -> Motion:
        problem, params = given.problem, given.params
        assert isinstance(problem, AbstractSeparableProblem)
        risk = problem.quadratic_risk()
        rates = None if self.rates is None else rates_like(self.rates, params.u)
        tolerances = jnp.asarray(self.rtol), jnp.asarray(self.atol)
        system = CollocationSystem(risk, jnp.asarray(self.epsilon), rates, *tolerances)
        start = system.begin(problem.outer_matrix(params.a), params.u)

        def params_of(states: Halves) -> Params:
            return Params(jax.vmap(lambda a: problem.outer_layer(a, params.a))(states.a), states.u)

        return Motion(system, start, params_of)
