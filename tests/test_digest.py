"""The hash of functions and objects: what they do tells them apart, where they stand does not."""

# ruff: noqa: E501

import importlib.util
import itertools
import subprocess
import sys
import types
from pathlib import Path

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tts_jax._digest import digest

HEAD = """
import dataclasses, enum, functools, typing
import equinox as eqx, jax, jax.numpy as jnp, numpy as np, optax, pandas as pd, scipy, xarray as xr
import tts_jax as tts
"""
COUNT = itertools.count()


def made(text: str, folder: Path, *, name: str = "users"):
    """The `thing` of a module of the user's, from a file."""
    file = folder / f"file{next(COUNT)}.py"
    file.write_text(HEAD + text)
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.thing


STEP = """
class Base(tts.AbstractActivation):
    eta: float
    knots: typing.ClassVar = (-0.5, 0.5)
    degree: typing.ClassVar = 1
    limits: typing.ClassVar = (0.0, 1.0)
    {0}
    def __call__(self, z):
        return {1} * jnp.clip(z + 0.5, 0.0, 1.0)
"""
DATA = "class Data:\n    k: float\n    row: object = None\n    def f(self, x):\n        return self.k * x\n"

# Each: what stands in a module, and two texts for K, which make `thing` do two things.
DIFFERENT = {
    "a bound method": (
        "class W(eqx.Module):\n    a: float\n    def f(self, x): return self.a * x\nthing = W(K).f",
        *("1.0", "9.0"),
    ),
    "a bound method of an object": (
        "class W:\n    def __init__(self, a): self.a = a\n    def f(self, x): return self.a * x\n"
        "thing = W(K).f",
        *("1.0", "9.0"),
    ),
    "a callable object": (
        "class W:\n    def __init__(self, a): self.a = a\n    def __call__(self, x): return self.a\n"
        "thing = W(K)",
        *("1.0", "9.0"),
    ),
    "an object with slots": (
        "class W:\n    __slots__ = ('a',)\n    def __call__(self, x): return self.a\n"
        "thing = W()\nthing.a = K",
        *("1.0", "9.0"),
    ),
    "a closure over a number": ("def m(k): return lambda x: k * x\nthing = m(K)", "1.0", "9.0"),
    "a closure over an object": (
        "@dataclasses.dataclass\n" + DATA + "def m(d): return lambda x: d.f(x)\nthing = m(Data(K))",
        *("1.0", "9.0"),
    ),
    "a closure over a float32": (
        "def m(k): return lambda x: k * x\nthing = m(K(1))",
        "float",
        "np.float32",
    ),
    "a default argument": ("def thing(x, k=K): return k * x", "1.0", "9.0"),
    "a default by keyword": ("def thing(x, *, k=K): return k * x", "1.0", "9.0"),
    "an attribute of a function": ("def thing(x): return thing.k * x\nthing.k = K", "1.0", "9.0"),
    "a global": ("G = K\ndef thing(x): return G * x", "1.0", "9.0"),
    "a global of a helper's helper": (
        "G = K\ndef g(x): return G * x\ndef h(x): return g(x)\ndef thing(x): return h(x)",
        *("1.0", "9.0"),
    ),
    "a global that a nested function reads": (
        "G = K\ndef thing(x): return jax.tree.map(lambda y: G * y, x)",
        *("1.0", "9.0"),
    ),
    "a recursive function": ("def thing(n): return K if n < 1 else thing(n - 1)", "1.0", "9.0"),
    "functions that call each other": (
        "def g(n): return K * thing(n - 1)\ndef thing(n): return g(n) if n else 1.0",
        *("1.0", "9.0"),
    ),
    "an attribute of an activation's class": (
        STEP.format("top = K", "self.top") + "thing = Base(0.1)",
        "1.0",
        "9.0",
    ),
    "a constant in a method of an activation": (
        STEP.format("", "K") + "thing = Base(0.1)",
        "1.0",
        "9.0",
    ),
    "a global that a method reads": (
        "G = K\n" + STEP.format("", "G") + "thing = Base(0.1)",
        "1.0",
        "9.0",
    ),
    "what `super()` finds": (
        "class P:\n    def f(self, x): return K * x\n"
        "class Q(P):\n    def __call__(self, x): return super().f(x)\nthing = Q()",
        *("1.0", "9.0"),
    ),
    "a property": (
        "class W:\n    @property\n    def a(self): return K\n    def __call__(self, x): return self.a\n"
        "thing = W()",
        *("1.0", "9.0"),
    ),
    "a static method": (
        "class W:\n    @staticmethod\n    def a(): return K\n    def __call__(self, x): return self.a()\n"
        "thing = W()",
        *("1.0", "9.0"),
    ),
    "a method set from outside": (
        "class W:\n    def __call__(self, x): return x\nW.__call__ = lambda self, x: K * x\nthing = W()",
        *("1.0", "9.0"),
    ),
    "a helper module": ("helper.SCALE = K\ndef thing(x): return helper.SCALE * x", "1.0", "9.0"),
    "a helper module by another name": (
        "helper.SCALE = K\ndef thing(x):\n    h = helper\n    return h.SCALE * x",
        *("1.0", "9.0"),
    ),
    "a module imported inside": (
        "helper.SCALE = K\ndef thing(x):\n    import users_helper as h\n    return h.SCALE * x",
        *("1.0", "9.0"),
    ),
    "a name imported inside": (
        "helper.SCALE = K\ndef thing(x):\n    from users_helper import SCALE\n    return SCALE * x",
        *("1.0", "9.0"),
    ),
    "a series of pandas": ("s = pd.Series([0.0, K])\ndef thing(x): return s[1] * x", "1.0", "9.0"),
    "a table of pandas": (
        "s = pd.DataFrame({'n': ['a', 'b'], 'v': [0.0, K]})\ndef thing(x): return s.v[1] * x",
        *("1.0", "9.0"),
    ),
    "an array of xarray": (
        "s = xr.DataArray([0.0, K], dims='t')\ndef thing(x): return s.values[1] * x",
        *("1.0", "9.0"),
    ),
    "coordinates of xarray": (
        "s = xr.Dataset({'v': ('t', [1.0, 2.0])}, {'t': [0.0, K]})\ndef thing(x): return s.t.values",
        *("1.0", "9.0"),
    ),
    "a dataclass with a long array": (
        "@dataclasses.dataclass\n" + DATA + "    def __call__(self, x): return self.row[1000]\n"
        "thing = Data(1.0, np.where(np.arange(2000) == 1000, K, 0.0))",
        *("1.0", "9.0"),
    ),
    "an array of objects": (
        "s = np.array([None, K], object)\ndef thing(x): return s[1]",
        "1.0",
        "9.0",
    ),
    "a dictionary in another order": (
        "d = K\ndef thing(x): return list(d.values())",
        "{1: 1, 2: 2}",
        "{2: 2, 1: 1}",
    ),
    "a schedule that is an object": (
        "@dataclasses.dataclass\nclass Decay:\n    k: float\n    def __call__(self, n): return self.k / (1 + n)\n"
        "thing = optax.sgd(Decay(K))",
        *("1.0", "9.0"),
    ),
    "a schedule of optax": ("thing = optax.sgd(optax.exponential_decay(1.0, 10, K))", "0.5", "0.4"),
    "a rate of optax": ("thing = optax.adam(K)", "1e-3", "2e-3"),
    "a partial function": ("thing = functools.partial(jnp.add, K)", "1.0", "9.0"),
    "a derivative": ("def f(x): return x**3\nthing = K(f)", "jax.jit", "jax.grad"),
    "an option of vmap": ("def f(x): return x\nthing = jax.vmap(f, in_axes=K)", "0", "1"),
    "a rule for derivatives": (
        "thing = jax.custom_jvp(lambda x: x)\nthing.defjvps(lambda d, v, x: K * d)",
        *("1.0", "9.0"),
    ),
    "a compiled function": ("@jax.jit\ndef thing(x): return K * x", "1.0", "9.0"),
    "a compiled method": (
        "class W(eqx.Module):\n    @eqx.filter_jit\n    def __call__(self, x): return K * x\nthing = W()",
        *("1.0", "9.0"),
    ),
    "lambdas on one line": ("thing = [lambda x: x, lambda x: 2 * x][K]", "0", "1"),
    "a nested lambda": ("thing = lambda x: (lambda y: K * y)(x)", "1.0", "9.0"),
    "a function in a static field": (
        "class W(eqx.Module):\n    f: typing.Callable = eqx.field(static=True)\nthing = W(lambda x: K * x)",
        *("1.0", "9.0"),
    ),
    "members of an enumeration": (
        "class E(enum.Enum):\n    A = 1\n    B = 2\n    def __call__(self, x): return self.value * x\nthing = E.K",
        *("A", "B"),
    ),
    "a named tuple": (
        "class N(typing.NamedTuple):\n    k: float\nn = N(K)\ndef thing(x): return n.k * x",
        *("1.0", "9.0"),
    ),
    "a list of a user's class": (
        "class L(list):\n    def __call__(self, x): return self[0] * x\nthing = L([K])",
        *("1.0", "9.0"),
    ),
    "a spline of SciPy": (
        "import scipy.interpolate\nthing = scipy.interpolate.CubicSpline([0, 1, 2], [0.0, 1.0, K])",
        *("1.0", "9.0"),
    ),
    "a method of an array": ("thing = np.array([1.0, K]).dot", "1.0", "9.0"),
    "a generator of random numbers": ("thing = np.random.default_rng(K).normal", "1", "9"),
    "a key": ("thing = jax.random.key(K)", "1", "9"),
    "a dtype": ("thing = jnp.arange(3, dtype=K)", "int", "float"),
    "a sign of zero": ("thing = lambda x: K * x", "0.0", "-0.0"),
    "a truth value": ("thing = K", "True", "1"),
}


