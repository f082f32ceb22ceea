"""Settings of SGD in which two correct programs agree to rounding, for many tests."""

import jax
import jax.numpy as jnp
import numpy as np

# So small that no sample moves a neuron by a transition width: above that SGD is chaotic, and two
# correct programs end far apart.
EPSILON, STEP, NOISE = 0.01, 0.005, 0.3
ROUNDING = 1e-11
"""How far what rounds differently is apart after some thousand steps."""


def steps_to_taus(*steps):
    """The slow times of numbers of training steps."""
    return jnp.asarray(steps, float) * (EPSILON * STEP)


# Runs side by side and one by one.


def pick(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def each(run, own):
    """The results of runs in turn, with a leading axis."""
    results = [run(pick(own, i)) for i in range(jax.tree.leaves(own)[0].shape[0])]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)


def assert_same(first, second, atol=ROUNDING):
    """Equal up to rounding. With an `atol` of 0: to the last bit."""
    for mine, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert mine.shape == other.shape
        assert mine.dtype == other.dtype
        np.testing.assert_allclose(mine, other, rtol=0, atol=atol)


def assert_same_runs(batch, alone, atol=ROUNDING):
    """`atol` is for the parameters: the risk of the same ones may round differently."""
    assert_same(batch.params, alone.params, atol)
    np.testing.assert_allclose(batch.risk, alone.risk, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(batch.status, alone.status)
    np.testing.assert_array_equal(batch.stats["steps"], alone.stats["steps"])
