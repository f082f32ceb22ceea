"""Networks of several inputs: their risks, gradients, Hessians and flows.

    python benchmarks/general.py [PART ...]

Parts: sample, gaussian, flow, peers; all by default. What was measured goes to
benchmarks/results/general.json, in milliseconds.

All sides of `peers` have the cores that the process has; on one core it is

    taskset -c 0 python benchmarks/general.py peers

PyTorch comes with the extra `bench`; where it is not installed, a line says so.
"""

import os
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import torch_peer
from jax.flatten_util import ravel_pytree
from parts import main, once, timed

import tts_jax as tts
from tts_jax.closed_forms.two_layer import Sample, TwoLayerForm

tts.configure()

NETWORK = tts.TwoLayerNetwork(tts.Tanh())
KEYS = jax.random.split(jax.random.key(0), 3)
TAUS = jnp.linspace(0.0, 1.0, 11)


def milliseconds(function, *arguments):
    """A warm call of a compiled function."""
    compiled = jax.jit(function)
    return 1e3 * timed(lambda: jax.block_until_ready(compiled(*arguments)))


def sample_of(width, inputs, count):
    """The problem of a teacher of three neurons on a Gaussian sample, and a start."""
    x = jax.random.normal(KEYS[0], (count, inputs))
    y = jnp.tanh(x @ jax.random.normal(KEYS[1], (3, inputs)).T) @ jnp.array([1.0, -2.0, 1.5])
    start = tts.init_two_layer(KEYS[2], NETWORK, inputs, width, bias_scale=0.5, outer_scale=0.1)
    return tts.EmpiricalProblem(NETWORK, x, y), start


def sample():
    """Gradient and Hessian of a sample's risk as flows have them, beside automatic derivatives."""
    for width, inputs, count in ((20, 5, 500), (60, 5, 500), (20, 5, 10_000), (4, 100, 500)):
        problem, params = sample_of(width, inputs, count)
        system = problem.closed_form(width).system(jnp.ones(()), jnp.zeros(()))
        flat, whole = ravel_pytree(params)

        def risk(flat, problem=problem, whole=whole):
            return problem.risk(whole(flat))

        found = {
            "gradient": milliseconds(lambda params, s=system: s.gradient(params), params),
            "autodiff gradient": milliseconds(jax.grad(risk), flat),
            "Hessian": milliseconds(lambda params, s=system: s.hessian(params), params),
            "autodiff Hessian": milliseconds(jax.hessian(risk), flat),
        }
        row = f"m = {width}, d = {inputs}, N = {count}"
        print(row, {name: round(value, 3) for name, value in found.items()}, flush=True)
        yield row, found


def gaussian():
    """The exact risk over Gaussian inputs and its gradient, 20 students of 5 teachers."""
    for kind, bias in ((tts.Erf, False), (tts.Erf, True), (tts.ReLU, False), (tts.ReLU, True)):
        for inputs in (5, 100, 784):
            network = tts.TwoLayerNetwork(kind(), bias=bias)
            both = [
                tts.init_two_layer(key, network, inputs, width, bias_scale=1.0, outer_scale=1.0)
                for key, width in zip(KEYS, (5, 20), strict=False)
            ]
            problem = tts.GaussianProblem(network, tts.Teacher(network, both[0]))
            found = {
                "risk": milliseconds(lambda p, problem=problem: problem.risk(p), both[1]),
                "gradient": milliseconds(
                    lambda p, problem=problem: jax.grad(problem.risk)(p), both[1]
                ),
            }
            row = f"{kind.__name__}, {'biases' if bias else 'no biases'}, d = {inputs}"
            print(row, {name: round(value, 3) for name, value in found.items()}, flush=True)
            yield row, found


def flow():
    """Flows to tau = 1 at rtol 1e-6, by the chosen method and without what is known of the risk."""

    class Plain(tts.EmpiricalProblem):
        """The same problem without what is known of it."""

        def closed_form(self, width):
            del width
            return

    for width, epsilon in ((20, 1.0), (20, 1e-2), (20, 1e-4), (60, 1e-2), (60, 1e-4)):
        problem, start = sample_of(width, 5, 500)
        how = tts.GradientFlow(epsilon, rtol=1e-6, atol=1e-8)

        def run(problem=problem, how=how, start=start):
            return jax.block_until_ready(tts.simulate(problem, how, start, TAUS))

        found = {"chosen": 1e3 * timed(run), "solver": run().solver}
        if width == 20:
            plain = Plain(problem.network, problem.x, problem.y)
            found["without a closed form"] = 1e3 * timed(lambda r=run, p=plain: r(problem=p), 1)
        print(f"m = {width}, epsilon = {epsilon:g}", found, flush=True)
        yield f"m = {width}, epsilon = {epsilon:g}", found


