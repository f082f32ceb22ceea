"""Problems of models that users have written with other libraries: Equinox, Flax, Haiku, none."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import (
    NotAffineWarning,
    argument_error,
    check_64_bit,
    is_concrete,
    is_traced,
    told_by,
)
from .._numbers import as_flag, as_word, shown
from .._types import Array, Real
from ..models.adapters import (
    FAST,
    Kind,
    in_halves,
    kinds_of,
    labels_by,
    picked_by,
)
from ..models.network import Params
from .affine import Predict, head_of, not_affine_in, spread
from .model import ModelProblem, SeparableModelProblem


def from_module(
    model: Any,
    x: Any,
    y: Any,
    fast: Callable[[Any], Any] = lambda model: model.layers[-1],
    *,
    frozen: Callable[[Any], Any] | None = None,
    weights: Any = None,
    penalty: Real = 0.0,
    batched: bool = False,
    separable: bool | None = None,
    dtype: Literal["float64", "float32"] = "float64",
) -> tuple[ModelProblem, Params]:
    """Return the problem of fitting an Equinox module to a sample, and where it starts.

    **Arguments:**

    - `model`: the module, or any callable pytree. It is called with one input x_i, and vmapped, as
      is usual in Equinox; with `batched=True` it is called with inputs (n, ...). Dropout must be
      switched off, by `equinox.nn.inference_mode(model)`; a model with a state does not fit.
    - `x` (N, ...): inputs of any shape. The model gets floating numbers.
    - `y`: (N,), or (N, K) for K outputs. An output (1,) for each input belongs to both y (N,) and
      (N, 1).
    - `fast`: a function of the module that returns the part, or the parts in a tuple, whose arrays
      are the fast leaves a, such as the last layer. All other arrays of real numbers are the slow
      leaves u.
    - `frozen`: a function like `fast`, for leaves that are not trained. Whole numbers, truth
      values, keys, and what is no array never are.
    - `weights` (N,): how much each sample counts, by default all the same; `penalty`: the factor
      of |a|^2, the sum of the squares of all fast leaves, in the risk.
    - `separable`: None to find out, at some random parameters, whether the model is affine in its
      fast leaves; True raises where it is not; False does not look, and has no `ReducedFlow`.
      Under a transformation True is believed.
    - `dtype`: the floating dtype that all numbers of the model get. Flows need float64, which is
      the default; SGD also runs in float32.

    **Returns:** a `SeparableModelProblem`, or a `ModelProblem` where the model is not affine in
    its fast leaves; and `Params(a, u)`, two modules with None in the place of each other's leaves.
    `problem.to_model(params)` is a module again, and so is that of a trajectory's.

    **Warns:** `NotAffineWarning`, naming the leaves that the model is not affine in.

    **Raises:** `ValueError` that names the argument, before anything is simulated.
    """
    as_flag("batched", batched)
    if not callable(model):
        raise argument_error("model", "a module that can be called", shown(model))
    picked, rest = picked_by("fast", fast, model), picked_by("frozen", frozen, model)
    kinds = kinds_of("model", model, picked, rest)
    call = _call if batched else _call_each
    return _problem("model", call, model, kinds, x, y, weights, penalty, separable, dtype)


def from_apply(
    apply: Callable[[Any, Array], Array],
    params: Any,
    x: Any,
    y: Any,
    fast: Any,
    *,
    frozen: Any = None,
    weights: Any = None,
    penalty: Real = 0.0,
    separable: bool | None = None,
    dtype: Literal["float64", "float32"] = "float64",
) -> tuple[ModelProblem, Params]:
    """Return the problem of fitting a function of parameters to a sample, and where it starts.

    **Arguments:**

    - `apply(params, x)`: the predictions, (n,) or (n, K), of inputs x (n, ...), any number of them
      and each by itself: that of Flax (`module.apply`), Haiku (after `hk.without_apply_rng`), or
      any function. It gets floating numbers.
    - `params`: the parameters, a pytree.
    - `x` (N, ...) and `y`, (N,) or (N, K). Predictions (n, 1) belong to both y (N,) and (N, 1).
    - `fast`: which leaves are the fast ones, a: the name of a layer, such as "Dense_1"; a function
      of the path of a leaf, a tuple of names, that returns True or False; or a pytree of labels
      like `params`, or a prefix of it. A label is True or "fast", False or "slow", or "fixed" for
      leaves that are not trained.
    - `frozen`: leaves that are not trained, in any of these ways. Whole numbers, truth values, keys
      and what is no number never are.
    - `weights`, `penalty`, `separable`, `dtype`: as in `from_module`.

    **Returns:** a `SeparableModelProblem`, or a `ModelProblem` where the predictions are not affine
    in the fast leaves; and `Params(a, u)`, two trees like `params` with None in the place of each
    other's leaves. `problem.to_model(params)` is a tree like `params` again.

    **Warns:** `NotAffineWarning`, naming the leaves that the predictions are not affine in.

    **Raises:** `ValueError` that names the argument, before anything is simulated.
    """
    if not callable(apply):
        raise argument_error("apply", "a function of (params, x)", shown(apply))
    if fast is None:
        raise argument_error("fast", "a name, a function of a path, or labels", "None")
    # A float of Python is a number to train, as it is in `Params`.
    params = jax.tree.map(lambda v: np.asarray(v) if type(v) is float else v, params)
    labels, rest = labels_by("fast", fast, params), labels_by("frozen", frozen, params)
    kinds = kinds_of("params", params, labels, rest)
    return _problem("apply", apply, params, kinds, x, y, weights, penalty, separable, dtype)


def _call(model: Any, x: Array) -> Array:
    return model(x)


def _call_each(model: Any, x: Array) -> Array:
    return jax.vmap(model)(x)


def _problem(
    name: str,
    apply: Callable[[Any, Array], Array],
    model: Any,
    kinds: list[Kind],
    x: Any,
    y: Any,
    weights: Any,
    penalty: Real,
    separable: bool | None,
    dtype: str,
) -> tuple[ModelProblem, Params]:
    """Return the problem and the start. `name`: the argument that makes predictions."""
    check_64_bit()
    if separable is not None:
        as_flag("separable", separable)
    kind = np.dtype(as_word("dtype", dtype, ("float64", "float32")))
    owner = "params" if name == "apply" else name
    halves, params = in_halves(owner, model, kinds, kind)
    problem = ModelProblem(apply, halves, x, y, weights=weights, penalty=penalty)
    _check_output(name, problem, params, kind)
    is_known = is_concrete(params, halves, problem.x, problem.y) and not is_traced()
    if separable is None and not is_known:
        expected = "True or False under a jax transformation, where numbers are unknown"
        raise argument_error("separable", expected, "None")
    some = jnp.asarray(spread(problem.x)).astype(kind)
    predict = jax.jit(lambda params, x: problem.predict(params, x))
    if is_known:
        _check_numbers(name, predict, params, some)
    if separable is False:
        return problem, params
    if not is_known:
        more = {"weights": problem.weights, "penalty": problem.penalty}
        return SeparableModelProblem(apply, halves, problem.x, problem.y, **more), params
    wrong = not_affine_in(predict, params, some)
    if not wrong:
        head = head_of(predict, params, some)
        if not head.has_offset:  # at those inputs; others may have one
            zeros = Params(jax.tree.map(jnp.zeros_like, params.a), params.u)
            everything = jnp.asarray(problem.x).astype(kind)
            offset = jax.jit(lambda x: problem._in_blocks(zeros, x))(everything)
            head = head._replace(has_offset=bool(np.any(np.asarray(offset) != 0)))
        more = {"weights": problem.weights, "penalty": problem.penalty, "head": head}
        return SeparableModelProblem(apply, halves, problem.x, problem.y, **more), params
    places = halves.skeleton.places(FAST)
    paths = tuple(places[i].path for i in wrong)
    listed = ", ".join(paths)
    if separable:
        expected = f"None or False for a model that is not affine in {listed}"
        raise argument_error("separable", expected, separable)
    warnings.warn(
        f"The model is not affine in {listed}: GradientFlow and SGD run on it, but "
        "not ReducedFlow, which needs the best fast leaves by least squares. Choose other leaves "
        "as `fast`, such as a last layer without an activation after it, or say "
        "`separable=False` if this is meant.",
        NotAffineWarning,
        stacklevel=3,
    )
    more = {"weights": problem.weights, "penalty": problem.penalty, "not_affine": paths}
    return ModelProblem(apply, halves, problem.x, problem.y, **more), params


def _check_output(name: str, problem: ModelProblem, params: Params, dtype: np.dtype) -> None:
    """Raise unless the predictions have the shape of y and the dtype of the model.

    They are traced, and not computed.
    """
    shape, wanted = np.shape(problem.x), np.shape(problem.y)
    expected = f"one that predicts for inputs of shape {shape}"
    found = _traced(name, expected, problem, params, jax.ShapeDtypeStruct(shape, dtype))
    if not isinstance(found, jax.ShapeDtypeStruct):
        got = f"one that returns a {type(found).__name__}"
        raise argument_error(name, f"{expected} and returns one array", got)
    count = shape[:1]
    if found.shape[:1] != count or len(found.shape) > 2:
        expected = f"{expected} and returns {count} or ({count[0]}, K)"
        raise argument_error(name, expected, f"one that returns {found.shape}")
    outputs = {found.shape, wanted}
    if len(outputs) == 2 and outputs != {count, (*count, 1)}:
        raise argument_error("y", f"of shape {found.shape}, as the predictions", f"of {wanted}")
    if found.dtype != dtype:
        expected = f"one that computes in {dtype}, as its parameters and inputs are"
        got = f"one that returns {found.dtype}: if the model states a dtype of its own, change it"
        raise argument_error(name, expected, got)
    one = jax.ShapeDtypeStruct((1, *shape[1:]), dtype)
    alone = _traced(
        name,
        f"one that predicts for any number of inputs, also for {one.shape}",
        problem,
        params,
        one,
    )
    if alone.shape != (1, *found.shape[1:]):
        expected = f"one that returns {(1, *found.shape[1:])} for inputs of shape {one.shape}"
        raise argument_error(name, expected, f"one that returns {alone.shape}")


def _traced(
    name: str, expected: str, problem: ModelProblem, params: Params, x: jax.ShapeDtypeStruct
) -> Any:
    """Return what the model returns for inputs, without their numbers."""
    try:
        return jax.eval_shape(lambda p, x: problem.apply(problem.to_model(p), x), params, x)
    except Exception as error:  # of the user's model
        got = f"one that fails with {told_by(error)}"
        raise argument_error(name, expected, got) from error


def _check_numbers(name: str, predict: Predict, params: Params, x: Array) -> None:
    """Raise unless predictions are finite, and each depends on its own input alone."""
    # Elsewhere than at a last layer of zeros, whose predictions tell nothing.
    random = np.random.default_rng(0)
    moved = jax.tree.map(lambda v: v + random.normal(size=v.shape).astype(v.dtype), params.a)
    params = Params(moved, params.u)
    found = np.asarray(predict(params, x))
    if not np.all(np.isfinite(found)):
        raise argument_error(name, "one that predicts finite numbers", "one that predicts NaN")
    # As many inputs again: for another number of them all would be compiled once more.
    alone = np.asarray(predict(params, jnp.broadcast_to(x[:1], x.shape)))
    allowed = np.sqrt(np.finfo(found.dtype).eps) * np.max(np.abs(found))
    if np.any(np.abs(alone - found)[0] > allowed):
        expected = "one that predicts for each input by itself: samples are drawn in any batch"
        got = "one that predicts otherwise for an input among others than among its like"
        raise argument_error(name, expected, got)
