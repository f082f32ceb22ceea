"""Stochastic gradient descent with two step sizes, on the clock of the flows."""

import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import Status, argument_error, check_finite, check_scalar, is_concrete
from ..._types import Array, Count, Real, Scalar, Times, Tree, as_real
from ...batching.sequential import in_turn
from ...models.activations import AbstractActivation, BoxGradient
from ...models.network import Params
from ...problems.base import AbstractProblem, risks
from ...problems.population import Problem
from ..base import AbstractDynamics, RunInputs, RunOutputs, Samples
from .diagnostics import has_scales, sgd_scales
from .many_runs import Numbers, Recipe, all_runs
from .samples import of_dtype, source_of

if TYPE_CHECKING:
    import optax

_NEURON_SECONDS = 1e-9
"""Of one core of a machine of 2026 with wide vectors, for a sample and a neuron of a run out of
many side by side. From benchmarks/sgd.py."""
_FULL_BATCH = 100
"""Samples that a gradient of the whole risk costs as much as, about."""


class SGD(AbstractDynamics):
    """a -= h grad_a loss, u -= h epsilon grad_u loss; step p at slow time tau = epsilon h p.

    A sample is x, drawn by the problem, and y = f*(x) + noise with noise uniform on [-s, s].

    **Arguments:** `epsilon`; `step_size` h; `noise` s; `batch_size`: samples per step, or "full"
    for gradient descent on the problem's whole risk, without noise and without a key; `gradient`:
    "exact", or "box" for the derivative of the activation replaced by the indicator of its
    transition, as in the paper's own code; `optimiser`: any optax transformation of gradients of
    `Params`, in place of the two plain steps: then its own rates move the parameters, and epsilon
    and h only set the clock, epsilon h of slow time a step. One optimiser for each layer:
    `optax.partition({"a": fast, "u": slow}, Params("a", "u"))`. Make it once: a new one recompiles.

    `simulate` takes the steps up to tau, round(tau / (epsilon h)) of them, needs a `key`, or
    `samples=(x, noise)` to replay a stream: each (steps, ...), or with a batch (steps, batch, ...).
    Runs in float32 if the parameters are float32, and does not lose small steps of u then.

    **Raises:** `ValueError` for numbers that are not positive, a noise below 0, or unknown words.
    """

    draws: ClassVar[bool] = True
    sweepable: ClassVar[tuple[str, ...]] = ("epsilon", "step_size", "noise")
    precisions: ClassVar[tuple[str, ...]] = ("float64", "float32")
    even_steps: ClassVar[bool] = True

    epsilon: Real = eqx.field(converter=as_real)
    step_size: Real = eqx.field(converter=as_real)
    noise: Real = eqx.field(default=0.0, converter=as_real, kw_only=True)
    batch_size: int | Literal["full"] = eqx.field(static=True, default=1, kw_only=True)
    gradient: Literal["exact", "box"] = eqx.field(static=True, default="exact", kw_only=True)
    optimiser: "optax.GradientTransformation | None" = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        check_scalar("epsilon", self.epsilon, minimum=0.0, strict=True)
        check_scalar("step_size", self.step_size, minimum=0.0, strict=True)
        check_scalar("noise", self.noise, minimum=0.0, strict=False)
        if self.batch_size != "full" and not (
            isinstance(self.batch_size, numbers.Integral) and self.batch_size >= 1
        ):
            raise argument_error("batch_size", 'at least 1, or "full"', repr(self.batch_size))
        if self.gradient not in ("exact", "box"):
            raise argument_error("gradient", '"exact" or "box"', repr(self.gradient))

    def steps_until(self, taus: Times) -> Array:
        """The number of steps up to each slow time, round(tau / (epsilon h)), as int64."""
        return jnp.round(taus / (self.epsilon * self.step_size)).astype(jnp.int64)

    def expected_steps(self, horizon: float) -> float:
        return float(max(1, round(horizon / (float(self.epsilon) * float(self.step_size)))))

    def expected_seconds(
        self, problem: AbstractProblem, width: int, taus: Sequence[float]
    ) -> float:
        del problem
        samples = _FULL_BATCH if self.batch_size == "full" else self.batch_size
        return _NEURON_SECONDS * width * samples * self.expected_steps(taus[-1])

    def check(self, given: RunInputs) -> None:
        problem, samples = given.problem, given.samples
        dtype = jnp.result_type(*jax.tree.leaves(given.params))
        if dtype not in (jnp.float32, jnp.float64):
            raise argument_error("params", "of dtype float32 or float64 for SGD", f"of {dtype}")
        if self.batch_size == "full":
            if samples is not None or not (is_concrete(self.noise) and self.noise == 0):
                raise argument_error(
                    "batch_size", "a number where there are samples or noise", "full"
                )
        elif samples is not None:
            self._check_samples(problem, given.taus, samples)
        elif not isinstance(given.key, jax.Array):
            expected = "a jax.random.key for SGD, which draws samples"
            raise argument_error("key", expected, repr(given.key))
        needed = ("sample_loss", "label" if samples is not None else "draw")
        for name in needed if self.batch_size != "full" else ():
            others = {name, "from_uniform"} if name == "draw" else {name}
            kind = type(problem)
            if all(getattr(kind, n) is getattr(AbstractProblem, n) for n in others):
                raise argument_error(
                    "problem", f"one with a `{name}`", f"a {type(problem).__name__}"
                )
        if self.gradient == "box":
            self._check_box(problem)

    def _check_box(self, problem: AbstractProblem) -> None:
        steps = [activation.limits is not None for activation in _activations(problem)]
        if not steps or not all(steps):
            expected = '"exact" for a problem without a step-like activation'
            raise argument_error("gradient", expected, '"box"')
        if self.batch_size == "full" and isinstance(problem, Problem):
            # The exact risk is integrated between the knots of the activation's own derivative.
            raise argument_error("gradient", '"exact" for the full risk of a Problem', '"box"')

    def _check_samples(self, problem: AbstractProblem, taus: Times, samples: Samples) -> None:
        x, noise = samples
        check_finite("samples", samples)
        if isinstance(problem, Problem) and is_concrete(x) and np.size(x):
            low, high = float(np.min(x)), float(np.max(x))
            if low < 0 or high > 1:
                raise argument_error("samples", "with x in [0, 1]", f"from {low:g} to {high:g}")
        lead = 1 if self.batch_size == 1 and np.ndim(noise) == 1 else 2
        if np.ndim(noise) != lead or np.shape(x)[:lead] != np.shape(noise):
            raise argument_error(
                "samples",
                "(x, noise) with noise (steps,) or (steps, batch) and x of as many",
                f"of shapes {np.shape(x)} and {np.shape(noise)}",
            )
        if lead == 2 and np.shape(noise)[1] != self.batch_size:
            raise argument_error(
                "samples", f"batches of {self.batch_size}", f"batches of {np.shape(noise)[1]}"
            )
        if is_concrete(self, taus):
            steps = int(self.steps_until(jnp.asarray(taus))[-1])
            if np.shape(noise)[0] < steps:
                raise argument_error(
                    "samples", f"at least {steps} steps long for these taus", np.shape(noise)[0]
                )

    def run(self, given: RunInputs) -> RunOutputs:
        ys, steps = all_runs(*self.prepare(given))
        found = records(self, given, ys, steps)
        if given.samples is None:
            return found
        # Under a transformation `check` cannot count the steps: the status tells instead.
        short = self.steps_until(given.taus[-1]) > given.samples[1].shape[0]
        blank = jax.tree.map(lambda v: jnp.where(short, jnp.nan, v), found.params)
        risk = jnp.where(short, jnp.nan, found.risk)
        status = jnp.where(short, Status.TOO_FEW_SAMPLES, found.status).astype(jnp.int32)
        return RunOutputs(blank, risk, status, found.stats)

    def prepare(self, given: RunInputs) -> tuple[Recipe, Numbers]:
        """How steps are made, and the numbers of a run. To be traced."""
        params = given.params
        dtype = jnp.result_type(*jax.tree.leaves(params))
        fast = jnp.asarray(self.step_size)
        update, state, rates = _plain_update, None, [fast, fast * self.epsilon]
        if self.optimiser is not None:
            optimiser = self.optimiser
            state = optimiser.init(params)
            # Rates that are traced are lifted out of it: vmap does not see them inside.
            update, rates = jax.closure_convert(
                lambda gradient, params, state: optimiser.update(gradient, state, params),
                *(params, params, state),
            )

        def train(problem: AbstractProblem) -> AbstractProblem:
            return of_dtype(_boxed(problem) if self.gradient == "box" else problem, dtype)

        source = source_of(given, jnp.asarray(self.noise), self.batch_size)
        stops = self.steps_until(given.taus)
        recipe = Recipe(update, train, plain=self.optimiser is None)
        return recipe, Numbers(stops, params, given.problem, source, state, list(rates))


