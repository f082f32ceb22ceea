"""Networks of several inputs: their risks, gradients, Hessians and flows.

    python benchmarks/general.py [PART ...]

Parts: sample, gaussian, flow; all by default. What was measured goes to
benchmarks/results/general.json, in milliseconds.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from parts import main, timed

import tts_jax as tts

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


if __name__ == "__main__":
    main("general", {"sample": sample, "gaussian": gaussian, "flow": flow})
