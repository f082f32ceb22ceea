"""Quadratic risks against the risks of their problems, by automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import quickly

import tts_jax as tts
from tts_jax.problems import quadratic_risks

KEYS = jax.random.split(jax.random.key(0), 6)
X = jax.random.normal(KEYS[0], (23, 3))
Y = jax.random.normal(KEYS[1], (23, 2))
WEIGHTS = jax.random.uniform(KEYS[2], (23,))
NETWORK = tts.TwoLayerNetwork(tts.Tanh(0.7))


class Waves(tts.SeparableProblem):
    def features(self, u, x):
        phase = x @ u["w"].T
        return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=1)


def start_of(network, outputs=None):
    start = {"outputs": outputs, "bias_scale": 1.0, "outer_scale": 1.0}
    return tts.init_two_layer(KEYS[3], network, 3, 4, **start)


def of_sample(outputs=None):
    y = Y[:, 0] if outputs is None else Y[:, :outputs]
    problem = tts.EmpiricalProblem(NETWORK, X, y, weights=WEIGHTS, penalty=0.01)
    return problem, start_of(NETWORK, outputs)


def of_waves():
    w = jax.random.normal(KEYS[4], (3, 3))
    return Waves(X, Y, penalty=0.1), tts.Params(jnp.ones((6, 2)), {"w": w})


def of_population():
    network = tts.TwoLayerNetwork(tts.Erf(), outer_bias=False)
    teacher = tts.init_two_layer(KEYS[5], network, 3, 2, outer_scale=1.0, bias_scale=1.0)
    problem = tts.GaussianProblem(network, tts.Teacher(network, teacher), penalty=0.01)
    return problem, start_of(network)


CASES = {
    "one output": of_sample,
    "two outputs": lambda: of_sample(2),
    "features of one's own": of_waves,
    "a population": of_population,
}


@pytest.mark.parametrize("blocks", [False, True], ids=["at once", "in blocks"])
@pytest.mark.parametrize("case", CASES)
def test_the_gradients_are_those_of_the_problem(case, blocks, monkeypatch):
    if blocks:
        if case == "a population":
            pytest.skip("It has no samples.")
        monkeypatch.setattr(quadratic_risks, "MOST_AT_ONCE", 1)
        monkeypatch.setattr(quadratic_risks, "_BLOCK", 7)
    problem, params = CASES[case]()
    others = jax.tree.map(lambda leaf: 1.1 * leaf + 0.1, params)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, others)

    @quickly
    def found(both):
        risk = problem.quadratic_risk()
        a = both.a.reshape(len(both.a), -1, risk.outputs())
        at = risk.nodes(both.u)
        change = jax.tree.map(lambda leaf: leaf[0], both.u)
        residual, gradients = at.gradients(a)
        moved = at.moved(a[-1], change)
        return residual, at.residual(a), gradients, moved, risk.gram(params.u)

    residual, same, by_inner, moved, gram = found(both)
    wanted = quickly(jax.vmap(jax.grad(problem.risk)))(both)
    np.testing.assert_allclose(2 * residual.reshape(wanted.a.shape), wanted.a, atol=1e-13)
    np.testing.assert_allclose(residual, same, atol=1e-13)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), by_inner, wanted.u)
    expected, _ = problem.normal_equations(params.u)
    expected = expected + problem.penalty * np.eye(len(expected))
    np.testing.assert_allclose(gram, expected, atol=1e-14)
    if case == "a population":
        return
    x, shares = problem.x, problem._shares()
    change = jax.jvp(
        lambda u: problem.predict(tts.Params(others.a, u), x), (others.u,), (params.u,)
    )[1]
    squares = shares @ change.reshape(len(x), -1) ** 2
    np.testing.assert_allclose(moved, jnp.sqrt(jnp.sum(squares)), rtol=1e-12)


def test_changes_of_a_population_are_measured_on_inputs_of_its_distribution():
    problem, params = of_population()
    risk = problem.quadratic_risk()
    assert isinstance(risk, quadratic_risks.PopulationRisk)
    # To first order, the change of the network by a larger outer layer is the network.
    square = params.a @ problem.normal_equations(params.u)[0] @ params.a
    found = jnp.mean(problem.predict(params, risk.x) ** 2)
    assert float(found) == pytest.approx(float(square), rel=0.3)


def test_the_scale_is_that_of_the_targets_without_what_they_have_in_common():
    raised = tts.EmpiricalProblem(NETWORK, X, Y[:, 0] + 10.0)
    apart = np.std(np.asarray(Y[:, 0]))
    np.testing.assert_allclose(raised.quadratic_risk().scale(), apart, rtol=1e-12)
    alike = tts.EmpiricalProblem(NETWORK, X, jnp.full(23, 3.0))
    np.testing.assert_allclose(alike.quadratic_risk().scale(), 3.0, rtol=1e-12)


def test_a_risk_that_may_be_another_one_has_none():
    problem, _ = of_sample()
    assert problem.suits_collocation(10)
    kinky = tts.TwoLayerNetwork(tts.ReLU())
    assert not tts.EmpiricalProblem(kinky, X, Y[:, 0]).suits_collocation(10)
    assert not tts.EmpiricalProblem(NETWORK, X, Y[:, 0], loss="huber").suits_collocation(10)

    class Weighed(tts.EmpiricalProblem):
        def losses(self, f, y):
            return jnp.abs(f - y)

    assert not Weighed(NETWORK, X, Y[:, 0]).suits_collocation(10)

    class Own(Waves):
        def losses(self, f, y):
            return jnp.sum(jnp.abs(f - y), axis=1)

    assert Waves(X, Y).suits_collocation(10)
    assert not Own(X, Y).suits_collocation(10)
