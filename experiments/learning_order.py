"""A fast outer layer learns a target one degree at a time: degree l at epsilon^(1/(2l)).

Source: R. Berthier, A. Montanari and K. Zhou, "Learning time-scales in two-layers neural
networks", arXiv 2303.00055. The network is f(x) = (1/m) sum_j a_j s(<w_j, x>) with |w_j| = 1, the
target phi(<w*, x>), and x ~ N(0, I_d); s and phi have the coefficients 1/2 on the normalised
Hermite polynomials of degree 0 to 3, and a starts at N(0, 1). In many dimensions, and then for many
neurons, only r_j = <w_j, w*> counts, which starts at 0, and <w_i, w_j> = r_i r_j. This is their
mean-field limit: the terms of a neuron with itself, of order 1/m, are left out. Then

    L = sum_l (phi_l - s_l mean_j a_j r_j^l)^2.

The sphere makes dr/dtau = -(1 - r^2) dL/dr, the plain flow of the angle u with r = sin u. Their
clock is that of half this risk, with rates m times as large: t = 2 tau/m.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from .runner import Row, Run

WIDTH = 40
EPSILONS = tuple(10.0**-k for k in range(6, 13))
SHOWN = 1e-9
FITTED = 1e-9
"""The largest epsilon of a fit: the time of degree 1 has the factor log(16/(epsilon variance^2)),
which takes 1/log(1/epsilon) off its slope, more than .05 where epsilon is larger."""
DEGREES = (0, 1, 2, 3)
STYLES = {0: ("target", "-"), 1: ("flow", "-"), 2: ("neuron", (0, (5, 1.5))), 3: ("reduced", "-.")}


class SingleIndex(tts.AbstractProblem):
    """The risk above, of weights a (m,) and angles u (m,) between neurons and index."""

    target: jax.Array  # the coefficients phi_l, l = 0, 1, ...
    activation: jax.Array  # the coefficients s_l

    def coefficients(self, params: tts.Params) -> jax.Array:
        """Return the coefficients of the network."""
        r = jnp.sin(params.u)
        means = [jnp.mean(params.a * r**degree) for degree in range(self.target.size)]
        return self.activation * jnp.stack(means)

    def risk(self, params: tts.Params) -> jax.Array:
        return jnp.sum((self.target - self.coefficients(params)) ** 2)


def data(run: Run) -> xr.Dataset:
    problem = SingleIndex(jnp.full(4, 0.5), jnp.full(4, 0.5))
    starts = range(3 if run.quick else 9)

    def learnt(case: tuple[float, int]) -> tuple[np.ndarray, np.ndarray, float]:
        """Return times, the learnt shares of all degrees (time, degree), and the spread of a(0)."""
        epsilon, start = case
        a = jax.random.normal(jax.random.key(start), (WIDTH,))
        times = np.append(0.0, np.geomspace(1e-2 * epsilon, 3.0, 1500))
        taus = jnp.asarray(times * WIDTH / 2)
        flow = tts.GradientFlow(epsilon, rtol=1e-6, atol=1e-9)
        found = tts.simulate(problem, flow, tts.Params(a, jnp.zeros(WIDTH)), taus)
        shares = jax.vmap(problem.coefficients)(found.params) / problem.target
        return times, np.asarray(shares), float(a.var())

    cases = [(epsilon, start) for epsilon in EPSILONS for start in starts]
    results = run.map(learnt, cases, "epsilons and starts")
    shape = (len(EPSILONS), len(starts))
    half = np.array([half_times(times, shares) for times, shares, _ in results])
    times, shares, _ = results[cases.index((SHOWN, 0))]
    return xr.Dataset(
        {
            "half_time": (("epsilon", "start", "degree"), half.reshape(*shape, len(DEGREES))),
            "variance": ("start", [spread for *_, spread in results[: len(starts)]]),
            "share": (("time", "degree"), shares),
        },
        coords={"epsilon": list(EPSILONS), "degree": list(DEGREES), "time": times},
    )


def half_times(times: np.ndarray, shares: np.ndarray) -> list[float]:
    """Return when each share (time, degree) first reaches 1/2."""
    found = []
    for share in shares.T:
        (above,) = np.nonzero(share >= 0.5)
        i = max(above[0], 1) if above.size else 0  # a random start may have learnt degree 0
        part = (0.5 - share[i - 1]) / (share[i] - share[i - 1])
        found.append(times[i - 1] + part * (times[i] - times[i - 1]) if i else np.nan)
    return found


def _slope(data: xr.Dataset, degree: int) -> tuple[float, float]:
    median = data.half_time.median("start").sel(degree=degree)
    small = median[median.epsilon <= FITTED * 1.001]
    slope, level = np.polyfit(np.log(small.epsilon), np.log(small), 1)
    return float(slope), float(level)


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, (left, right) = draw.figure(1, 2, size=(10, 4))
    for degree in DEGREES:
        kind, dashes = STYLES[degree]
        style = {"color": draw.COLOURS[kind], "linestyle": dashes}
        label = rf"degree {degree}"
        left.plot(data.time[1:], data.share.sel(degree=degree)[1:], label=label, **style)
        if degree == 0:
            continue
        half = data.half_time.sel(degree=degree)
        slope, level = _slope(data, degree)
        right.fill_between(
            data.epsilon, half.min("start"), half.max("start"), color=style["color"], alpha=0.2
        )
        label = rf"degree {degree}, slope {slope:.2f} ($1/{2 * degree}$)"
        right.plot(data.epsilon, half.median("start"), "o", color=style["color"], label=label)
        fitted = np.array([min(EPSILONS), max(EPSILONS)])
        right.plot(fitted, np.exp(level) * fitted**slope, linewidth=1.2, **style)
    left.set(
        xscale="log",
        xlim=(1e-11, 1.0),
        xlabel=r"time $t = 2\tau/m$",
        ylabel="learnt share of the coefficient",
        title=rf"$\varepsilon = 10^{{{np.log10(SHOWN):.0f}}}$, one start",
    )
    left.legend(loc="center", bbox_to_anchor=(0.47, 0.5), frameon=False)
    right.set(
        xscale="log",
        yscale="log",
        xlabel=r"ratio of step sizes $\varepsilon$",
        ylabel=r"half-learning time $t$",
        title=r"median and range of starts, fits for $\varepsilon \leq 10^{-9}$",
    )
    right.legend(loc="lower right", frameon=False)
    return {"learning-order.png": figure}


def rows(data: xr.Dataset) -> list[Row]:
    # Degree 1 grows from a(0): half of it takes sqrt(epsilon) log(16/(epsilon var(a)^2)). That
    # logarithm takes 1/log(1/epsilon) off the slope, which is below .05 from 1e-9 on.
    first = data.half_time.sel(degree=1)
    expected = np.sqrt(data.epsilon) * np.log(16 / (data.epsilon * data.variance**2))
    ratio = (first / expected).sel(epsilon=min(EPSILONS)).median()
    found = [Row("degree 1, half time over theory at epsilon 1e-12", float(ratio), 0.99, 1.01)]
    for degree in DEGREES[1:]:
        slope, theory = _slope(data, degree)[0], 1 / (2 * degree)
        what = f"degree {degree}, slope of the half time"
        found.append(Row(what, slope, theory - 0.05, theory + 0.05))
    return found