@pytest.fixture
def helper(monkeypatch):
    module = types.ModuleType("users_helper")
    monkeypatch.setitem(sys.modules, "users_helper", module)
    return module


@pytest.mark.parametrize("way", DIFFERENT)
def test_what_they_do_tells_them_apart(way, tmp_path, helper):
    text, first, second = DIFFERENT[way]
    text = "import users_helper as helper\n" + text
    found = [digest(made(text.replace("K", k), tmp_path)) for k in (first, second, first)]
    assert found[0] != found[1]
    assert found[0] == found[2]


PLAIN = "def thing(x):\n    y = 2 * x\n    return y\n"
CLASS = "class W:\n    a = 1\n    def __call__(self, x):\n        return 2 * x\nthing = W()\n"
COUNTED = (
    "seen, n = [], {'n': 0}\ndef thing(x):\n    seen.append(x)\n    n['n'] += 1\n    return 2 * x\n"
)

# Each: two modules whose `thing` does the same.
SAME = {
    "a docstring": (PLAIN, PLAIN.replace("    y =", "    '''Twice.'''\n    y =")),
    "a docstring of a class": (CLASS, CLASS.replace("    a =", "    '''Twice.'''\n    a =")),
    "a docstring of a method": (
        CLASS,
        CLASS.replace("        return", "        '''Twice.'''\n        return"),
    ),
    "a docstring of a nested function": (
        "def thing(x):\n    def g(y):\n        return y\n    return g(x)",
        "def thing(x):\n    def g(y):\n        'Itself.'\n        return y\n    return g(x)",
    ),
    "a comment": (PLAIN, PLAIN.replace("2 * x", "2 * x  # twice")),
    "lines before it": (PLAIN, "import math\n\n\n" + PLAIN),
    "layout": (PLAIN, PLAIN.replace("2 * x", "(\n        2\n        * x\n    )")),
    "annotations": (
        PLAIN,
        PLAIN.replace("(x)", "(x: float) -> 'float'").replace("y =", "y: float ="),
    ),
    "annotations of a nested function": (
        "thing = lambda x: g(x)\ndef g(y): return (lambda z: z)(y)",
        "thing = lambda x: g(x)\ndef g(y: typing.Any) -> typing.Any: return (lambda z: z)(y)",
    ),
    "a statement that does nothing": (PLAIN, PLAIN.replace("    y =", "    pass\n    y =")),
    "how a number is written": ("thing = lambda x: 1000.0 * x", "thing = lambda x: 1_000.0 * x"),
    "how a text is written": ("thing = lambda x: x['a']", 'thing = lambda x: x["a"]'),
    "a name": ("def thing(x): return 2 * x", "def f(x): return 2 * x\nthing = f"),
    "a lambda": ("def thing(x): return 2 * x", "thing = lambda x: 2 * x"),
    "jit": (PLAIN, PLAIN + "thing = jax.jit(thing)"),
    "jit by equinox": (PLAIN, PLAIN + "thing = eqx.filter_jit(thing)"),
    "a cache": (PLAIN, PLAIN + "thing = functools.lru_cache(thing)"),
    "where it was made": (
        "def m(k): return lambda x: k * x\nthing = m(2.0)",
        "def m(k): return lambda x: k * x\nm(3.0)\nthing = m(2.0)",
    ),
    "what a function only writes to": (COUNTED, COUNTED + "thing(1.0)"),
    "NumPy or JAX": (
        "s = np.arange(3.0)\ndef thing(x): return s * x",
        "s = jnp.arange(3.0)\ndef thing(x): return s * x",
    ),
    "how a table lies in memory": (
        "s = pd.DataFrame({'a': [1.0], 'b': [2.0]})\ndef thing(x): return s.a * x",
        "s = pd.DataFrame({'a': [1.0]})\ns['b'] = [2.0]\ndef thing(x): return s.a * x",
    ),
    "the order of a set": ("thing = {'a', 'b', 'c'}", "thing = {'c', 'b', 'a'}"),
    "one function or two": (
        "f = lambda x: 2 * x\nthing = [f, f]",
        "thing = [lambda x: 2 * x, lambda x: 2 * x]",
    ),
    "what has been looked up": (
        "class W:\n    @functools.cached_property\n    def a(self): return 1\nthing = W()",
        "class W:\n    @functools.cached_property\n    def a(self): return 1\nthing = W()\nthing.a",
    ),
    "an optimiser made anew": (
        "thing = optax.adam(1e-3)",
        "optax.adam(2e-3)\nthing = optax.adam(1e-3)",
    ),
}


