"""A fast outer layer can hurt: it forgets what it knows before the direction is found.

Source: A. Bietti, J. Bruna and L. Pillaud-Vivien, "On learning Gaussian multi-index models with
gradient flow", arXiv 2310.19793. The target is h_s(<w*, x>), x ~ N(0, I_d), with the normalised
Hermite polynomial h_s, s = 3 its information exponent; the network is a h_s(<w, x>) on the sphere
|w| = 1, and the risk

    L(a, w) = a^2 - 2 a m^s + 1, where m = <w, w*> starts at 1/sqrt(d), as of a random w.

A link that is known, a = 1, moves m by dm/dtau = 2 s m^(s-1) (1 - m^2): m escapes after d^(s/2-1),
here sqrt(d)/6. A link that is always fitted is as small as what it has to fit, a = m^s, and moves
m by 2 s m^(2s-1) (1 - m^2): d^(s-1), here d^2/24. (Of half this risk the times are twice as long.)
The flow stays in the plane of w(0) and w*: w has two numbers, along w* and across.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from .runner import Row, Run

S = 3
ESCAPED = 0.5
DIMENSIONS = tuple(np.round(10 ** np.linspace(1.5, 4, 11)))
FITTED = 1000.0
SHOWN = 100.0
EPSILONS = tuple(np.round(10 ** np.linspace(-2, 3, 16), 9))
CURVES = {1000.0: ("limit", (0, (5, 1.5))), 10.0: ("SGD", (0, (1, 1.2)))}
CURVES |= {1.0: ("flow", "-."), 0.01: ("reduced", "-")}
# The escape time to leading order, its power of d, and how it is drawn.
LINKS = {
    "known": (lambda d: d**0.5 / 6, S / 2 - 1, ("limit", "s", (0, (5, 1.5)))),
    "fitted": (lambda d: d**2 / 24, S - 1, ("reduced", "o", "-")),
}


class Link(tts.AbstractProblem):
    """The risk above, of the height a () of the link and of w (2,) in the plane, of any length."""

    known: bool = eqx.field(static=True)  # then the link is the target's, and a counts nothing

    def overlap(self, w: jax.Array) -> jax.Array:
        """Return m, the cosine between w and w*."""
        return w[0] / jnp.sqrt(jnp.sum(w**2))

    def risk(self, params: tts.Params) -> jax.Array:
        a = 1.0 if self.known else params.a
        return a**2 - 2 * a * self.overlap(params.u) ** S + 1.0

    def best_outer(self, u: jax.Array, *, ridge: float | jax.Array) -> jax.Array:
        return self.overlap(u) ** S / (1 + ridge)


def theory(link: str, dimension: float) -> float:
    """Return the escape time, the integral of 1/(dm/dtau) over z = log m."""
    power = S - 1 if link == "known" else 2 * S - 1
    z = np.linspace(np.log(dimension**-0.5), np.log(ESCAPED), 20001)
    m = np.exp(z)
    return float(np.trapezoid(1 / (2 * S * m ** (power - 1) * (1 - m**2)), z))


def follow(
    link: str, dynamics: tts.AbstractDynamics, dimension: float, longer: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return times, the overlaps m at them, and the escape time, of a run that starts at a = 1.

    It ends at `longer` times the escape time of theory.
    """
    problem = Link(known=link == "known")
    first = dimension**-0.5
    start = tts.Params(jnp.asarray(1.0), jnp.asarray([first, np.sqrt(1 - first**2)]))
    taus = np.append(0.0, longer * theory(link, dimension) * np.geomspace(1e-4, 1.0, 4000))
    run = tts.simulate(problem, dynamics, start, jnp.asarray(taus))
    m = np.asarray(jax.vmap(problem.overlap)(run.params.u))
    return taus, m, float(np.interp(ESCAPED, m, taus))


