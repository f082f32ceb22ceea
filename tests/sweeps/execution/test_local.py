"""The same numbers whatever the number of devices."""

import os
import subprocess
import sys

import pytest
from small_studies import SGD_STUDY, finished, same, written

FLOW = """
[dynamics]
type = "GradientFlow"
rtol = 1e-5

[taus]
to = 0.2
count = 3

[grid]
epsilon = [0.1, 0.3, 1.0]
eta = [0.08, 0.05]
seed = { count = 7 }
width = 5
"""


@pytest.mark.parametrize("dynamics", ["flow", "sgd"])
def test_one_two_and_eight_devices_give_the_same(tmp_path, dynamics):
    head = SGD_STUDY.split("[dynamics]")[0]
    study = written(tmp_path, SGD_STUDY if dynamics == "sgd" else head + FLOW)
    stores = []
    for count in (1, 2, 8):
        stores.append(tmp_path / f"{count}.zarr")
        flags = f"--xla_force_host_platform_device_count={count}"
        subprocess.run(
            [sys.executable, "-m", "tts_jax", "sweep", str(study), "--out", str(stores[-1])],
            env={**os.environ, "XLA_FLAGS": flags},
            check=True,
            capture_output=True,
        )
    sweeps = [finished(store) for store in stores]
    assert all(int((sweep.status != 0).sum()) == 0 for sweep in sweeps)
    assert same(sweeps[0], sweeps[1])
    assert same(sweeps[0], sweeps[2])
