"""What a run by collocation keeps from step to step, and what it records."""

from typing import NamedTuple

from .._types import Array, Float, Scalar, Tree


class Halves(NamedTuple):
    """What is recorded: the fast layer a (p, K), and u."""

    a: Float[Array, "p K"]
    u: Tree


class SweptState(NamedTuple):
    """A state, and what the next step takes over from the last one.

    `slopes`: k at the nodes of the last step, on leading axes (5,), and `size`, that of the step,
    0 before the first one; `residual` (p, K), that is H a - b at its end; `rates` (p,) and
    `vectors` (p, p) of A; `stale`, 1 if they are to be found anew, else 0; `lipschitz`, and
    `measured`, the size of the last step that it was estimated in, both 0 where that is unknown;
    `rejections`, how many steps from here were rejected; how many `gradients` have been computed,
    and how many times eigenvectors (`factorisations`). Floats, also the counts, since whole numbers
    have no derivatives.
    """

    a: Float[Array, "p K"]
    u: Tree
    slopes: Tree
    size: Scalar
    residual: Float[Array, "p K"]
    rates: Float[Array, " p"]
    vectors: Float[Array, "p p"]
    stale: Scalar
    lipschitz: Scalar
    measured: Scalar
    rejections: Scalar
    gradients: Scalar
    factorisations: Scalar


class SweptStep(NamedTuple):
    """A step: the state `after` it, whose slopes are those of the step; the `forcing` (5, p, K) of
    the eigenvectors of A, times h / epsilon; their `decay` (p,), h times their rates over epsilon;
    and the norm of its `error`."""

    after: SweptState
    forcing: Array
    decay: Array
    error: Scalar
