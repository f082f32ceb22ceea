"""Stochastic gradient descent with two step sizes, on the clock of the flows."""

import numbers
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .._errors import Status, argument_error, check_finite, check_scalar, is_concrete
from .._types import Array, Count, Real, Times, Tree, as_real
from ..activations import AbstractActivation, BoxGradient
from ..networks import Params
from ..problem import AbstractProblem, Problem
from .base import AbstractDynamics, Given, Progress, Records, Samples

CHUNK = 4096
"""Samples drawn at a time. Chunk c of a run comes from fold_in(key, c), whatever is recorded."""

PIECE = 2_000_000
"""Samples between two reports of progress."""


_Losses = Callable[[AbstractProblem, Count], Callable[[Params], Array]]


class _Carry(NamedTuple):
    params: Params
    optimiser: Any
    step: Count


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
    Runs in float32 if the parameters are float32 (small steps of u may then be lost).

    **Raises:** `ValueError` for numbers that are not positive, a noise below 0, or unknown words.
    """

    draws: ClassVar[bool] = True

    epsilon: Real = eqx.field(converter=as_real)
    step_size: Real = eqx.field(converter=as_real)
    noise: Real = eqx.field(default=0.0, converter=as_real, kw_only=True)
    batch_size: int | Literal["full"] = eqx.field(static=True, default=1, kw_only=True)
    gradient: Literal["exact", "box"] = eqx.field(static=True, default="exact", kw_only=True)
    optimiser: optax.GradientTransformation | None = eqx.field(default=None, kw_only=True)

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

    def check(self, given: Given) -> None:
        problem, samples = given.problem, given.samples
        if self.batch_size == "full":
            if samples is not None or not (is_concrete(self.noise) and self.noise == 0):
                raise argument_error(
                    "batch_size", "a number where there are samples or noise", "full"
                )
        elif samples is not None:
            self._check_samples(given.taus, samples)
        elif not isinstance(given.key, jax.Array):
            expected = "a jax.random.key for SGD, which draws samples"
            raise argument_error("key", expected, repr(given.key))
        needed = {"sample_loss", "label" if samples is not None else "draw"}
        for name in needed if self.batch_size != "full" else ():
            if getattr(type(problem), name) is getattr(AbstractProblem, name):
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

    def _check_samples(self, taus: Times, samples: Samples) -> None:
        x, noise = samples
        check_finite("samples", samples)
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

    def run(self, given: Given) -> Records:
        def record(carry: _Carry, stop: Count) -> tuple[_Carry, Params]:
            carry = self._advance(given, carry, stop)
            return carry, carry.params

        carry, ys = jax.lax.scan(record, self._begin(given.params), self.steps_until(given.taus))
        records = _records(given.problem, ys, carry)
        if given.samples is None:
            return records
        # Under a transformation `check` cannot count the steps: the status tells instead.
        short = self.steps_until(given.taus[-1]) > given.samples[1].shape[0]
        blank = jax.tree.map(lambda v: jnp.where(short, jnp.nan, v), records.params)
        risk = jnp.where(short, jnp.nan, records.risk)
        status = jnp.where(short, Status.TOO_FEW_SAMPLES, records.status).astype(jnp.int32)
        return Records(blank, risk, status, records.stats)

    def run_in_pieces(self, given: Given, progress: Progress) -> Records:
        """`run` as a loop on the host, which reports the fraction of steps done. Not traceable."""
        stops = np.asarray(self.steps_until(given.taus))
        piece = 100 if self.batch_size == "full" else max(1, PIECE // self.batch_size)
        carry, ys = self._begin(given.params), []
        for stop in stops:
            while carry.step < stop:
                until = jnp.minimum(carry.step + piece, stop)
                carry = _advance_jit(self, given, carry, until)
                progress(int(carry.step) / int(stops[-1]))
            ys.append(carry.params)
        return _records_jit(given.problem, jax.tree.map(lambda *y: jnp.stack(y), *ys), carry)

    def _begin(self, params: Params) -> _Carry:
        state = None if self.optimiser is None else self.optimiser.init(params)
        return _Carry(params, state, jnp.zeros((), jnp.int64))

    def _advance(self, given: Given, carry: _Carry, stop: Count) -> _Carry:
        """Steps up to number `stop`, by chunks of samples: the same chunks for every `stop`."""
        problem = _boxed(given.problem) if self.gradient == "box" else given.problem
        trained = _of_dtype(problem, carry.params)
        chunk, losses_of = self._stream(given)

        def one_chunk(carry: _Carry) -> _Carry:
            number = carry.step // chunk
            end = jnp.minimum(stop, (number + 1) * chunk)
            loss = losses_of(number)

            def one_step(i: Count, state: tuple[Params, Any]) -> tuple[Params, Any]:
                current, optimiser = state
                gradient = jax.grad(loss(trained, i))(current)
                return self._update(gradient, current, optimiser)

            params, optimiser = jax.lax.fori_loop(
                carry.step - number * chunk,
                end - number * chunk,
                one_step,
                (carry.params, carry.optimiser),
            )
            return _Carry(params, optimiser, end)

        return jax.lax.while_loop(lambda c: c.step < stop, one_chunk, carry)

    def _stream(self, given: Given) -> tuple[int, Callable[[Count], _Losses]]:
        """Steps per chunk, and a function from the chunk to the loss of each of its steps."""
        problem, key, samples = given.problem, given.key, given.samples
        if self.batch_size == "full":
            return 2**62, lambda number: lambda trained, i: trained.risk
        dtype = jnp.result_type(*jax.tree.leaves(given.params))
        if samples is not None:
            x, noise = samples
            batch = (x[:, None], noise[:, None]) if noise.ndim == 1 else (x, noise)
            steps = noise.shape[0]

            def draw(number: Count) -> Samples:
                return batch[0], problem.label(batch[0]) + batch[1]
        else:
            assert key is not None
            size = self.batch_size
            steps = max(1, CHUNK // size)

            def draw(number: Count) -> Samples:
                x_key, noise_key = jax.random.split(jax.random.fold_in(key, number))
                x, y = problem.draw(x_key, steps * size)
                noise = jax.random.uniform(noise_key, y.shape, y.dtype, -1.0, 1.0)
                y = y + jnp.asarray(self.noise, y.dtype) * noise
                return x.reshape(steps, size, *x.shape[1:]), y.reshape(steps, size)

        def losses(number: Count):
            x, y = (v.astype(dtype) for v in draw(number))
            return lambda trained, i: lambda params: trained.sample_loss(params, x[i], y[i])

        return steps, losses

    def _update(self, gradient: Params, params: Params, state: Any) -> tuple[Params, Any]:
        if self.optimiser is not None:
            updates, state = self.optimiser.update(gradient, state, params)
            return jax.tree.map(jnp.add, params, updates), state

        def step(half: Tree, slope: Tree, size: Real) -> Tree:
            return jax.tree.map(lambda p, g: p - jnp.asarray(size, p.dtype) * g, half, slope)

        a = step(params.a, gradient.a, self.step_size)
        u = step(params.u, gradient.u, self.step_size * self.epsilon)
        return Params(a, u), state


@eqx.filter_jit
def _advance_jit(dynamics: SGD, given: Given, carry: _Carry, stop: Count) -> _Carry:
    return dynamics._advance(given, carry, stop)


@eqx.filter_jit
def _records_jit(problem, ys, carry):
    return _records(problem, ys, carry)


def _records(problem: AbstractProblem, ys: Params, carry: _Carry) -> Records:
    leaves = jax.tree.leaves(ys)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
    status = jnp.where(finite, Status.OK, Status.NON_FINITE).astype(jnp.int32)
    ys = jax.tree.map(lambda y: jnp.where(jnp.isfinite(y), y, jnp.nan), ys)
    risk = jax.vmap(problem.risk)(jax.tree.map(lambda y: y.astype(jnp.float64), ys))
    return Records(ys, risk, status, {"steps": carry.step})


def _of_dtype(problem: AbstractProblem, params: Params) -> AbstractProblem:
    """The problem with its numbers in the precision of the parameters."""
    dtype = jnp.result_type(*jax.tree.leaves(params))
    return jax.tree.map(lambda v: v.astype(dtype) if eqx.is_inexact_array(v) else v, problem)


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