@pytest.mark.parametrize("way", SAME)
def test_what_does_nothing_does_not_tell_them_apart(way, tmp_path):
    first, second = (made(text, tmp_path) for text in SAME[way])
    assert digest(first) == digest(second)


def test_the_module_does_not_count(tmp_path):
    assert digest(made(PLAIN, tmp_path)) == digest(made(PLAIN, tmp_path, name="others"))


def test_a_function_that_went_to_another_process_is_the_same(tmp_path):
    closed = made("def m(k): return lambda x: np.sin(k * x)\nthing = m(2.0)", tmp_path)
    assert digest(cloudpickle.loads(cloudpickle.dumps(closed))) == digest(closed)


REFUSED = {
    "a lock": ("import threading\ns = threading.Lock()\ndef thing(x): return s", "_thread.lock"),
    "a file": ("import io\ns = io.FileIO(0, closefd=False)\ndef thing(x): return s", "FileIO"),
    "a generator": ("s = (i for i in range(3))\ndef thing(x): return next(s)", "generator"),
    "eval": ("thing = lambda x: eval('x')", "a function that calls `eval`"),
    "sys.modules": (
        "import sys\nthing = lambda x: sys.modules['m'].K * x",
        "a function that uses `sys.modules`",
    ),
    "import_module": (
        "import importlib\nthing = lambda x: importlib.import_module('m').K * x",
        "a function that uses `importlib.import_module`",
    ),
    "globals": ("def thing(x): return globals()['k'] * x", "a function that calls `globals`"),
    "a file read inside": ("def thing(x): return open('k').read()", "a function that calls `open`"),
    "a function of NumPy's made of one": ("thing = np.frompyfunc(lambda x: x, 1, 1)", "NumPy"),
}


