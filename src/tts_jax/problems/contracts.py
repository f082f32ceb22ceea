"""The contract of a user's own problem, and a check that it is kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from .._errors import check_64_bit, check_type
from .._types import Array, Tree
from ..models.contracts import contract_error
from ..models.network import Params
from ..numerics.gram import RIDGE
from .base import AbstractProblem

_SAMPLES = 4096
"""Samples that are drawn to compare their mean loss with the risk."""


def check_problem(problem: AbstractProblem, params: Params) -> float:
    """Check a problem against its contract at some parameters; return how far its parts differ.

    **Arguments:** an instance of a user's own `AbstractProblem`, and parameters of generic values.

    **Returns:** the largest relative difference that was seen between the gradient of the risk and
    finite differences.

    **Raises:** `ValueError` naming what does not hold: the risk is one finite number with finite
    first and second derivatives that match finite differences; and of the methods that the class
    has: samples of `draw` and `from_uniform` have labels `label(x)`, their mean `sample_loss` is
    the risk within 6 standard errors, `sample_losses` are those of the runs one by one, no outer
    layer is better than `best_outer`, and the `closed_form` has the values and the gradient of the
    risk. A problem with noisy labels, or with another loss of samples than its risk, does not keep
    this contract, and may be right all the same.
    """
    check_64_bit()
    check_type("problem", problem, AbstractProblem)
    check_type("params", params, Params)
    problem.check(params)
    params = jax.tree.map(jnp.asarray, params)
    error = _check_risk(problem, params)
    kind = type(problem)
    if kind.draw is not AbstractProblem.draw:
        _check_samples(problem, params, "draw")
    if kind.from_uniform is not AbstractProblem.from_uniform:
        _check_samples(problem, params, "from_uniform")
    if problem.has_best_outer():
        _check_best_outer(problem, params)
    _check_closed_form(problem, params)
    return error


def _check_risk(problem: AbstractProblem, params: Params) -> float:
    fail = functools.partial(contract_error, problem)
    value = problem.risk(params)
    if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise fail("`risk` must return one real number", f"{value!r}")
    if not np.isfinite(value):
        raise fail("`risk` must be finite", float(value))
    at, back = ravel_pytree(params)
    risk = jax.jit(lambda v: problem.risk(back(v)))
    gradient = np.asarray(jax.jit(jax.grad(risk))(at))
    if not np.all(np.isfinite(gradient)):
        raise fail("the gradient of `risk` must be finite", gradient)
    towards = jnp.asarray(np.cos(np.arange(at.size) * 1.7 + 0.3))
    bend = jax.jit(lambda v: jax.jvp(jax.grad(risk), (v,), (towards,))[1])(at)
    if not np.all(np.isfinite(bend)):
        raise fail("the second derivatives of `risk` must be finite", bend)
    step = 1e-6 * max(float(jnp.max(jnp.abs(at))), 1.0)
    difference = float(risk(at + step * towards) - risk(at - step * towards)) / (2 * step)
    along = float(gradient @ towards)
    size = max(abs(difference), float(np.linalg.norm(gradient)), 1e-300)
    error = abs(along - difference) / size
    if error > 1e-4:
        raise fail(f"the gradient of `risk` must match finite differences, {difference:g}", along)
    return error


def _check_samples(problem: AbstractProblem, params: Params, way: str) -> None:
    fail, key = functools.partial(contract_error, problem), jax.random.key(0)
    if way == "draw":
        x, y = problem.draw(key, _SAMPLES)
    else:
        x, y = problem.from_uniform(jax.random.uniform(key, (_SAMPLES,)))
    if any(jnp.shape(v)[:1] != (_SAMPLES,) for v in (x, y)) or jnp.ndim(y) > 2:
        shapes = f"{jnp.shape(x)} and {jnp.shape(y)}"
        raise fail(f"`{way}` must return inputs and targets with the count first", shapes)
    if type(problem).label is not AbstractProblem.label:
        most = np.max(np.abs(np.asarray(problem.label(x)) - np.asarray(y)))
        if not most <= 1e-9 * max(float(jnp.max(jnp.abs(y))), 1.0):
            raise fail(f"the targets of `{way}` must be `label(x)`", f"a difference of {most:g}")
    if type(problem).sample_loss is AbstractProblem.sample_loss:
        return
    losses = np.asarray(jax.vmap(lambda x, y: problem.sample_loss(params, x[None], y[None]))(x, y))
    mean, error = losses.mean(), losses.std() / np.sqrt(_SAMPLES)
    if not abs(mean - float(problem.risk(params))) <= 6 * error + 1e-9 * abs(mean):
        what = f"the mean `sample_loss` of samples of `{way}` must be the risk, "
        raise fail(f"{what}{float(problem.risk(params)):g}", f"{mean:g} +- {error:g}")
    runs = [params, jax.tree.map(lambda leaf: 0.9 * leaf, params)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves, -1), *runs)
    x2, y2 = (jnp.stack([v[:8], v[8:16]], -1) for v in (x, y))
    found = problem.sample_losses(together, x2, y2)
    single = [problem.sample_loss(run, x2[..., i], y2[..., i]) for i, run in enumerate(runs)]
    if jnp.shape(found) != (2,) or not np.allclose(found, jnp.stack(single), rtol=1e-9):
        raise fail("`sample_losses` must be the `sample_loss` of each run", found)


def _check_best_outer(problem: AbstractProblem, params: Params) -> None:
    def risk(a: Tree) -> Array:
        return problem.risk(Params(a, params.u))

    best = problem.best_outer(params.u, ridge=RIDGE)
    least = float(risk(best))
    flat, back = ravel_pytree(best)
    size = 1e-2 * max(float(jnp.max(jnp.abs(flat))), 1.0)
    for i in range(4):
        moved = flat + size * jnp.asarray(np.cos(np.arange(flat.size) * (1.3 + i) + i))
        other = float(risk(back(moved)))
        if other < least - 1e-9 * abs(least) - 1e-14:
            what = f"no outer layer must have a smaller risk than `best_outer`, {least:g}"
            raise contract_error(problem, what, f"{other:g} beside it")


def _check_closed_form(problem: AbstractProblem, params: Params) -> None:
    form = problem.closed_form(problem.width(params))
    if form is None:
        return
    several = jax.tree.map(lambda leaf: leaf[None], params)
    value, exact = float(form.risks(several)[0]), float(problem.risk(params))
    if not np.isclose(value, exact, rtol=1e-7, atol=1e-12):
        what = f"the risk of `closed_form` must be that of the problem, {exact:g}"
        raise contract_error(problem, what, value)
    state, kept = form.to_state(params)
    system = form.system(jnp.ones(()), jnp.zeros(()))
    velocity = jax.jit(lambda y: system.velocity(y))(state)

    def to_params(state: Tree) -> Params:
        return jax.tree.map(
            lambda leaf: leaf[0], form.to_params(jax.tree.map(lambda leaf: leaf[None], state), kept)
        )

    found = jax.jvp(to_params, (state,), (velocity,))[1]
    wanted = jax.tree.map(lambda g: -g, jax.grad(problem.risk)(params))
    for name, got, expected in zip(("a", "u"), found, wanted, strict=True):
        pairs = zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
        if not all(np.allclose(g, e, rtol=1e-6, atol=1e-9) for g, e in pairs):
            what = f"the velocity of `closed_form` at epsilon = 1 must be -dL/d{name}"
            raise contract_error(problem, what, got)
