"""The hash of functions and objects: what they do tells them apart, where they stand does not."""

import functools
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import tts_jax as tts
from tts_jax._digest import digest

SOURCE = """
import equinox as eqx, functools, jax, jax.numpy as jnp
SCALE = {scale}
def helper(x):
    return jnp.{name}(x)
def plain(x):
    return jnp.{name}(6 * x)
def by_global(x):
    return SCALE * x
def by_helper(x):
    return helper(x)
def nested(x):
    return [jnp.{name}(y) for y in x], (lambda y: jnp.{name}(y))(x)
jitted = jax.jit(plain)
partial = functools.partial(plain)
def closed(a):
    return lambda x: a * x
closure = closed({scale})
class Own(eqx.Module):
    a: float = 1.0
    def risk(self, x):
        return helper(x) * self.a
"""


def made(name: str, scale: float, before: str = "") -> dict:
    space = {"__name__": "users"}
    exec(before + SOURCE.format(name=name, scale=scale), space)
    space["own"] = space["Own"]()
    return space


@pytest.mark.parametrize(
    "what",
    ["plain", "by_global", "by_helper", "nested", "jitted", "partial", "closure", "own"],
)
def test_what_they_do_tells_them_apart_and_where_they_stand_does_not(what):
    one = digest(made("sin", 1.0)[what])
    assert one == digest(made("sin", 1.0, before="import math\n\n\n")[what])
    if what in ("by_global", "closure"):
        assert one != digest(made("sin", 2.0)[what])
    else:
        assert one != digest(made("cos", 1.0)[what])


def test_numbers_and_rates_and_targets_tell_apart():
    things = [
        optax.adam(1e-3),
        optax.adam(2e-3),
        optax.sgd(optax.exponential_decay(1.0, 10, 0.5)),
        optax.sgd(optax.exponential_decay(1.0, 10, 0.4)),
        tts.Function(lambda x: jnp.sin(6 * x)),
        tts.Function(lambda x: jnp.cos(6 * x)),
        jnp.arange(3),
        jnp.arange(3.0),
        jax.random.key(0),
        jax.random.key(1),
        functools.partial(jnp.add, 1),
        functools.partial(jnp.add, 2),
        eqx.nn.Lambda(jnp.sin),
        eqx.nn.Lambda(jnp.cos),
    ]
    assert len({digest(thing) for thing in things}) == len(things)


def test_it_is_the_same_in_every_process():
    code = (
        f"space = {{'__name__': 'users'}}\nexec({SOURCE.format(name='sin', scale=1.0)!r}, space)\n"
        "import optax\nfrom tts_jax._digest import digest\n"
        "print(digest(space['Own'](), space['nested'], optax.adam(1e-3), {'a', 'b'}))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "JAX_ENABLE_X64": "1", "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
