"""What has derivatives in forward mode only, and says so where it is asked for others.

JAX would complain of a loop that the user has never seen.
"""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, partial_eval

from ..._types import Tree

_forward_only = Primitive("forward_only")
"""The identity, which is linear: its derivative is itself. A derivative in reverse mode has to
evaluate it in part, without the tangents, and to transpose it. Both are refused."""


def forward_only(tree: Tree) -> Tree:
    """Return a tree as it is; a gradient with respect to its floating arrays is refused."""

    def guarded(leaf: Any) -> Any:
        is_floating = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return _forward_only.bind(leaf) if is_floating else leaf

    return jax.tree.map(guarded, tree)


def _refuse(*_: Any) -> NoReturn:
    raise ValueError(
        "SGD has no derivatives in reverse mode, as by `jax.grad`: a run of millions of steps "
        "would have to keep them all. Differentiate a flow, such as `GradientFlow`, which SGD "
        "follows on one clock, or take forward mode, `jax.jvp`."
    )


_forward_only.def_impl(lambda value: value)
_forward_only.def_abstract_eval(lambda value: value)
ad.deflinear2(_forward_only, _refuse)
partial_eval.custom_partial_eval_rules[_forward_only] = _refuse
batching.defvectorized(_forward_only)
mlir.register_lowering(_forward_only, lambda _, value: [value])
