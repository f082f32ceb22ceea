"""Linear solves where neurons coincide or vanish."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax.numerics.gram import RIDGE, solve_gram


def random_gram(seed, rows, columns):
    features = np.random.default_rng(seed).normal(size=(rows, columns))
    return features.T @ features


def test_a_regular_system_is_solved():
    gram = random_gram(0, 30, 6)
    moments = np.arange(1.0, 7.0)
    found = solve_gram(jnp.asarray(gram), jnp.asarray(moments))
    np.testing.assert_allclose(found, np.linalg.solve(gram, moments), rtol=1e-9)


@pytest.mark.parametrize("ridge", [1e-6, 0.1])
def test_the_ridge_is_relative_to_the_diagonal(ridge):
    gram, moments = random_gram(1, 30, 6), np.arange(1.0, 7.0)
    shifted = gram + ridge * np.diag(np.diag(gram))
    found = solve_gram(jnp.asarray(gram), jnp.asarray(moments), ridge=ridge)
    np.testing.assert_allclose(found, np.linalg.solve(shifted, moments), rtol=1e-12)


def test_scaling_a_feature_scales_its_weight_and_changes_nothing_else():
    gram, moments = random_gram(2, 30, 4), np.arange(1.0, 5.0)
    scale = np.asarray([1e-8, 1.0, 1e6, 3.0])
    plain = solve_gram(jnp.asarray(gram), jnp.asarray(moments), ridge=1e-3)
    scaled = solve_gram(
        jnp.asarray(gram * np.outer(scale, scale)), jnp.asarray(moments * scale), ridge=1e-3
    )
    np.testing.assert_allclose(scaled * scale, plain, rtol=1e-12)


def test_coinciding_features_share_their_weight():
    gram, moments = random_gram(3, 30, 3), np.asarray([1.0, 2.0, 3.0])
    twice = [0, 1, 1, 2, 1]
    single = np.asarray(solve_gram(jnp.asarray(gram), jnp.asarray(moments)))
    found = solve_gram(jnp.asarray(gram[np.ix_(twice, twice)]), jnp.asarray(moments[twice]))
    expected = single[twice] / [1, 3, 3, 1, 3]
    # Rounding of the Gram matrix over the ridge: 1e-16 / 1e-12.
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_a_vanishing_feature_gets_no_weight_and_disturbs_no_other():
    gram, moments = random_gram(4, 30, 3), np.asarray([1.0, 2.0, 3.0])
    padded, longer = np.zeros((4, 4)), np.asarray([1.0, 0.0, 2.0, 3.0])
    kept = [0, 2, 3]
    padded[np.ix_(kept, kept)] = gram
    found = np.asarray(solve_gram(jnp.asarray(padded), jnp.asarray(longer)))
    assert found[1] == 0
    np.testing.assert_allclose(
        found[kept], solve_gram(jnp.asarray(gram), jnp.asarray(moments)), rtol=1e-10
    )


@pytest.mark.parametrize("ridge", [RIDGE, 21e-14])
def test_it_is_never_nan_and_near_the_best_fit_where_neurons_meet(problem, ridge):
    """All on one spot, pairs at every distance down to one rounding, outside, just inside."""
    best = jax.jit(lambda u, ridge: problem.best_outer(u, ridge=ridge))
    risk = jax.jit(lambda params: problem.risk(params))
    equations = jax.jit(lambda u: problem.normal_equations(u))
    rng = np.random.default_rng(5)
    pairs = np.repeat(rng.uniform(size=10), 2)
    pairs[1::2] += np.geomspace(1e-17, 1e-2, 10)
    for u in (
        np.full(20, 0.5),
        np.full(20, 2.0),
        pairs,
        np.concatenate([np.full(10, 0.2), np.full(10, 0.2 + 1e-16)]),
        np.concatenate([np.full(10, 1.002 - 1e-15), np.linspace(0.1, 0.9, 10)]),
    ):
        a = best(jnp.asarray(u), ridge)
        assert np.all(np.isfinite(a))
        # The best fit of the features that differ, by an eigenvalue cut-off.
        gram, moments = map(np.asarray, equations(jnp.asarray(u)))
        reference = np.linalg.pinv(gram, rcond=1e-10, hermitian=True) @ moments
        reached = risk(tts.Params(a, jnp.asarray(u)))
        assert reached <= risk(tts.Params(jnp.asarray(reference), jnp.asarray(u))) + 1e-9


def test_a_negative_ridge_is_refused():
    with pytest.raises(ValueError, match="`ridge` must be >= 0, but is -1e-09"):
        solve_gram(jnp.eye(2), jnp.ones(2), ridge=-1e-9)
