"""Models in halves and back, and the ways to say which leaves are fast."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_models import Mlp

import tts_jax as tts
from tts_jax.models.adapters import Skeleton, in_halves, kinds_of, labels_by, picked_by

TREE = {
    "net/linear": {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)},
    "net/linear_1": {"w": jnp.ones(3), "steps": jnp.arange(2)},
    "name": "text",
}


def halves(tree, fast, frozen=lambda path: path[-1] == "steps"):
    labels, rest = labels_by("fast", fast, tree), labels_by("frozen", frozen, tree)
    return in_halves("params", tree, kinds_of("params", tree, labels, rest), np.dtype("float64"))


def test_a_tree_comes_back_whole_with_any_leading_axes():
    made, params = halves(TREE, "linear_1")
    assert [len(jax.tree.leaves(half)) for half in params] == [1, 2]
    assert params.a["net/linear_1"]["w"].dtype == np.float64
    assert eqx.tree_equal(made.to_model(params), TREE)
    many = jax.tree.map(lambda v: jnp.stack([v, 2 * v]), params)
    model = made.to_model(many)
    assert model["net/linear"]["w"].shape == (2, 2, 3)
    assert model["net/linear_1"]["steps"].shape == (2,)
    assert model["name"] == "text"
    assert eqx.tree_equal(made.zeros(jnp.float64), jax.tree.map(jnp.zeros_like, params.a))


def test_a_module_comes_back_with_its_functions():
    model = Mlp(jax.random.key(0))
    picked = picked_by("fast", lambda m: (m.layers[1].weight, [m.layers[1].bias]), model)
    kinds = kinds_of("model", model, picked, picked_by("frozen", None, model))
    made, params = in_halves("model", model, kinds, np.dtype("float64"))
    assert params.a.layers[1].bias is not None
    assert params.a.activation is None
    assert eqx.tree_equal(made.to_model(params), model)


@pytest.mark.parametrize(
    "choice",
    [
        "linear_1",
        "net/linear_1",
        lambda path: path == ("net/linear_1", "w"),
        lambda path: "fast" if path[-1] == "w" and path[0].endswith("1") else "slow",
        {"net/linear": False, "net/linear_1": {"w": np.True_, "steps": False}, "name": False},
        {"net/linear": "slow", "net/linear_1": {"w": "fast", "steps": "fixed"}, "name": "slow"},
    ],
)
def test_ways_to_choose(choice):
    made, params = halves(TREE, choice)
    assert len(jax.tree.leaves(params.a)) == 1
    assert params.a["net/linear_1"]["w"] is not None
    assert eqx.tree_equal(made.to_model(params), TREE)


def test_a_name_is_that_of_one_layer():
    tree = {"a": {"x": jnp.ones(1), "y": jnp.ones(1)}, "b": {"x": jnp.ones(1)}}
    assert labels_by("fast", "b", tree) == [False, False, True]
    with pytest.raises(ValueError, match=r'`fast`.*"x", which 2 layers are called'):
        labels_by("fast", "x", tree)
    inside = {"a": {"a": jnp.ones(1), "c": jnp.ones(1)}, "b": jnp.ones(1)}
    assert labels_by("fast", "a", inside) == [True, True, False]


def test_whole_numbers_in_a_fast_layer_are_refused_unless_they_are_frozen():
    with pytest.raises(ValueError, match=r"`fast`.*\['net/linear_1'\]\['steps'\] of int"):
        kinds_of("params", TREE, [True] * 5, [False] * 5)
    with pytest.raises(ValueError, match=r"`fast`.*linear_1.*steps"):
        halves(TREE, "linear_1", None)
    assert kinds_of("params", {"a": 1.0, "b": jnp.ones(1), "c": jnp.ones(1)}, [True, True, False],
                    [False] * 3) == ["fixed", "fast", "slow"]  # fmt: skip


@jax.tree_util.register_pytree_with_keys_class
class OneName:
    """A user's own tree whose two leaves have one name."""

    def __init__(self, *leaves):
        self.leaves = leaves

    def tree_flatten_with_keys(self):
        key = jax.tree_util.GetAttrKey("leaf")
        return [(key, leaf) for leaf in self.leaves], None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        return cls(*leaves)


def test_leaves_of_one_path_are_refused():
    tree = OneName(jnp.ones(1), jnp.ones(2))
    with pytest.raises(ValueError, match=r"`params`.*paths of their own.*two of \.leaf"):
        in_halves("params", tree, ["fast", "slow"], np.dtype("float64"))


def test_parameters_of_another_model_are_refused():
    made, params = halves(TREE, "linear_1")
    made.check(params)
    with pytest.raises(ValueError, match=r"`params.a` must be of the structure"):
        made.check(tts.Params(params.u, params.u))
    with pytest.raises(ValueError, match=r"`params.u` must be of the structure"):
        made.to_model(tts.Params(params.a, jnp.ones(3)))
    wider = jax.tree.map(lambda v: jnp.stack([v, v]), params)
    with pytest.raises(ValueError, match=r"`params.a\['net/linear_1'\]\['w'\]` must be of shape"):
        made.check(wider)
    whole = jax.tree.map(lambda v: v.astype(int), params)
    with pytest.raises(ValueError, match=r"must be of a floating dtype"):
        made.check(whole)
    with pytest.raises(ValueError, match="`params` must be of type Params"):
        made.check(TREE)


def test_equal_structures_are_one():
    one, other = halves(TREE, "linear_1")[0].skeleton, halves({**TREE}, "linear_1")[0].skeleton
    assert one == other
    assert hash(one) == hash(other)
    assert one != halves(TREE, "linear")[0].skeleton
    assert one != Skeleton({**other.tree, "name": "another"})
