"""Simulations inside `jax.shard_map`, under its default checks, are those outside."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from small_problems import slow_times, small_problem, spread_start

import tts_jax as tts

RUNS = 2
PROBLEM, START, TAUS = small_problem(), spread_start(), slow_times(0.05)
SMOOTH = tts.Problem(tts.ShallowNetwork(tts.Tanh(eta=0.1)), PROBLEM.target)
SHIFTS = jnp.linspace(0.0, 0.01, RUNS)
KEYS = jax.random.split(jax.random.key(0), RUNS)


def sharded(function):
    """A function of many runs that are shared out over a mesh of devices."""
    count = min(RUNS, jax.local_device_count())
    mesh = jax.make_mesh((count,), ("runs",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("runs")
    many = jax.vmap(function)
    return jax.jit(jax.shard_map(many, mesh=mesh, in_specs=(spec, spec), out_specs=spec))


def run_of(problem, dynamics):
    def run(shift, key):
        start = tts.Params(START.a, START.u + shift)
        return tts.simulate(problem, dynamics, start, TAUS, key=key, throw=False)

    return run


ALWAYS = {
    "SGD": (PROBLEM, tts.SGD(0.1, 1e-2, noise=0.1)),
}
LONGER = {
    "the flow": (PROBLEM, tts.GradientFlow(0.1)),
    "the limit": (PROBLEM, tts.LimitFlow()),
    "the reduced flow": (PROBLEM, tts.ReducedFlow()),
    "a flow without a closed form": (SMOOTH, tts.GradientFlow(1.0, rtol=1e-4)),
    "gradient descent": (SMOOTH, tts.SGD(0.1, 1e-2, batch_size="full")),
    "SGD with an optimiser": (PROBLEM, tts.SGD(0.1, 1e-2, optimiser=optax.sgd(1e-2))),
}


@pytest.mark.parametrize(
    "what", [*ALWAYS, *(pytest.param(what, marks=pytest.mark.thorough) for what in LONGER)]
)
def test_runs_in_shard_map_are_those_outside(what):
    run = run_of(*(ALWAYS | LONGER)[what])
    found = sharded(run)(SHIFTS, KEYS)
    once = jax.jit(run)  # by the same method: a flow that is not traced looks at its numbers
    for i in range(RUNS):
        alone = once(SHIFTS[i], KEYS[i])
        assert int(found.status[i]) == int(alone.status)
        np.testing.assert_allclose(found.risk[i], alone.risk, rtol=1e-9)
        np.testing.assert_allclose(found.params.u[i], alone.params.u, rtol=1e-9, atol=1e-12)


@pytest.mark.thorough
def test_gradients_in_shard_map_are_those_outside():
    run = run_of(PROBLEM, tts.GradientFlow(0.1))
    slope = jax.grad(lambda shift, key: run(shift, key).risk[-1])
    found = sharded(slope)(SHIFTS, KEYS)
    once = jax.jit(slope)
    wanted = [once(*given) for given in zip(SHIFTS, KEYS, strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_a_solver_of_diffrax_is_refused_there():
    run = run_of(PROBLEM, tts.GradientFlow(0.1, solver=diffrax.Tsit5()))
    with pytest.raises(ValueError, match=r"`solver` must be None inside `jax.shard_map`.*Tsit5"):
        sharded(run)(SHIFTS, KEYS)
