"""The chord root finder of diffrax with its termination test corrected.

diffrax 0.7.2 reports "not converged yet" as "diverged", so that every stage of an implicit method
gets two iterations and half of all steps are rejected. The correction is merged upstream (pull
request 754 of diffrax) but not released: `terminate` can be removed with the next release.

diffrax also applies the tolerance of the state to the unknown of a stage, which is a velocity. A
velocity of the order of 1/epsilon has a rounding error far above that tolerance: at a small epsilon
or a tight tolerance no stage would ever converge. `step` measures by how much an update moves the
state.

And diffrax asks for the Jacobian of a step twice, first for the explicit stage, where it is the
identity. Compiled twice, it would be half of a program with a long vector field.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx

from ..._errors import argument_error
from ..._numbers import shown
from ..._types import Array, Tree


class Chord(diffrax.VeryChord):
    """`diffrax.VeryChord`, one Jacobian per step, which goes on iterating while it converges."""

    def init(
        self,
        fn: Any,
        y: Tree,
        args: Any,
        options: dict[str, Any],
        f_struct: Any,
        aux_struct: Any,
        tags: frozenset[object],
    ) -> Any:
        if "init_state" in options:
            return super().init(fn, y, args, options, f_struct, aux_struct, tags)
        # The Jacobian as numbers, of the linear function fn = (matrix) y: so it may be a constant.
        # Where the diagonal is the constant 0, XLA compiles the first branch alone.
        matrix = jax.lax.cond(
            args[1] == 0,
            lambda: jax.jacfwd(lambda y: y)(y),
            lambda: jax.jacfwd(lambda y: fn(y, args)[0])(y),
        )
        operator = lx.PyTreeLinearOperator(matrix, jax.eval_shape(lambda: y))
        known = super().init(
            lambda y, _: (operator.mv(y), None), y, None, options, f_struct, aux_struct, tags
        )
        kept = jax.lax.stop_gradient(self.linear_solver.init(operator, options={}))
        return eqx.tree_at(lambda state: state.linear_state, known, (operator, kept))

    def step(
        self,
        fn: Any,
        y: Tree,
        args: Any,
        options: dict[str, Any],
        state: Any,
        tags: frozenset[object],
    ) -> tuple[Tree, Any, Any]:
        new_y, new_state, aux = super().step(fn, y, args, options, state, tags)
        # The arguments of diffrax's equation of a stage, y = stage + diagonal * prod(f(y), dt).
        _, diagonal, _, prod, _, stage, _, dt = args
        update = jax.tree.map(lambda d: diagonal * d, prod(new_state.diff, dt))
        scaled = jax.tree.map(lambda d, y: d / (self.atol + self.rtol * jnp.abs(y)), update, stage)
        return new_y, eqx.tree_at(lambda s: s.diffsize, new_state, self.norm(scaled)), aux

    def terminate(
        self,
        fn: Any,
        y: Tree,
        args: Tree,
        options: dict[str, Any],
        state: Any,
        tags: frozenset[object],
    ) -> tuple[Array, optx.RESULTS]:
        rate = state.diffsize / state.diffsize_prev
        remaining = state.diffsize * rate / (1 - rate)
        # A second iteration is needed to know the rate. An update at rounding level is converged
        # whatever its rate, which is noise there.
        known = state.step >= 2
        rounding = 10 ** (2 - jnp.finfo(state.diffsize.dtype).precision)
        converged = (state.diffsize < rounding) | ((remaining > 0) & (remaining < self.kappa))
        diverged = ~converged & (~jnp.isfinite(rate) | (rate > 2))
        broken = state.result != optx.RESULTS.successful
        result = optx.RESULTS.where(
            known & diverged, optx.RESULTS.nonlinear_divergence, optx.RESULTS.successful
        )
        result = optx.RESULTS.where(broken, state.result, result)
        return broken | (known & (converged | diverged)), result


def stiff_solver(order: int = 5) -> diffrax.AbstractSolver:
    """Return Kvaerno's L-stable method of order 3, 4 or 5 with the corrected root finder.

    Every diagonally implicit method of the package comes from here: with diffrax's own root finder
    these methods take 10 to 30 times as many steps.
    """
    methods = {3: diffrax.Kvaerno3, 4: diffrax.Kvaerno4, 5: diffrax.Kvaerno5}
    if isinstance(order, bool) or not isinstance(order, int) or order not in methods:
        raise argument_error("order", "3, 4 or 5", shown(order))
    return methods[order](root_finder=diffrax.with_stepsize_controller_tols(Chord)())
