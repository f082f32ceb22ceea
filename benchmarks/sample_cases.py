"""Flows of networks on samples: what each side gets, the reference, and the error of a run.

A two-layer network of m neurons learns a teacher of three neurons on N Gaussian inputs of dimension
d. What a solver in Python asks for is compiled by JAX once for each size: the masses are an
argument, so that another epsilon compiles nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import tts_jax as tts
from tts_jax.dynamics.base import RunInputs

tts.configure()

KEYS = jax.random.split(jax.random.key(0), 4)
TANH = tts.TwoLayerNetwork(tts.Tanh())
RIDGE = tts.ReducedFlow().ridge
"""All sides of the reduced flow have this one: with another one it is another flow."""

START = {"bias_scale": 0.5, "outer_scale": 0.1}


def data_of(sigma, inputs, count, keys=KEYS):
    """Inputs and values (N, d), (N,) of the teacher, and 1000 fresh inputs."""
    x = jax.random.normal(keys[0], (count, inputs))
    y = sigma(x @ jax.random.normal(keys[1], (3, inputs)).T) @ jnp.array([1.0, -2.0, 1.5])
    return x, y, jax.random.normal(keys[3], (1000, inputs))


def two_layer(width, inputs, count, network=TANH, keys=KEYS):
    """The functions of a two-layer network; it has width (inputs + 2) + 1 parameters."""
    x, y, fresh = data_of(network.activation, inputs, count, keys)
    problem = tts.EmpiricalProblem(network, x, y)
    start = tts.init_two_layer(keys[2], network, inputs, width, **START)
    return Functions(problem, start, fresh)


class Functions:
    """A problem, its start, and compiled functions of flat parameters, the fast ones first."""

    def __init__(self, problem, start, fresh):
        self.problem, self.start = problem, start
        self.whole = ravel_pytree(start)[1]
        self.fast = sum(np.size(leaf) for leaf in jax.tree.leaves(start.a))
        x, y, whole, predict = problem.x, problem.y, self.whole, problem.predict

        def risk(flat):
            return jnp.mean((predict(whole(flat), x) - y) ** 2)

        def field(flat, masses):
            return -jax.grad(risk)(flat) / masses

        def product(flat, vector, masses):
            return jax.jvp(lambda at: field(at, masses), (flat,), (vector,))[1]

        def best(inner):
            return problem.best_outer(inner, ridge=RIDGE)

        def reduced(u):
            """The reduced flow of the inner layer alone."""
            a = best(unravel(u))
            slope = jax.grad(lambda inner: problem.risk(tts.Params(a, inner)))(unravel(u))
            return -ravel_pytree(slope)[0]

        self.inner, unravel = ravel_pytree(start.u)
        self.field, self.product = jax.jit(field), jax.jit(product)
        self.reduced = jax.jit(reduced)
        self.completed = jax.jit(
            jax.vmap(lambda u: ravel_pytree((best(unravel(u)), unravel(u)))[0])
        )
        self.jacobian = jax.jit(lambda flat, masses: -self._hessian(flat) / masses[:, None])
        self.fast_block = jax.jit(lambda flat: 2 * problem.normal_equations(whole(flat).u)[0])
        self.risks = jax.jit(jax.vmap(risk))
        self.outputs = jax.jit(jax.vmap(lambda flat: predict(whole(flat), fresh)))

        @jax.jit
        def by_rosenbrock(epsilon, rtol, start, taus):
            flow = tts.GradientFlow(epsilon, rtol=rtol, atol=1e-2 * rtol)
            return flow.run(RunInputs(problem, start, taus, None, None))

        self.by_rosenbrock = by_rosenbrock

    def _hessian(self, flat):
        """The exact Hessian of a two-layer network, written out: far cheaper than by autodiff, so
        that the peers that take it are not slow by it."""
        network, params = self.problem.network, self.whole(flat)
        x, y, a = self.problem.x, self.problem.y, params.a[1:]
        ones = jnp.ones_like(y)[:, None]
        inputs = jnp.concatenate([ones, x], axis=1)  # of b, and of w
        count, width, size = y.size, a.size, inputs.shape[1]
        z = network.preactivations(params.u, x)
        sigma, slope, bend = derivatives(network.activation, z)
        gap = params.a[0] + sigma @ a - y
        inner = slope[:, :, None] * inputs[:, None]  # (N, m, d + 1), by (b, w) of each neuron
        by_u = (inner * a[:, None]).reshape(count, -1)
        rows = jnp.concatenate([ones, sigma, by_u], axis=1)
        whole = 2 / count * rows.T @ rows
        cross = 2 / count * jnp.einsum("n,njk->jk", gap, inner)
        # Each neuron's weight, by its own inputs: (m, m, d + 1) with zeros beside the diagonal.
        cross = (jnp.eye(width)[:, :, None] * cross).reshape(width, -1)
        square = jnp.einsum("nj,nk,nl->jkl", gap[:, None] * bend * a, inputs, inputs)
        square = jnp.eye(width)[:, None, :, None] * (2 / count * square)[:, :, None]
        head = width + 1
        whole = whole.at[1:head, head:].add(cross).at[head:, 1:head].add(cross.T)
        whole = whole.at[head:, head:].add(square.reshape(width * size, -1))
        return whole[jnp.ix_(self._order(width, size), self._order(width, size))]

    def _order(self, width, size):
        """From (a, (b, w) of each neuron) to the order of the flat parameters (a, b, w)."""
        own = width + 1 + np.arange(width * size).reshape(width, size)
        return np.concatenate([np.arange(width + 1), own[:, 0], own[:, 1:].ravel()])


def derivatives(sigma, z):
    """An activation with its first and second derivative, each by its element."""

    def slope(z):
        return jax.jvp(sigma, (z,), (jnp.ones_like(z),))

    (value, first), (_, second) = jax.jvp(slope, (z,), (jnp.ones_like(z),))
    return value, first, second


class Case:
    """The flow of some functions at one epsilon, and its reference, the package at a tolerance."""

    def __init__(self, functions, epsilon, *, start=None, horizon=1.0, reference=1e-11):
        self.functions, self.epsilon = functions, epsilon
        self.start = functions.start if start is None else start
        self.flat = ravel_pytree(self.start)[0]
        self.taus = jnp.linspace(0.0, horizon, 11)
        self.masses = jnp.where(jnp.arange(self.flat.size) < functions.fast, epsilon, 1.0)
        states, counts = self.states_of(self.package(reference))
        if counts["status"] != "OK":
            print(f"  the reference at rtol {reference:g} ended with {counts['status']}")
        self.wanted = functions.risks(states), functions.outputs(states)

    def package(self, rtol):
        flow = tts.GradientFlow(self.epsilon, rtol=rtol, atol=1e-2 * rtol)
        given = self.functions.problem, flow, self.start, self.taus
        return jax.block_until_ready(tts.simulate(*given, throw=False))

    def rosenbrock(self, rtol):
        numbers = jnp.asarray(self.epsilon), jnp.asarray(rtol), self.start, self.taus
        return jax.block_until_ready(self.functions.by_rosenbrock(*numbers))

    def states_of(self, run):
        """Flat states (11, P) of a run of any side, and what the run counts."""
        if isinstance(run, tuple) and len(run) == 2:  # of a peer
            return run
        params = run.params if hasattr(run, "params") else run.ys
        counts = {name: int(count) for name, count in run.stats.items()}
        status = tts.Status(int(run.status)).name
        return jax.vmap(lambda p: ravel_pytree(p)[0])(params), {**counts, "status": status}

    def error(self, states):
        """The larger of the two errors of sample_flows.py; infinite where a run failed."""
        states = jnp.asarray(states)
        if states.shape[0] < self.taus.size:
            return float("inf")
        risks, outputs = self.functions.risks(states), self.functions.outputs(states)
        by_risk = jnp.abs(risks - self.wanted[0]) / (self.wanted[0] + 1e-3)
        by_output = jnp.sqrt(jnp.mean((outputs - self.wanted[1]) ** 2, axis=1))
        found = float(jnp.max(jnp.maximum(by_risk, by_output)))
        return found if np.isfinite(found) else float("inf")
