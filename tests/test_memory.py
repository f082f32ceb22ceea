"""What cannot fit into memory is refused before it is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts
from tts_jax import _memory
from tts_jax._memory import check_memory

KEY = jax.random.key(0)
NETWORK = tts.AdditiveNetwork(tts.CubicStep(0.1))
STEPS = tts.AdditiveSteps([0.5])


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("inputs", lambda: tts.sample_problem(KEY, NETWORK, STEPS, 100, inputs=10**9)),
        ("inputs", lambda: tts.sample_problem(KEY, NETWORK, STEPS, 1, inputs=10**12)),
        ("count", lambda: tts.sample_problem(KEY, NETWORK, STEPS, 10**12, inputs=2)),
        ("width", lambda: tts.init_uniform(KEY, 10**12)),
        ("jumps", lambda: tts.PiecewiseConstant(np.broadcast_to(0.5, 10**12), [0.0])),
        ("x", lambda: tts.EmpiricalProblem(NETWORK, np.broadcast_to(0.5, (10**12, 2)), [0.0])),
        ("taus", lambda: tts.SGD(0.1, 0.1).steps_until(np.broadcast_to(0.5, 10**12))),
        ("grid", lambda: study({name: range(1, 5000) for name in ("seed", "width", "eta")})),
        ("grid['seed']", lambda: study({"seed": iter(int, 1), "width": 3})),
    ],
)
def test_more_than_there_is_is_refused(name, call, monkeypatch):
    monkeypatch.setattr(_memory, "_sizes", lambda: iter([2**36]))
    with pytest.raises(
        ValueError, match=rf"^Argument `{name.replace('[', '.').replace(']', '.')}` "
    ):
        call()


def study(grid):
    problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(0.1)), tts.PiecewiseConstant([], [1.0]))
    return tts.Study(problem, tts.GradientFlow(0.1), grid, jnp.array([0.1]))


def test_a_batch_that_does_not_fit_is_refused():
    problem = tts.Problem(tts.ShallowNetwork(tts.CubicStep(0.1)), tts.PiecewiseConstant([], [1.0]))
    sgd = tts.SGD(0.1, 0.1, batch_size=2**31 - 1)
    with pytest.raises(ValueError, match=r"`batch_size` must be small enough for the .* GiB"):
        tts.simulate(problem, sgd, tts.init_uniform(KEY, 10_000), [0.1], key=KEY)


def test_the_smallest_account_counts_and_small_numbers_are_never_asked_for(monkeypatch):
    monkeypatch.setattr(_memory, "_sizes", lambda: iter([2**40, 2**30, 2**35]))
    check_memory("n", 2**27)
    with pytest.raises(ValueError, match=r"`n` must be small enough for the 1 GiB .* 1.5 GiB are"):
        check_memory("n", 2**26, at_once=3)
    monkeypatch.setattr(_memory, "_sizes", lambda: iter([0]))
    check_memory("n", 1000)


def test_this_machine_has_an_account_of_its_memory():
    assert all(size > 0 for size in _memory._sizes())
    assert list(_memory._sizes())