@pytest.mark.parametrize("way", REFUSED)
def test_what_cannot_be_told_apart_is_refused(way, tmp_path):
    text, got = REFUSED[way]
    thing = made(text, tmp_path)
    reads = " reads s" if "s = " in text else ""
    where = rf"Argument `problem\.target\.function{reads}` must be made of .* but is .*{got}"
    with pytest.raises(ValueError, match=where):
        digest({"problem": {"target": {"function": thing}}})


def test_numbers_and_shapes_tell_apart_and_references_in_circles_end():
    ring = [1.0]
    ring.append(ring)
    other = [2.0]
    other.append(other)
    things = [jnp.arange(3), jnp.arange(3.0), np.zeros((2, 3)), np.zeros((3, 2)), ring, other]
    assert len({digest(thing) for thing in things}) == len(things)
    again = [1.0]
    again.append(again)
    assert digest(again) == digest(ring)


def test_it_is_the_same_in_every_process():
    text = f"{HEAD}\n{PLAIN}\n{STEP.format('', '2.0')}"
    code = (
        f"space = {{'__name__': 'users'}}\nexec({text!r}, space)\n"
        "import optax\nfrom tts_jax._digest import digest\n"
        "print(digest(space['Base'](0.1), space['thing'], optax.adam(1e-3), {'a', 'b'}))"
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


def test_a_traced_number_has_no_digest():
    def traced(x):
        with pytest.raises(ValueError, match="being traced"):
            digest(lambda y: x * y)
        return x

    jax.jit(traced)(1.0)
    assert digest(optax.adam(1e-3)) == digest(optax.adam(1e-3))
