"""The rule of `jax.vmap` for runs: who goes side by side, in which shapes, and no mix-up.

The runs here are toys: a few operations on what a run is given, so that every shape compiles fast.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tts_jax.batching import devices as _device
from tts_jax.batching.vector_lanes import LANES, vmap_in_lanes


class Toy(NamedTuple):
    """Arrays that runs may differ in, and something static."""

    x: Any
    y: Any
    power: int | str = "squared"


def plain(toy):
    assert toy.power == "squared"
    return {"sum": toy.x**2 + jnp.sum(toy.y), "x": toy.x}


class Watched:
    """`vmap_in_lanes` of a toy that notes how it was called."""

    def __init__(self, pays=lambda is_batched: not is_batched.y):
        self.calls = []
        self.function = vmap_in_lanes(self.one, self.many, pays, self.alone)

    def __call__(self, x, y):
        return self.function(Toy(x, y))

    def one(self, toy):
        self.calls.append("one")
        return plain(toy)

    def alone(self, toy):
        self.calls.append("alone")
        return plain(toy)

    def many(self, toy, is_batched):
        x, y = toy.x, toy.y
        assert toy.power == "squared"
        sizes = {v.shape[-1] for v, flag in ((x, is_batched.x), (y, is_batched.y)) if flag}
        (lanes,) = sizes
        self.calls.append(lanes)
        x = x if is_batched.x else jnp.broadcast_to(x[..., None], (*x.shape, lanes))
        y = y if is_batched.y else jnp.broadcast_to(y[..., None], (*y.shape, lanes))
        return {"sum": x**2 + jnp.sum(y, axis=0), "x": x}


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def assert_plain(found, x, y):
    x, y = np.broadcast_arrays(x, np.asarray(y).sum(axis=-1))
    np.testing.assert_allclose(found["sum"], x**2 + y, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(found["x"], x)


Y = numbers(3, seed=1)


def test_a_run_without_vmap_goes_alone():
    run, x = Watched(), numbers()
    assert_plain(jax.jit(run)(x, Y), x, Y)
    assert set(run.calls) == {"alone"}


@pytest.mark.parametrize(
    ("size", "lanes"),
    [(1, 1), (3, 3), (7, 7), (8, 8), (9, 16), (16, 16), (32, 32), (33, 24), (65, 24), (70, 24)],
)
def test_tiles_hold_all_runs_with_few_to_spare(size, lanes):
    """At most `LANES` in a tile, in multiples of 8 unless there are fewer runs than that."""
    run, x = Watched(), numbers(size)
    found = jax.jit(jax.vmap(run, (0, None)))(x, Y)
    assert_plain(found, x, Y)
    assert [call for call in run.calls if call != "alone"] == [lanes]
    assert lanes <= LANES


def test_runs_may_differ_in_all():
    run, x, y = Watched(lambda is_batched: True), numbers(40), numbers(40, 3, seed=2)
    assert_plain(jax.jit(jax.vmap(run))(x, y), x, y)
    assert run.calls[-1] == 24


def test_runs_that_do_not_pay_go_in_turn():
    run, x, y = Watched(), numbers(5), numbers(5, 3, seed=2)
    assert_plain(jax.jit(jax.vmap(run))(x, y), x, y)
    assert set(run.calls) == {"alone"}


def test_vmap_in_vmap():
    """Batches of runs that pay follow each other; where the inner ones do not, the outer may."""
    x, y = numbers(5), numbers(6, 3, seed=2)
    expected_x, expected_y = np.broadcast_arrays(x[:, None, None], y[None])
    expected_x = expected_x[..., 0]

    inner_pays = Watched()
    grid = jax.vmap(jax.vmap(inner_pays, (0, None)), (None, 0))
    found = jax.tree.map(jnp.transpose, jax.jit(grid)(x, y))
    assert_plain(found, expected_x, expected_y)
    assert 5 in inner_pays.calls

    outer_pays = Watched()
    found = jax.jit(jax.vmap(jax.vmap(outer_pays, (None, 0)), (0, None)))(x, y)
    assert_plain(found, expected_x, expected_y)
    assert 5 in outer_pays.calls


def test_shared_arrays_of_an_outer_batch():
    """The tile of the inner batch shares an array that the outer one does not."""
    run, x, y = Watched(), numbers(4, 5), numbers(4, 3, seed=2)
    found = jax.jit(jax.vmap(jax.vmap(run, (0, None))))(x, y)
    assert_plain(found, x, np.broadcast_to(y[:, None], (4, 5, 3)))


@pytest.fixture
def on_accelerator(monkeypatch):
    monkeypatch.setattr(_device, "on_cpu", lambda: False)


@pytest.mark.usefixtures("on_accelerator")
@pytest.mark.parametrize("size", [5, 33, 70])
def test_an_accelerator_takes_all_runs_at_once(size):
    run, x = Watched(), numbers(size)
    assert_plain(jax.jit(jax.vmap(run, (0, None)))(x, Y), x, Y)
    assert [call for call in run.calls if call != "alone"] == [size]


@pytest.mark.usefixtures("on_accelerator")
def test_an_accelerator_takes_what_does_not_pay_by_vmap_of_one():
    run, x, y = Watched(), numbers(5), numbers(5, 3, seed=2)
    assert_plain(jax.jit(jax.vmap(run))(x, y), x, y)
    assert "one" in run.calls
    assert not any(isinstance(call, int) for call in run.calls)


def test_neighbours_and_places_do_not_matter():
    run = jax.jit(jax.vmap(Watched(), (0, None)))
    x, order = numbers(33), np.random.default_rng(3).permutation(33)
    pick = functools.partial(jax.tree.map, lambda leaf: leaf[order])
    jax.tree.map(np.testing.assert_array_equal, run(x[order], Y), pick(run(x, Y)))
