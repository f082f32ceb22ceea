"""Many runs in one call, on however many devices."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts

SCRIPT = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
import jax.numpy as jnp
import numpy as np
import tts_jax as tts

assert len(jax.devices()) == int(sys.argv[1])
problem = tts.Problem(
    tts.ShallowNetwork(tts.CubicStep(eta=0.05)), tts.PiecewiseConstant([0.4], [1.0, 3.0])
)
taus = jnp.asarray([0.01, 0.3])


def run(epsilon, key):
    start = tts.init_uniform(key, 3)
    return tts.simulate(problem, tts.GradientFlow(epsilon), start, taus, throw=False)


out = tts.map_runs(run)(jnp.geomspace(1e-4, 1e-1, 5), jax.random.split(jax.random.key(0), 5))
np.savez(sys.argv[2], *jax.tree.leaves(out))
"""


@pytest.mark.thorough
def test_a_run_returns_the_same_however_many_devices_there_are(tmp_path):
    script = tmp_path / "runs.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    found = []
    for devices in (1, 2, 8):
        file = tmp_path / f"{devices}.npz"
        command = [sys.executable, str(script), str(devices), str(file)]
        subprocess.run(command, check=True, env=environment)
        found.append(dict(np.load(file)))
    assert found[0]["arr_1"].shape == (5, 2, 4)
    for other in found[1:]:
        for name, values in found[0].items():
            np.testing.assert_array_equal(other[name], values)


def test_it_is_vmap():
    def function(tree, x):
        return {"sum": tree["a"].sum() + x, "x": x}

    tree = {"a": jnp.arange(14.0).reshape(7, 2)}
    found = tts.map_runs(function)(tree, np.arange(7.0))
    expected = jax.vmap(function)(tree, jnp.arange(7.0))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_numbers_do_not_compile_anew():
    traced = []

    @tts.map_runs
    def function(x):
        traced.append(x)
        return 2 * x

    for numbers in ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]):
        np.testing.assert_array_equal(function(np.asarray(numbers)), 2 * np.asarray(numbers))
    assert len(traced) == 1


@pytest.mark.parametrize(
    "arguments",
    [(), (1.0,), (np.zeros(3), 1.0), (np.zeros(3), np.zeros(4)), (np.zeros((0, 2)),)],
)
def test_arguments_without_a_common_axis_are_refused(arguments):
    with pytest.raises(ValueError, match=r"arguments.*leading axis"):
        tts.map_runs(lambda *given: given[0])(*arguments)


def test_an_error_in_a_run_comes_through():
    def function(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        tts.map_runs(function)(np.zeros(3))


MANY_FACTORS = """
import jax, jax.numpy as jnp
import tts_jax as tts

tts.configure(devices=2)
network = tts.TwoLayerNetwork(tts.Tanh())
x = jax.random.normal(jax.random.key(0), (500, 5))
problem = tts.EmpiricalProblem(network, x, jnp.sin(x[:, 0] - x[:, 1]))
keys = jax.random.split(jax.random.key(1), 64)
starts = jax.vmap(lambda key: tts.init_two_layer(key, network, 5, 20))(keys)
flow, taus = tts.GradientFlow(1e-4, rtol=1e-6), jnp.linspace(0, 1, 3)
runs = tts.map_runs(lambda start: tts.simulate(problem, flow, start, taus, throw=False))
for _ in range(4):
    assert jnp.all(jax.block_until_ready(runs(starts)).status == 0)
"""


@pytest.mark.thorough
def test_devices_that_compute_eigenvectors_do_not_wait_for_each_other_for_ever():
    """With a thread for each core, as JAX has by default, the second call does not return."""
    names = ("XLA_FLAGS", "NPROC")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    subprocess.run([sys.executable, "-c", MANY_FACTORS], env=clean, check=True, timeout=300)