def plain(width):
    """The risk of flat parameters (a, b, w) in JAX, as one writes it without a library."""

    def risk(flat, x, y):
        a, b = flat[: width + 1], flat[width + 1 : 2 * width + 1]
        w = flat[2 * width + 1 :].reshape(width, -1)
        return jnp.mean((a[0] + jnp.tanh(x @ w.T + b) @ a[1:] - y) ** 2)

    return {"risk": risk, "gradient": jax.grad(risk), "Hessian": jax.hessian(risk)}


def by_package(problem, width, whole):
    """The package's functions of flat parameters. The gradient is the one that its flows take:
    written out up to 500 parameters, and by autodiff of the blocks of the risk beyond."""

    def exact(flat, problem):
        # The form that the flows use up to 500 parameters, of any number of them.
        y = jnp.asarray(problem.y)[:, None]
        sample = Sample(jnp.asarray(problem.x), y, jnp.full(y.shape[0], 1.0 / y.shape[0]))
        form = TwoLayerForm(problem.network, sample, jnp.zeros(()), problem.risk)
        # Whose state lacks what all targets have in common.
        return form.system(jnp.ones(()), jnp.zeros(())), form.to_state(whole(flat))[0]

    def risk(flat, problem):
        return problem.risk(whole(flat))

    def gradient(flat, problem):
        if problem.closed_form(width) is None:
            return jax.grad(risk)(flat, problem)
        system, state = exact(flat, problem)
        return ravel_pytree(system.gradient(state))[0]

    def hessian(flat, problem):
        system, state = exact(flat, problem)
        return system.hessian(state)

    return {"risk": risk, "gradient": gradient, "Hessian": hessian}


def in_turns(runs):
    """The median milliseconds of each of some functions, called in turns: other work on the machine
    slows down all of them."""
    for run in runs.values():
        run()
    times = {name: [] for name in runs}
    while min(map(sum, times.values())) < 0.2 or len(next(iter(times.values()))) < 3:
        for name, run in runs.items():
            times[name].append(once(run))
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


_MOST = 2e9
"""Bytes, at most, of a Hessian with its copies, and of what automatic derivatives keep for it."""


PEERS = (*((d, 500) for d in (5, 100, 784)), (5, 10_000), (5, 100_000), (5, 10**6))
"""Inputs and samples."""


def peers():
    """Risk, gradient and Hessian of a sample, m = 20: the package, plain JAX, and PyTorch."""
    width, cores = 20, len(os.sched_getaffinity(0))
    if not torch_peer.IS_THERE:
        print(f"PyTorch is {torch_peer.INSTALL}", flush=True)
    for inputs, count in PEERS:
        problem, params = sample_of(width, inputs, count)
        x, y = jnp.asarray(problem.x), jnp.asarray(problem.y)
        flat, whole = ravel_pytree(params)
        us, them = by_package(problem, width, whole), plain(width)
        # As arrays: JAX takes a tenth of a millisecond to take a problem apart, once in a flow.
        arrays, structure = jax.tree.flatten(problem)
        version, by_torch = "not installed", {}
        if torch_peer.IS_THERE:
            version, by_torch = torch_peer.functions(np.asarray(x), np.asarray(y), width)
        found = {"parameters": flat.size, "cores": cores, "torch": version}
        row = f"m = {width}, d = {inputs}, N = {count}"
        for what, own in us.items():
            one = jax.jit(lambda v, p, f=own, s=structure: f(v, jax.tree.unflatten(s, p)))
            runs = {"tts_jax": lambda f=one, v=flat, p=arrays: np.asarray(f(v, p))}
            # The peers' Hessian keeps a tangent of each neuron for each parameter.
            size, kept = 8 * flat.size**2, 8 * count * width * flat.size
            if what == "Hessian" and size > _MOST / 4:
                found[what] = f"left out: {size / 1e9:.1f} GB for each copy of it"
            elif what == "Hessian" and kept > _MOST:
                found["Hessian of peers"] = f"left out: {kept / 1e9:.0f} GB to be kept at once"
                found[what] = compared(runs)
            else:
                other, point = jax.jit(them[what]), np.array(flat)
                runs["plain JAX"] = lambda f=other, v=flat, x=x, y=y: np.asarray(f(v, x, y))
                if by_torch:
                    runs["PyTorch"] = lambda f=by_torch[what], v=point: f(v)
                found[what] = compared(runs)
            print(row, what, found[what], flush=True)
        yield row, found


def compared(runs):
    """Milliseconds of all runs, what they are times those of the first, and how far the results are
    from its results, over the largest of these."""
    wanted = next(iter(runs.values()))()
    results = {name: run() for name, run in runs.items()}
    times = in_turns(runs)
    first = next(iter(times.values()))
    return {
        name: {
            "ms": round(time, 4),
            "times the first": round(time / first, 2),
            "difference": float(np.max(np.abs(results[name] - wanted)) / np.max(np.abs(wanted))),
        }
        for name, time in times.items()
    }


if __name__ == "__main__":
    main("general", {"sample": sample, "gaussian": gaussian, "flow": flow, "peers": peers})
