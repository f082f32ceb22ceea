"""Models of other libraries against the same network by hand, and calls that are refused."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_models import COUNT, INPUTS, LIBRARIES, WIDTH, Mlp, X, Y, by_hand

import tts_jax as tts

TAUS = jnp.linspace(0.0, 0.3, 4)
DYNAMICS = {
    "flow": tts.GradientFlow(0.1, rtol=1e-11, atol=1e-12),
    # By one method: for the network by hand the package would take its own.
    "reduced": tts.ReducedFlow(rtol=1e-9, atol=1e-11, ridge=1e-13, solver=tts.stiff_solver()),
    "sgd": tts.SGD(0.1, 0.02, batch_size=3),
}


@pytest.fixture(autouse=True)
def _as_users_do():
    # Libraries and users add biases (m,) to rows (N, m), and initialise in single precision.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def runs_by_hand():
    found = {}

    def run(name):
        if name not in found:
            problem, start = by_hand()
            found[name] = tts.simulate(problem, DYNAMICS[name], start, TAUS, key=jax.random.key(1))
        return found[name]

    return run


def same(found, wanted, atol=1e-10):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


KEY = jax.random.key(2)


def everything(problem, start):
    """What dynamics ask of a problem, compiled at once."""

    def ask(params):
        x, y = problem.draw(KEY, 5)
        return (
            problem.predict(params, jnp.asarray(X)),
            jax.value_and_grad(problem.risk)(params),
            problem.best_outer(params.u, ridge=1e-13),
            (x, y, problem.sample_loss(params, x, y)),
        )

    return jax.jit(ask)(start)


@pytest.fixture(scope="module")
def asked_by_hand():
    problem, start = by_hand()
    with jax.numpy_rank_promotion("allow"):
        return everything(problem, start)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_of_a_library_is_the_network_by_hand(library, asked_by_hand):
    problem, start, numbers = LIBRARIES[library]()
    assert type(problem) is tts.SeparableModelProblem
    assert problem.head == (None, False, problem.head.bias, False)
    assert problem.head.bias is not None
    same(numbers(problem.to_model(start)), by_hand().start, 0.0)
    outputs, (value, slope), best, batch = everything(problem, start)
    wanted, (risk, slope_by_hand), best_by_hand, batch_by_hand = asked_by_hand
    same((outputs, value), (wanted, risk), 1e-13)
    same(numbers(problem.to_model(slope)), slope_by_hand, 1e-13)
    same(numbers(problem.to_model(tts.Params(best, start.u))).a, best_by_hand)
    same(batch, batch_by_hand, 1e-13)


@pytest.mark.parametrize(
    ("library", "name"),
    [
        pytest.param(*case, marks=() if case == ("equinox", "sgd") else pytest.mark.thorough)
        for case in itertools.product(LIBRARIES, DYNAMICS)
    ],
)
def test_a_model_of_a_library_trains_as_the_network_by_hand(library, name, runs_by_hand):
    problem, start, numbers = LIBRARIES[library]()
    run = tts.simulate(problem, DYNAMICS[name], start, TAUS, key=jax.random.key(1))
    wanted = runs_by_hand(name)
    same(run.risk, wanted.risk)
    same(numbers(problem.to_model(run.params)), wanted.params)


def test_a_module_stays_a_module():
    model = Mlp(jax.random.key(0))
    problem, start = tts.from_module(model, X, Y)
    assert isinstance(start.a, Mlp)
    assert start.a.layers[0].weight is None
    assert start.u.layers[-1].bias is None
    again = problem.to_model(start)
    assert eqx.tree_equal(again, model)
    same(problem.predict(start, problem.x), jax.vmap(model)(X), 1e-14)
    path = jax.tree.map(lambda v: jnp.stack([v, v]), start)
    assert problem.to_model(path).layers[1].weight.shape == (2, 1, WIDTH)


@pytest.mark.parametrize(
    ("outputs", "y"),
    [
        ("scalar", Y[:, None]),
        pytest.param(1, Y[:, None], marks=pytest.mark.thorough),
        pytest.param(1, Y, marks=pytest.mark.thorough),
    ],
    ids=["scalar-N1", "1-N1", "1-N"],
)
def test_one_output_may_have_an_axis_or_none(outputs, y):
    problem, start = tts.from_module(Mlp(jax.random.key(0), outputs=outputs), X, y)
    found, (risk, _), best, _ = everything(problem, start)
    assert found.shape == y.shape
    same(risk, np.mean((np.ravel(found) - Y) ** 2), 1e-13)
    assert problem.risk(tts.Params(best, start.u)) < risk


def test_batched_modules_and_inputs_without_an_axis():
    def line(params, x):
        return params["a"] * jnp.tanh(params["u"] * x)

    class Line(eqx.Module):
        params: dict

        def __call__(self, x):
            return line(self.params, x)

    params = {"a": 1.0, "u": jnp.asarray(0.5)}
    one, at = tts.from_apply(line, params, X[:, 0], Y, fast="a")
    model = Line(jax.tree.map(jnp.asarray, params))
    for batched in (True, False):
        other, start = tts.from_module(model, X[:, 0], Y, lambda m: m.params["a"], batched=batched)
        same(other.risk(start), one.risk(at), 1e-15)


def test_fixed_leaves_are_not_trained():
    class Counted(eqx.Module):
        inner: Mlp
        scale: jax.Array
        calls: jax.Array
        name: str

        def __call__(self, x):
            return self.scale * self.inner(x)

    model = Counted(Mlp(jax.random.key(0)), jnp.asarray(2.0), jnp.asarray(3), "a name")
    problem, start = tts.from_module(
        model,
        X,
        Y,
        lambda m: m.inner.layers[-1],
        frozen=lambda m: (m.scale, m.inner.layers[0].bias),
    )
    assert [len(jax.tree.leaves(half)) for half in start] == [2, 1]
    assert eqx.tree_equal(problem.to_model(start), model)
    assert isinstance(problem, tts.SeparableModelProblem)
    labels = {"inner": "slow", "outer": "fast", "scale": "fixed", "shift": False}
    values = {"inner": jnp.ones(3), "outer": jnp.ones(()), "scale": jnp.ones(()), "shift": 1.0}

    def apply(p, x):
        return p["scale"] * p["outer"] * jnp.tanh(x @ p["inner"]) + p["shift"]

    problem, start = tts.from_apply(apply, values, X, Y, labels)
    assert start.u["scale"] is None
    assert start.u["shift"] is not None
    assert problem.head.has_offset


@pytest.mark.parametrize("training", [False, True])
def test_batch_normalisation_by_kept_means_only(training):
    linen = pytest.importorskip("flax.linen")

    class Normalised(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.BatchNorm(use_running_average=not training)(linen.Dense(WIDTH)(x))
            return linen.Dense(1)(jnp.tanh(x))

    def apply(variables, x):
        return Normalised().apply(variables, x, mutable=["batch_stats"])[0]

    variables = Normalised().init(jax.random.key(0), X)
    if training:
        with pytest.raises(ValueError, match=r"`apply`.*for each input by itself"):
            tts.from_apply(apply, variables, X, Y, "Dense_1", separable=False)
        return
    problem, start = tts.from_apply(apply, variables, X, Y, "Dense_1", frozen="batch_stats")
    assert type(problem) is tts.SeparableModelProblem
    assert [len(jax.tree.leaves(half)) for half in start] == [2, 4]
    assert jax.tree.leaves(start.u["batch_stats"]) == []


def test_a_model_that_is_not_affine_is_told_and_still_trains():
    def apply(p, x):
        return jax.nn.relu(x @ p["w"]) @ p["v"]["in"] * p["v"]["out"]

    random = np.random.default_rng(0)
    params = {"w": random.normal(size=(INPUTS, 4)), "v": {"in": random.normal(size=4), "out": 1.0}}
    with pytest.warns(
        tts.NotAffineWarning, match=r"not affine in \['v'\]\['in'\], \['v'\]\['out'\]"
    ):
        problem, start = tts.from_apply(apply, params, X, Y, "v")
    assert type(problem) is tts.ModelProblem
    assert problem.not_affine == ("['v']['in']", "['v']['out']")
    with pytest.warns(tts.NotAffineWarning, match=r"not affine in \['w'\]:"):
        tts.from_apply(apply, params, X, Y, lambda path: "out" not in path)
    with pytest.raises(ValueError, match=r"`problem`.*best_outer.*a ModelProblem"):
        tts.simulate(problem, tts.ReducedFlow(), start, TAUS)
    with pytest.raises(ValueError, match=r"`separable`.*not affine in "):
        tts.from_apply(apply, params, X, Y, "v", separable=True)
    problem, start = tts.from_apply(apply, params, X, Y, "v", separable=False)
    descent = tts.SGD(0.1, 0.01, batch_size="full")
    run = tts.simulate(problem, descent, start, 0.001 * jnp.arange(1.0, 11.0))
    assert run.risk[-1] < run.risk[0]


@pytest.mark.thorough
def test_the_flow_of_a_model_that_is_not_affine():
    model = Mlp(jax.random.key(0))
    problem, start = tts.from_module(model, X, Y, lambda m: m.layers[0], separable=False)
    run = tts.simulate(problem, tts.GradientFlow(0.1), start, TAUS)
    assert run.risk[-1] < run.risk[0]


@pytest.mark.thorough
def test_sgd_in_single_precision_and_replayed():
    problem, start = tts.from_module(Mlp(jax.random.key(0)), X, Y, dtype="float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(start)} == {np.dtype("float32")}
    double, begin = tts.from_module(problem.to_model(start), X, Y)
    index = np.arange(60).reshape(30, 2) % COUNT
    samples, sgd = (index, np.zeros((30, 2))), tts.SGD(0.1, 0.02, batch_size=2)
    taus = 0.002 * jnp.arange(0.0, 31.0, 10.0)
    single = tts.simulate(problem, sgd, start, taus, samples=samples)
    exact = tts.simulate(double, sgd, begin, taus, samples=samples)
    same(single.risk, exact.risk, 1e-5)


@pytest.mark.thorough
def test_transformations_go_through_the_flow_and_the_construction():
    def line(params, x):
        return params["a"] * jnp.tanh(params["u"] * x)

    def last(scale, u):
        params = {"a": jnp.zeros(()), "u": u}
        problem, start = tts.from_apply(line, params, X[:, 0], scale * Y, "a", separable=True)
        flow = tts.GradientFlow(0.5, rtol=1e-10, atol=1e-12)
        return tts.simulate(problem, flow, start, jnp.asarray([0.2])).risk[-1]

    h = 1e-5
    at = jnp.asarray([[1.0, 0.5], [1.0 + h, 0.5], [1.0 - h, 0.5], [1.0, 0.5 + h], [1.0, 0.5 - h]])
    each = jax.jit(jax.vmap(jax.value_and_grad(last, argnums=(0, 1))))
    values, slopes = each(at[:, 0], at[:, 1])
    wanted = (values[1] - values[2]) / (2 * h), (values[3] - values[4]) / (2 * h)
    same((slopes[0][0], slopes[1][0]), wanted, 1e-6)


def test_under_a_transformation_nothing_is_found_out():
    def make(y):
        return tts.from_apply(
            lambda p, x: p["a"] * jnp.tanh(p["u"] * x), {"a": 0.0, "u": 1.0}, X[:, 0], y, "a"
        )[1]

    with pytest.raises(ValueError, match=r"`separable`.*under a jax transformation"):
        jax.jit(make)(Y)


def test_a_problem_made_anew_compiles_nothing():
    traces = []

    def make(y):
        def apply(params, x):
            traces.append(1)
            return jnp.tanh(x @ params["u"]) @ params["a"]

        params = {"a": jnp.ones(4), "u": jnp.ones((INPUTS, 4))}
        return tts.from_apply(apply, params, X, y, "a", separable=False)

    sgd = tts.SGD(0.1, 0.01, batch_size=2)
    for y, count in ((Y, None), (Y + 1.0, 1)):
        problem, start = make(y)
        before = len(traces)
        tts.simulate(problem, sgd, start, TAUS, key=jax.random.key(0))
        assert count is None or len(traces) - before == 0


def module(**changed):
    return tts.from_module(**({"model": Mlp(jax.random.key(0)), "x": X, "y": Y} | changed))


def function(**changed):
    def apply(params, x):
        return jnp.tanh(x @ params["u"]) @ params["a"]

    params = {"a": jnp.ones(4), "u": jnp.ones((INPUTS, 4)), "n": jnp.arange(3)}
    given = {"apply": apply, "params": params, "x": X, "y": Y, "fast": "a"}
    return tts.from_apply(**(given | changed))


@pytest.mark.parametrize(
    ("make", "changed", "message"),
    [
        (module, {"model": 3}, "`model` must be a module that can be called"),
        (module, {"model": jnp.tanh}, "`fast`.*fails with AttributeError"),
        (module, {"fast": lambda m: m.activation}, "`fast`.*picks no array"),
        (module, {"fast": lambda m: m.layers}, "`fast`.*leaves none to the rest"),
        (module, {"fast": lambda m: m.layers[5]}, "`fast`.*IndexError"),
        (module, {"fast": lambda m: (m.layers[1], m.layers[1].bias)}, r"`fast`.*bias twice"),
        (module, {"fast": lambda m: 3.0}, "`fast`.*returns 3.0"),
        (module, {"fast": "layers"}, "`fast` must be a function of the module"),
        (module, {"frozen": lambda m: m.layers[1].bias}, "`fast`.*`frozen`.*bias"),
        (module, {"frozen": lambda m: m.layers[0]}, "`fast`.*leaves none"),
        (module, {"x": X[:, :2]}, "`model`.*fails with"),
        (module, {"x": X[:0], "y": Y[:0]}, "`x`"),
        (module, {"x": np.where(X > 1, np.nan, X)}, "`x` must be finite"),
        (module, {"y": np.where(Y > 3, np.nan, Y)}, "`y` must be finite"),
        (module, {"y": Y[1:]}, "`y`"),
        (module, {"y": np.stack([Y, Y], 1)}, r"`y` must be of shape \(30,\), as the pred"),
        (module, {"y": Y[:, None, None]}, "`y`"),
        (module, {"weights": -np.ones(COUNT)}, "`weights`"),
        (module, {"penalty": -1.0}, "`penalty`"),
        (module, {"dtype": "float16"}, "`dtype`"),
        (module, {"separable": 1}, "`separable`"),
        (module, {"batched": None}, "`batched`"),
        (module, {"batched": True}, "`model`.*fails"),
        (
            module,
            {"model": Mlp(jax.random.key(0), activation=eqx.nn.Dropout(0.5))},
            "`model`.*Dropout requires a key",
        ),
        (function, {"apply": 3}, "`apply`"),
        (function, {"apply": lambda p, x: 1 / 0}, "`apply`.*ZeroDivisionError"),
        (function, {"apply": lambda p, x: [x]}, "`apply`.*returns a list"),
        (function, {"apply": lambda p, x: x[:3, 0]}, r"`apply`.*\(30, K\).*returns \(3,\)"),
        (function, {"apply": lambda p, x: x[..., None]}, "`apply`.*returns"),
        (function, {"apply": lambda p, x: jnp.sum(x, 1).astype("float32")}, "`apply`.*float32"),
        (function, {"apply": lambda p, x: jnp.log(-jnp.abs(x[:, 0]))}, "`apply`.*NaN"),
        (
            function,
            {"apply": lambda p, x: jnp.sum(p["a"]) * (x[:, 0] - jnp.mean(x[:, 0]))},
            "`apply`.*each input by itself",
        ),
        (
            function,
            {"apply": lambda p, x: jnp.sum(x.reshape(COUNT, -1), axis=1)},
            "`apply`.*any number of inputs.*fails",
        ),
        (
            function,
            {"apply": lambda p, x: jnp.sum(jnp.zeros((COUNT, 1)) + x, axis=1)},
            r"`apply`.*returns \(1,\) .*returns \(30,\)",
        ),
        (function, {"fast": None}, "`fast`"),
        (function, {"fast": "b"}, '`fast` must be the name of one layer among a, n, u, but is "b"'),
        (function, {"fast": "n"}, "`fast`.*int"),
        (function, {"fast": {"a": True, "u": False}}, "`fast`.*another structure"),
        (
            function,
            {"fast": {"a": "outer", "u": False, "n": False}},
            r"`fast`.*'outer' for \['a'\]",
        ),
        (function, {"fast": True}, r"`fast`.*\['n'\]"),
        (function, {"fast": False}, "`fast`.*picks no array"),
        (function, {"frozen": lambda path: path[0] != "n"}, r"`fast`.*`frozen`.*\['a'\]"),
        (function, {"fast": lambda path: path[0]}, "`fast`.*True, False"),
        (function, {"fast": lambda path: path[1]}, r"`fast`.*paths such as \('a',\).*IndexError"),
        (
            function,
            {"params": {"a": np.ones(4), "u": np.ones((INPUTS, 4)), "s": np.array(["one"])}},
            r"`params`.*numbers.*<U3 in \['s'\]",
        ),
        (
            function,
            {"params": {"a": jnp.full(4, jnp.nan), "u": jnp.ones((INPUTS, 4))}},
            r"`params\['a'\]` must be finite",
        ),
        (
            function,
            {"params": {"a": jnp.ones(4), "u": jnp.ones((INPUTS, 4), complex)}},
            "`params`.*complex",
        ),
    ],
)
def test_wrong_calls_name_the_argument(make, changed, message):
    with pytest.raises(ValueError, match=message):
        make(**changed)