def _plain_update(
    gradient: Params, params: Params, state: None, fast: Scalar, slow: Scalar
) -> tuple[Params, None]:
    def change(slope: Tree, size: Scalar) -> Tree:
        return jax.tree.map(lambda g: -size.astype(g.dtype) * g, slope)

    return Params(change(gradient.a, fast), change(gradient.u, slow)), state


def records(dynamics: SGD, given: RunInputs, ys: Params, steps: Count) -> RunOutputs:
    """What a run leaves that recorded `ys` (T, ...) and took so many steps."""
    problem = given.problem
    leaves = jax.tree.leaves(ys)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
    status = jnp.where(finite, Status.OK, Status.NON_FINITE).astype(jnp.int32)
    ys = jax.tree.map(lambda y: jnp.where(jnp.isfinite(y), y, jnp.nan), ys)
    exact = jax.tree.map(lambda y: y.astype(jnp.float64), ys)
    risk = risks(problem, exact)
    stats: dict[str, Any] = {"steps": steps}
    batch = dynamics.batch_size
    if has_scales(problem) and dynamics.optimiser is None and batch != "full":
        size = jnp.asarray(dynamics.step_size)
        slow, noise = size * dynamics.epsilon, jnp.asarray(dynamics.noise)
        if given.samples is not None:
            noise = jnp.max(jnp.abs(given.samples[1]))
        floats, rest = eqx.partition(problem, eqx.is_inexact_array)

        def scales(
            floats: Tree, ys: Params, size: Scalar, slow: Scalar, noise: Scalar
        ) -> dict[str, Scalar]:
            whole = eqx.combine(floats, rest)
            return sgd_scales(whole, ys, size, slow, noise, batch, box=dynamics.gradient == "box")

        # A vmapped quadrature over all runs would need memory for every one of them.
        stats |= in_turn(scales)(floats, exact, size, slow, noise)
    return RunOutputs(ys, risk, status, stats)


def _is_activation(node: Any) -> bool:
    return isinstance(node, AbstractActivation)


def _activations(problem: AbstractProblem) -> list[Any]:
    leaves = jax.tree.leaves(problem, is_leaf=_is_activation)
    return [leaf for leaf in leaves if _is_activation(leaf)]


def _boxed(problem: AbstractProblem) -> AbstractProblem:
    """The problem with every activation's derivative replaced; all values stay the same."""
    return jax.tree.map(
        lambda node: BoxGradient(node) if _is_activation(node) else node,
        problem,
        is_leaf=_is_activation,
    )