def data(run: Run) -> xr.Dataset:
    flows = {"known": tts.GradientFlow(1.0), "fitted": tts.ReducedFlow(ridge=1e-12)}
    cases = [(link, dimension) for link in LINKS for dimension in DIMENSIONS]
    found = run.map(lambda case: follow(case[0], flows[case[0]], case[1], 1.01), cases, "links")
    rates = run.map(
        lambda epsilon: follow("fitted", tts.GradientFlow(epsilon), SHOWN, 1.5),
        EPSILONS,
        "epsilons",
    )
    axes, shape = ("link", "dimension"), (len(LINKS), len(DIMENSIONS))
    return xr.Dataset(
        {
            "escape": (axes, np.reshape([time for *_, time in found], shape)),
            "theory": (axes, np.reshape([theory(*case) for case in cases], shape)),
            "escape_at_epsilon": ("epsilon", [time for *_, time in rates]),
            "m": (("epsilon", "tau"), [m for _, m, _ in rates]),
        },
        coords={
            "link": list(LINKS),
            "dimension": list(DIMENSIONS),
            "epsilon": list(EPSILONS),
            "tau": rates[0][0],
        },
    )


def _slope(data: xr.Dataset, link: str) -> float:
    far = data.escape.sel(link=link)[data.dimension >= FITTED]
    return float(np.polyfit(np.log(far.dimension), np.log(far), 1)[0])


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, (left, middle, right) = draw.figure(1, 3, size=(12, 3.9))
    for epsilon, (kind, dashes) in CURVES.items():
        style = {"color": draw.COLOURS[kind], "linestyle": dashes}
        left.plot(data.tau, data.m.sel(epsilon=epsilon), label=f"{epsilon:g}", **style)
    right.plot(data.epsilon, data.escape_at_epsilon, "^-", color=draw.COLOURS["flow"])
    for link, (leading, power, (kind, marker, dashes)) in LINKS.items():
        colour = draw.COLOURS[kind]
        label = f"link {link}, slope {_slope(data, link):.2f} ({power:g})"
        middle.plot(data.dimension, data.escape.sel(link=link), marker, color=colour, label=label)
        line = {"color": colour, "linestyle": dashes}
        middle.plot(data.dimension, leading(data.dimension), linewidth=1.2, **line)
        level = data.theory.sel(link=link, dimension=SHOWN)
        right.axhline(float(level), label=f"link {link}", **line)
    title = f"$d = {SHOWN:g}$, two rates, $a(0) = 1$"
    left.set(xscale="log", xlim=(3e-2, 1e3), ylim=(0, 1.05), title=title)
    left.set(xlabel=r"slow time $\tau = \varepsilon t$", ylabel=r"$m = \langle w, w^* \rangle$")
    middle.set(xscale="log", yscale="log", ylim=(0.3, 1e9), xlabel="dimension $d$")
    middle.set(ylabel=r"escape time $\tau$, to $m = 1/2$", title=r"lines: $\sqrt{d}/6$, $d^2/24$")
    right.set(xscale="log", yscale="log", xlabel=r"ratio of step sizes $\varepsilon$", title=title)
    right.set(ylabel=r"escape time $\tau$")
    place = {"loc": "center left", "bbox_to_anchor": (0.02, 0.7)}
    left.legend(title=r"$\varepsilon$", frameon=False, **place)
    middle.legend(loc="upper left", frameon=False)
    right.legend(loc="center right", frameon=False)
    return {"fast-link.png": figure}


def rows(data: xr.Dataset) -> list[Row]:
    found = []
    for link, (_, power, _) in LINKS.items():
        slope = _slope(data, link)
        error = float(abs(data.escape / data.theory - 1).sel(link=link).max())
        found += [
            Row(f"link {link}, slope of the escape time", slope, power - 0.05, power + 0.05),
            Row(f"link {link}, largest relative error of the escape time", error, 0.0, 2e-3),
        ]
    # A slow outer layer keeps what it knows, a fast one forgets it at once.
    for link, epsilon in (("known", 1000.0), ("fitted", 0.01)):
        time = data.escape_at_epsilon.sel(epsilon=epsilon)
        ratio = float(time / data.theory.sel(link=link, dimension=SHOWN))
        what = f"escape time at epsilon = {epsilon:g} over that of the link {link}"
        found.append(Row(what, ratio, 0.95, 1.05))
    return found
