"""The slow-fast gradient flow at any epsilon."""

import equinox as eqx
import jax

from .._errors import check_scalar
from .._types import Real, as_real
from ..networks import Params
from .base import Given, Records, check_no_samples, only_real
from .flow import AbstractFlow


class GradientFlow(AbstractFlow):
    """epsilon da/dtau = -grad_a L, du/dtau = -grad_u L, in slow time tau = epsilon t.

    **Arguments:** `epsilon`, the ratio of the step sizes, from 1e-7 to 1e3; `rtol`, `atol`:
    tolerances of the step size control (the error reached is usually 1 to 100 times rtol, since
    the flow has kinks); `solver`: any diffrax solver, by default `solvers.stiff_solver()`;
    `max_steps`, after which a run ends with the status MAX_STEPS; `adjoint`: diffrax's way to
    differentiate, by default reverse mode with checkpoints (`diffrax.ForwardMode()` for jvp).

    Differentiable in epsilon, the start, and the numbers of the problem.

    **Raises:** `ValueError` for an epsilon or tolerance that is not positive.
    """

    epsilon: Real = eqx.field(converter=as_real)

    def __check_init__(self):
        check_scalar("epsilon", self.epsilon, minimum=0.0, strict=True)

    def check(self, given: Given) -> None:
        check_no_samples(given.samples, "GradientFlow")
        only_real(given.params, "params")

    def run(self, given: Given) -> Records:
        def velocity(y: Params) -> Params:
            gradient = jax.grad(given.problem.risk)(y)
            return Params(
                a=jax.tree.map(lambda g: -g / self.epsilon, gradient.a),
                u=jax.tree.map(lambda g: -g, gradient.u),
            )

        ys, status, stats = self._integrate(velocity, given.params, given.taus)
        return Records(ys, jax.vmap(given.problem.risk)(ys), status, stats)
