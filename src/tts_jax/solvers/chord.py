"""The chord root finder of diffrax with its termination test corrected.

diffrax 0.7.2 reports "not converged yet" as "diverged", so that every stage of an implicit method
gets two iterations and half of all steps are rejected. The correction is merged upstream (pull
request 754 of diffrax) but not released: this file goes with the next release.
"""

from typing import Any

import diffrax
import jax.numpy as jnp
import optimistix as optx

from .._types import Array, Tree


class Chord(diffrax.VeryChord):
    """`diffrax.VeryChord`, one linearisation a step, that goes on iterating while it converges."""

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
