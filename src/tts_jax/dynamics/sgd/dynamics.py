"""Stochastic gradient descent with two step sizes, on the clock of the flows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import Status, argument_error, check_finite, is_concrete, is_traced
from ..._memory import check_memory
from ..._numbers import as_floats, as_whole, check_key, check_scalar, real, shown, word
from ..._programs import compiled
from ..._types import Array, Count, Real, Scalar, Times, Tree
from ...models.network import Params
from ...problems.base import AbstractProblem
from ...problems.population import Problem
from ...problems.recorded_risks import recorded_risks
from ..base import AbstractDynamics, Progress, RunInputs, RunOutputs, Samples
from ..rates import as_rates, check_rates, check_rates_fit, is_by_leaf, rates_like
from .checkpoints import record_in_pieces
from .diagnostics import coarse_steps, sgd_scales
from .forward_only import forward_only
from .many_runs import record_run
from .run_spec import OptaxUpdate, PlainUpdate, RunSpec, activations, trained_problem
from .samples import source_of

if TYPE_CHECKING:
    import optax

_NEURON_SECONDS = 1e-9
"""Of one core of a machine of 2026 with wide vectors, for a sample and a neuron of a run out of
many side by side. From benchmarks/sgd.py."""
_DIVERGED = 1e8
"""How many times the risk of the start, or of an output of zero, the risk is after a divergence:
far above what any run passes through on its way down."""
_LONG, _MANY_FULL_STEPS = 0.5, 1000
"""Expected seconds, and training steps on the whole risk, of a run that goes in pieces."""
_MOST_STEPS = 2**53
"""Training steps up to which they can be counted. They would take ten years."""
_FULL_BATCH = 100
"""Samples that a gradient of the whole risk costs as much as, about."""


_MOST_SAMPLES = 2**31 - 1


def _as_batch_size(size: Any) -> Any:
    if isinstance(size, str) and size == "full":
        return size
    try:
        return as_whole("batch_size", size, most=_MOST_SAMPLES)
    except ValueError:
        expected = f'a whole number from 1 to {_MOST_SAMPLES}, or "full"'
        raise argument_error("batch_size", expected, shown(size)) from None


class SGD(AbstractDynamics):
    """a -= h grad_a loss, u -= h epsilon rates grad_u loss; step p at slow time tau = epsilon h p.

    A sample is x, drawn by the problem, and y = f*(x) + noise with noise uniform on [-s, s].

    **Arguments:** `epsilon`; `step_size` h; `noise` s; `batch_size`: samples per step, or "full"
    for gradient descent on the problem's whole risk, without noise and without a key; `gradient`:
    "exact", or "box" for the derivative of the activation replaced by the indicator of its
    transition, as in the paper's own code; `optimiser`: any optax transformation of gradients of
    `Params`, in place of the two plain steps: then its own rates move the parameters, and epsilon
    and h only set the clock, epsilon h of slow time a step. One optimiser for each layer:
    `optax.partition({"a": fast, "u": slow}, Params("a", "u"))`.
    One that asks for the value of the loss is given that of the batch, and a line search goes with
    "full". `rates`: how fast the leaves of u move, relative to each other, None for 1 everywhere: a
    tree like u, or the beginning of one, of numbers, which cost nothing, or of arrays that
    broadcast to the leaves of u. Arrays do without the kernel on a GPU and without filling up
    vector registers. At a rate of 0 a leaf rests.

    `simulate` takes the steps up to tau, round(tau / (epsilon h)) of them, needs a `key`, or
    `samples=(x, noise)` to replay a stream: each (steps, ...), or with a batch (steps, batch, ...).
    Runs in float32 if the parameters are float32, and does not lose small steps of u then.

    **Raises:** `ValueError` for numbers that are not positive, a noise below 0, unknown words, and
    rates that are negative, not finite, not like u, or beside an optimiser.
    """

    draws: ClassVar[bool] = True
    sweepable: ClassVar[tuple[str, ...]] = ("epsilon", "step_size", "noise")
    precisions: ClassVar[tuple[str, ...]] = ("float64", "float32")
    even_steps: ClassVar[bool] = True

    epsilon: Real = eqx.field(converter=real("epsilon"))
    step_size: Real = eqx.field(converter=real("step_size"))
    noise: Real = eqx.field(default=0.0, converter=real("noise"), kw_only=True)
    batch_size: int | Literal["full"] = eqx.field(
        static=True, default=1, kw_only=True, converter=_as_batch_size
    )
    gradient: Literal["exact", "box"] = eqx.field(
        static=True, default="exact", kw_only=True, converter=word("gradient", "exact", "box")
    )
    optimiser: "optax.GradientTransformation | None" = eqx.field(default=None, kw_only=True)
    rates: Tree = eqx.field(default=None, kw_only=True, converter=as_rates)

    def __check_init__(self):
        check_scalar("epsilon", self.epsilon, minimum=0.0, strict=True)
        check_scalar("step_size", self.step_size, minimum=0.0, strict=True)
        check_scalar("noise", self.noise, minimum=0.0, strict=False)
        parts = [getattr(self.optimiser, name, None) for name in ("init", "update")]
        if self.optimiser is not None and not all(map(callable, parts)):
            expected = "an optax.GradientTransformation such as optax.adam(1e-3), or None"
            raise argument_error("optimiser", expected, shown(self.optimiser))
        check_rates(self.rates)
        if self.rates is not None and self.optimiser is not None:
            expected = "None beside an `optimiser`, whose own rates move the parameters"
            raise argument_error("rates", expected, shown(self.rates))

    def steps_until(self, taus: Times) -> Array:
        """Return the number of training steps up to each slow time, round(tau / (epsilon h))."""
        taus = jnp.asarray(as_floats("taus", taus))
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
        check_rates_fit(self.rates, given.params.u)
        if self.batch_size == "full":
            if samples is not None or not (is_concrete(self.noise) and self.noise == 0):
                raise argument_error(
                    "batch_size", "a number where there are samples or noise", "full"
                )
        elif samples is not None:
            self._check_samples(problem, given.taus, samples)
        else:
            check_key("key", given.key, hint=" for SGD, which draws samples")
        if self.batch_size != "full":
            entries = sum(map(np.size, jax.tree.leaves(given.params)))
            check_memory("batch_size", self.batch_size * entries)
        silent = is_concrete(self.noise) and not np.any(np.asarray(self.noise))
        if not silent and not problem.takes_noise():
            raise argument_error("noise", "0 where the targets are classes", shown(self.noise))
        self._check_clock(given.taus, dtype)
        needed = ("sample_loss", "label" if samples is not None else "draw")
        for name in needed if self.batch_size != "full" else ():
            others = {name, {"draw": "from_uniform", "label": "replayed"}.get(name, name)}
            kind = type(problem)
            if all(getattr(kind, n) is getattr(AbstractProblem, n) for n in others):
                raise argument_error(
                    "problem", f"one with a `{name}`", f"a {type(problem).__name__}"
                )
        if self.gradient == "box":
            self._check_box(problem)

    def _check_clock(self, taus: Times, dtype: Any) -> None:
        """Raise unless the training steps can be counted, and move parameters of this precision."""
        if not is_concrete(self, taus):
            return
        slow, least = float(self.epsilon) * float(self.step_size), float(jnp.finfo(dtype).tiny)
        if slow < least:
            raise argument_error(
                "epsilon",
                f"at least {least:.3g} when multiplied by `step_size`: a smaller product computes "
                f"as 0 in {dtype}",
                self.epsilon,
            )
        steps = float(np.asarray(taus)[-1]) / slow
        if steps > _MOST_STEPS:
            expected = f"at most 2^53 training steps of {slow:.3g} long"
            raise argument_error("taus", expected, f"{steps:.3g} steps")

    def _check_box(self, problem: AbstractProblem) -> None:
        are_steps = [activation.limits is not None for activation in activations(problem)]
        if not are_steps or not all(are_steps):
            expected = '"exact" for a problem without a step-like activation'
            raise argument_error("gradient", expected, '"box"')
        if self.batch_size == "full" and isinstance(problem, Problem):
            # The exact risk is integrated between the knots of the activation's own derivative.
            raise argument_error("gradient", '"exact" for the full risk of a Problem', '"box"')

    def _check_samples(self, problem: AbstractProblem, taus: Times, samples: Samples) -> None:
        x, noise = samples
        check_finite("samples", samples)
        if not problem.takes_noise() and not (is_concrete(noise) and not np.any(noise)):
            raise argument_error("samples", "without noise where the targets are classes", "with")
        problem.check_samples(x)
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
            with jax.ensure_compile_time_eval():  # also inside a transformation
                steps = int(self.steps_until(jnp.asarray(taus))[-1])
            if np.shape(noise)[0] < steps:
                raise argument_error(
                    "samples", f"at least {steps} steps long for these taus", np.shape(noise)[0]
                )

    def run(self, given: RunInputs) -> RunOutputs:
        dynamics, given = forward_only((self, given))
        return run_outputs(dynamics, given, *record_run(dynamics.spec(given)))

    def spec(self, given: RunInputs) -> RunSpec:
        """Return all that decides where a run goes. To be traced."""
        params = given.params
        fast = jnp.asarray(self.step_size)
        if self.optimiser is None:
            optimiser, update = None, self._plain_update(fast, params)
        else:
            optimiser = self.optimiser.init(params)
            trained = trained_problem(given.problem, params, box=self.gradient == "box")
            risk = trained.risk if self.batch_size == "full" else None
            update = OptaxUpdate(self.optimiser, params, optimiser, risk)
        source = source_of(given, jnp.asarray(self.noise), self.batch_size)
        stops = self.steps_until(given.taus)
        box = self.gradient == "box"
        return RunSpec(stops, params, given.problem, source, optimiser, update, box)

    def _plain_update(self, fast: Scalar, params: Params) -> PlainUpdate:
        """Return the update without an optimiser, of steps h = `fast`."""
        slow = fast * self.epsilon
        if self.rates is None:
            return PlainUpdate(fast=fast, slow=slow)
        by_leaf = is_by_leaf(self.rates)
        rates = self.rates if by_leaf else rates_like(self.rates, params.u)
        sizes = jax.tree.map(lambda rate: slow * jnp.asarray(rate, slow.dtype), rates)
        return PlainUpdate(fast=fast, slow=sizes, is_elementwise=by_leaf)

    def is_long(self, given: RunInputs) -> bool:
        if not is_concrete(self, given):
            return False
        problem, taus = given.problem, np.asarray(given.taus).tolist()
        seconds = self.expected_seconds(problem, problem.width(given.params), taus)
        # A step on the whole risk may take any time.
        many = self.batch_size == "full" and self.expected_steps(taus[-1]) > _MANY_FULL_STEPS
        return (many or seconds > _LONG) and not is_traced()

    def run_in_pieces(
        self, given: RunInputs, progress: Progress | None, checkpoint: Path | None
    ) -> RunOutputs:
        ys, steps = record_in_pieces(self, given, progress, checkpoint)
        return _run_outputs(self, given, ys, steps)

    def cautions(self, stats: Mapping[str, Any]) -> list[Warning]:
        return coarse_steps(stats)


def run_outputs(dynamics: SGD, given: RunInputs, ys: Params, steps: Count) -> RunOutputs:
    """Return what a run leaves that recorded `ys` (T, ...) and took so many training steps."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(ys)]))
    ys = jax.tree.map(lambda y: jnp.where(jnp.isfinite(y), y, jnp.nan), ys)
    exact = jax.tree.map(lambda y: y.astype(jnp.float64), ys)
    # Together: the program of a risk takes long to compile.
    others = _without_training(given.params)
    both = jax.tree.map(lambda *rows: jnp.concatenate(rows), others, exact)
    sizes, risk = jnp.split(recorded_risks(given.problem, both), [2])
    finite = finite & jnp.all(jnp.isfinite(risk))
    noise = jnp.asarray(dynamics.noise)
    if given.samples is not None:
        noise = jnp.max(jnp.abs(given.samples[1]))
    scale = jnp.max(jnp.where(jnp.isfinite(sizes), jnp.abs(sizes), 0.0)) + noise**2
    diverged = (scale > 0) & ~(risk[-1] <= _DIVERGED * scale)
    status = jnp.where(diverged, Status.DIVERGED, Status.OK)
    status = jnp.where(finite, status, Status.NON_FINITE).astype(jnp.int32)
    stats: dict[str, Any] = {"steps": steps}
    batch = dynamics.batch_size
    if dynamics.optimiser is None and batch != "full":
        fast = jnp.asarray(dynamics.step_size)
        slow, box = fast * dynamics.epsilon, dynamics.gradient == "box"
        rates = None if dynamics.rates is None else rates_like(dynamics.rates, given.params.u)
        stats |= sgd_scales(given.problem, exact, fast, slow, noise, batch, box=box, rates=rates)
    if given.samples is not None:
        # Under a transformation `check` cannot count the steps: the status tells instead.
        too_few = dynamics.steps_until(given.taus[-1]) > given.samples[1].shape[0]
        ys = jax.tree.map(lambda y: jnp.where(too_few, jnp.nan, y), ys)
        risk = jnp.where(too_few, jnp.nan, risk)
        status = jnp.where(too_few, Status.TOO_FEW_SAMPLES, status).astype(jnp.int32)
    return RunOutputs(ys, risk, status, stats)


_run_outputs = compiled(run_outputs)


def _without_training(params: Params) -> Params:
    """Return the start as it is and with an output of zero, (2, ...): what a run is compared to."""
    a, u = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    return Params(
        jax.tree.map(lambda leaf: jnp.stack([leaf, jnp.zeros_like(leaf)]), a),
        jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), u),
    )
