"""Steps of a flow in one kernel of a GPU equal `rosenbrock_step`: here interpreted, on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick_programs import results
from small_kernels import interpreted, lowered

import tts_jax as tts
from tts_jax.batching import gpu_dispatch
from tts_jax.batching.gpu_kernel import BLOCK_RUNS
from tts_jax.closed_forms import pairwise_system as descent
from tts_jax.closed_forms.gpu_matrix import WIDEST
from tts_jax.closed_forms.gpu_step import steps_on_gpu
from tts_jax.closed_forms.pairwise import PairwiseRisk, PairwiseState
from tts_jax.closed_forms.pairwise_system import PairwiseGradientSystem
from tts_jax.integrators.rosenbrock import rosenbrock_step

ETA = 0.04
TARGET = tts.PiecewiseConstant([0.2, 0.5], [1.0, 5.0, 1.0])
# Neurons in the middle, near each other, cut by 0, by 1, two and three of them, equal, outside.
U = np.array(
    [
        [0.3, 0.31, 0.7],
        [0.01, 0.013, 0.6],
        [0.5, 0.985, 0.99],
        [0.018, 0.3, 0.995],
        [-0.015, 0.002, 0.019],
        [0.4, 0.4, 0.4],
        [-0.3, 1.01, 1.2],
    ]
).T
RNG = np.random.default_rng(0)
START = PairwiseState(
    jnp.asarray(RNG.normal(size=U.shape[1])), jnp.asarray(RNG.normal(size=U.shape)), jnp.asarray(U)
)
H = jnp.asarray(10.0 ** np.linspace(-6, -2, U.shape[1]))


def system(epsilon=1e-2, ridge=0.0, eta=ETA, values=TARGET.values):
    risk = PairwiseRisk(tts.CubicStep(eta), tts.PiecewiseConstant(TARGET.jumps, values))
    return jax.tree.map(
        jnp.asarray, PairwiseGradientSystem(risk, jnp.asarray(epsilon), jnp.asarray(ridge))
    )


def by_kernel(mine, own, y=START, h=H):
    with interpreted():
        return results(lambda *a: steps_on_gpu(a[0], own, *a[1:]), mine, y, h)


def assert_same_steps(found, expected):
    """Of every stage: to rounding, measured by the largest of a run."""
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        size = np.max(np.abs(theirs), axis=tuple(range(theirs.ndim - 1)))
        np.testing.assert_allclose(mine / size, theirs / size, rtol=0, atol=1e-11)


@pytest.mark.thorough
def test_it_equals_the_step_of_each_run():
    """By columns, L D L^T and only the pairs that 0 or 1 cuts: another way to the same step."""
    mine = system()
    found = by_kernel(mine, jax.tree.map(lambda _: False, mine))
    each = jax.vmap(lambda y, h: rosenbrock_step(mine, y, h), in_axes=-1, out_axes=-1)
    assert_same_steps(found, results(each, START, H))


@pytest.mark.thorough
def test_numbers_of_each_run_and_the_reduced_flow():
    """epsilon, also 0, ridge, eta and the target's values; runs in more than a block."""
    runs = BLOCK_RUNS + 2
    deck = np.arange(runs) % U.shape[1]
    y = jax.tree.map(lambda leaf: leaf[..., deck], START)
    numbers = {
        # Without a mass, weights of neurons that do the same are hardly determined.
        "epsilon": jnp.where((deck == 0) | (deck == 3), 0.0, 1e-3),
        "ridge": jnp.full(runs, 1e-4),
        "eta": jnp.asarray(RNG.uniform(0.03, 0.05, runs)),
        "values": jnp.asarray(RNG.normal(size=(3, runs))),
    }
    mine = jax.vmap(lambda n: system(**n), in_axes=-1, out_axes=-1)(numbers)
    own = jax.tree.map(lambda leaf: leaf.ndim > 0 and leaf.shape[-1] == runs, mine)
    axes = jax.tree.map(lambda is_own: -1 if is_own else None, own)
    h = jnp.full(runs, 1e-4)
    each = jax.vmap(rosenbrock_step, in_axes=(axes, -1, -1), out_axes=-1)
    assert_same_steps(by_kernel(mine, own, y, h), results(each, mine, y, h))


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(descent, "on_gpu", lambda: True)


def steps(y, h, epsilon):
    return jax.vmap(lambda y, h: system(epsilon).step(y, h), in_axes=-1, out_axes=-1)(y, h)


@pytest.mark.thorough
@pytest.mark.usefixtures("gpu")
def test_runs_together_take_it_and_one_alone_does_not():
    assert "mosaic_gpu" in lowered(lambda *a: steps(*a, 1e-2), START, H)
    one = jax.tree.map(lambda leaf: leaf[..., 0], START)
    assert "mosaic_gpu" not in lowered(lambda y, h: system().step(y, h), one, H[0])
    wide = PairwiseState(START.bias, *(jnp.zeros((WIDEST + 1, H.size)) for _ in range(2)))
    assert "mosaic_gpu" not in lowered(lambda *a: steps(*a, 1e-2), wide, H)


@pytest.mark.thorough
def test_derivatives_are_those_of_the_step(monkeypatch):
    """The kernel has the values, and no part in the derivatives, which are taken forward here: in
    reverse a run pulls its steps back by `step_adjoint`, without the kernel."""

    def slope(epsilon):
        def last(epsilon):
            return jnp.sum(steps(START, H, epsilon).after.u ** 2)

        return jax.jvp(last, (epsilon,), (jnp.ones(()),))[1]

    epsilon = jnp.asarray(1e-2)
    expected = results(slope, epsilon)
    monkeypatch.setattr(descent, "on_gpu", lambda: True)
    monkeypatch.setattr(gpu_dispatch, "by_device", lambda kernel, _, *given: kernel(*given))
    with interpreted():
        np.testing.assert_allclose(results(slope, epsilon), expected, rtol=1e-9)


class RootStep(tts.AbstractStep):
    """The cubic step by an operation that kernels do not know."""

    eta: float
    knots = tts.CubicStep.knots
    degree = 3
    limits = (0.0, 1.0)

    def __call__(self, z):
        return tts.CubicStep(1.0)(z)

    def primitive(self, z):
        return tts.CubicStep(1.0).primitive(z)

    def overlap(self, t):
        return tts.CubicStep(1.0).overlap(jnp.where(t < 0, -1.0, 1.0) * jnp.sqrt(t * t))


@pytest.mark.thorough
@pytest.mark.usefixtures("gpu")
def test_other_numbers_and_activations():
    """Single precision is taken as double; what a kernel cannot be made of goes by XLA."""
    with jax.numpy_dtype_promotion("standard"):
        assert "mosaic_gpu" in lowered(lambda *a: steps(*a, jnp.float32(1e-2)), START, H)
    risk = PairwiseRisk(RootStep(ETA), TARGET)
    mine = PairwiseGradientSystem(risk, jnp.asarray(1e-2), jnp.asarray(0.0))
    each = jax.vmap(lambda y, h: mine.step(y, h), in_axes=-1, out_axes=-1)
    assert "mosaic_gpu" not in lowered(each, START, H)


@pytest.mark.thorough
@pytest.mark.usefixtures("gpu")
def test_it_lowers_for_the_widest():
    width = WIDEST
    y = PairwiseState(jnp.zeros(2), *(jnp.zeros((width, 2)) for _ in range(2)))
    assert "mosaic_gpu" in lowered(lambda *a: steps(*a, 1e-2), y, jnp.ones(2))
