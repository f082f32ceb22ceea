"""What stands in a store beside the runs: coordinates, and the floor where there is one."""

import jax.numpy as jnp
import numpy as np
from small_problems import small_problem
from small_studies import Drift, compilations

import tts_jax as tts
from tts_jax.sweeps.storage.coordinates import coordinates, floor_dimensions, floors


def study(problem=None, dynamics=None, **grid):
    return tts.Study(problem or small_problem(), dynamics or Drift(), {"width": 3, **grid}, [0.5])


def test_every_value_of_the_grid_stands_on_its_axis():
    target = {"one": small_problem().target}
    pairs = {("eta", "epsilon"): [(0.1, 1.0), (0.2, 2.0)]}
    asked = tts.Study(
        small_problem(), Drift(), {"target": target, **pairs, "seed": [7], "width": 3}, [0.5]
    )
    found = {name: (values.tolist(), axis) for name, values, axis in coordinates(asked)}
    assert found == {
        "target": (["one"], "target"),
        "eta": ([0.1, 0.2], "eta_epsilon"),
        "epsilon": ([1.0, 2.0], "eta_epsilon"),
        "seed": ([7], "seed"),
        "width": (3, None),
        "tau": ([0.5], "tau"),
    }


def test_the_floor_goes_along_what_the_problem_depends_on():
    jump = tts.PiecewiseConstant([0.5], [0.0, 2.0])
    wave = tts.Function(lambda x: jnp.sin(6 * x))
    targets = {"steps": small_problem().target, "wave": wave, "jump": jump}
    asked = study(target=targets, epsilon=[0.1, 1.0], eta=[0.08, 0.05], seed=range(4))
    assert floor_dimensions(asked) == ("target", "eta")
    found = floors(asked)["floor"]
    assert found.shape == (3, 2)
    # For a CubicStep, eta/28 times the sum of the squares of the jumps.
    squares = np.array([2.0**2 + 2.5**2, np.nan, 2.0**2])
    expected = squares[:, None] * np.array([0.08, 0.05]) / 28
    np.testing.assert_allclose(found, expected, rtol=1e-12, equal_nan=True)


def test_one_program_serves_all_floors():
    floors(study(eta=[0.1, 0.2]))
    with compilations() as found:
        floors(study(small_problem(values=(0.0, 2.0, 1.0)), eta=[0.03, 0.04, 0.05]))
    assert found == []


def test_there_is_no_floor_without_a_target_of_jumps_or_steps():
    smooth = tts.Problem(tts.ShallowNetwork(tts.ReLU()), small_problem().target)
    sample = tts.EmpiricalProblem(tts.ShallowNetwork(tts.Tanh(eta=0.1)), [0.0, 1.0], [0.0, 1.0])
    for problem in (smooth, sample):
        for values in floors(study(problem, eta=[0.1, 0.2])).values():
            assert np.all(np.isnan(values))
