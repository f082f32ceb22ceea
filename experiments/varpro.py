"""Neurons whose outer layer is always fitted spread like an ultra-fast diffusion.

Source: R. Barboni, G. Peyré and F.-X. Vialard, "Ultra-fast feature learning for the training of
two-layer neural networks in the two-timescale regime" (variable projection), arXiv 2504.18208. The
target is the mean of units over a density f* on the circle, and the network the mean of M units
with outer weights a_j and a ridge. The risk and the slow time are here, in terms of theirs,

    L = E (f - y)^2 + (ridge/M) |a|^2,    tau = M t/(2 ridge),

and as ridge goes to 0 and M to infinity, a is f*/f and the density f of the neurons follows

    df/dt = -1/2 d/du (f d/du (f*/f)^2).

Inputs are N(0, I_2), of which only directions matter, here evenly spaced. A unit |<w, x>| at the
angle u/2 is a pair of ReLU units, w and -w. A ReLU unit alone, at the angle u, does not see the odd
harmonics of a density from degree 3 on: there the limit is another one, which stays near.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import tts_jax as tts
from tts_jax import plot as draw

from .runner import Row, Run

PEAKS = 10.0
INPUTS = 512
CELLS = 128
CIRCLE = 2 * np.pi
EDGES = np.arange(1, CELLS + 1) / CELLS * CIRCLE
CENTRES = EDGES - CIRCLE / CELLS / 2
TIMES = np.linspace(0.0, 6.0, 61)
SHOWN = (0.0, 1.0, 4.0)
WIDTH = 64
RIDGES = (1e-1, 1e-2, 1e-3, 1e-4)
TWO_RATES = (0.1, 0.01)  # at `TWO_RATES_RIDGE`
TWO_RATES_RIDGE = 1e-2


def teacher(u: np.ndarray) -> np.ndarray:
    """Return f* up to a factor."""
    first, second = np.sin(u / 2) ** 2, np.sin((u - 0.4 * np.pi) / 2) ** 2
    return 1 / (1 + PEAKS * first) + 0.5 / (1 + PEAKS * second)


DENSITY = teacher(CENTRES) / np.mean(teacher(CENTRES)) / CIRCLE


class Units(tts.SeparableProblem):
    """A mean of units at angles u (M,), pairs of ReLU or ReLU."""

    pairs: bool = eqx.field(static=True, kw_only=True)

    def features(self, u: jax.Array, x: jax.Array) -> jax.Array:
        angles = u / 2 if self.pairs else u
        z = x @ jnp.stack([jnp.cos(angles), jnp.sin(angles)])
        return (jnp.abs(z) if self.pairs else jax.nn.relu(z)) / u.size


def problem(pairs: bool, width: int, ridge: float) -> Units:
    angles = (jnp.arange(INPUTS) + 0.5) / INPUTS * CIRCLE
    x = 2**0.5 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
    many = np.arange(2048) / 2048 * CIRCLE
    weights = jnp.asarray(teacher(many) / np.mean(teacher(many)))
    y = Units(x, jnp.zeros(INPUTS), pairs=pairs).features(jnp.asarray(many), x) @ weights
    return Units(x, y, penalty=ridge / width, pairs=pairs)


def follow(pairs: bool, width: int, ridge: float, epsilon: float = 0.0) -> np.ndarray:
    """Return the angles (time, neuron), of the reduced flow if epsilon is 0."""
    solved = problem(pairs, width, ridge)
    u = (jnp.arange(width) + 0.5) / width * CIRCLE
    tolerances: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-6}
    flow: tts.AbstractDynamics = tts.ReducedFlow(ridge=1e-12, solver=diffrax.Tsit5(), **tolerances)
    if epsilon:
        flow = tts.GradientFlow(epsilon, **tolerances)
    taus = jnp.asarray(TIMES * width / (2 * ridge))
    found = tts.simulate(solved, flow, tts.Params(solved.best_outer(u), u), taus)
    return np.asarray(found.params.u)


def diffusion() -> np.ndarray:
    """Return the density (time, cell) of the limit, from the uniform one, by finite volumes."""
    star, h = jnp.asarray(DENSITY), CIRCLE / CELLS

    def velocity(t, f, args):
        del t, args
        flux = (f + jnp.roll(f, -1)) / 4 * jnp.diff((star / f) ** 2, append=(star / f)[:1] ** 2) / h
        return -(flux - jnp.roll(flux, 1)) / h

    found = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5(),
        0.0,
        TIMES[-1],
        1e-6,
        jnp.full(CELLS, 1 / CIRCLE),
        saveat=diffrax.SaveAt(ts=jnp.asarray(TIMES)),
        stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-8),
        max_steps=100_000,
    )
    assert found.ys is not None
    return np.asarray(found.ys)


def cumulative(angles: np.ndarray) -> np.ndarray:
    """Return shares of neurons (time, cell) up to the end of a cell, linear between neurons."""
    shares = []
    for row in np.sort(np.mod(angles, CIRCLE), axis=-1):
        around = np.concatenate([[row[-1] - CIRCLE], row, [row[0] + CIRCLE]])
        shares.append(np.interp(EDGES, around, (np.arange(-1, row.size + 1) + 0.5) / row.size))
    return np.stack(shares)


def distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the root mean square distance of shares (..., cell), wherever they start."""
    return np.std(one - other, axis=-1)


def data(run: Run) -> xr.Dataset:
    densities = diffusion()
    star, limit = (np.cumsum(f, axis=-1) * CIRCLE / CELLS for f in (DENSITY, densities))
    widths = (32,) if run.quick else (16, 32, WIDTH)
    cases = [(True, width, ridge) for width in widths for ridge in RIDGES]
    cases += [(False, widths[-1], ridge) for ridge in RIDGES]
    # One after the other: each run keeps all cores busy with products of matrices.
    angles = [follow(*case) for case in cases]
    two = [(True, 32, TWO_RATES_RIDGE, epsilon) for epsilon in TWO_RATES]
    two_angles = [follow(*case) for case in two]
    reduced = cumulative(angles[cases.index((True, 32, TWO_RATES_RIDGE))])
    two_shares = [cumulative(found) for found in two_angles]
    shares = np.stack([cumulative(found) for found in angles])
    gaps = distance(shares, limit).max(axis=-1)
    count = len(RIDGES)
    return xr.Dataset(
        {
            "density": (("t", "u"), densities),
            "f_star": ("u", DENSITY),
            "angles": (("t", "neuron"), angles[len(cases) - count - 1]),
            "to_teacher": (("ridge", "t"), distance(shares, star)[-2 * count : -count]),
            "limit_to_teacher": ("t", distance(limit, star)),
            "gap": (("width", "ridge"), gaps[:-count].reshape(len(widths), count)),
            "gap_relu": ("ridge", gaps[-count:]),
            "two_rates": (("epsilon", "t"), [distance(found, star) for found in two_shares]),
            "lag": ("epsilon", [distance(found, reduced).max() for found in two_shares]),
        },
        coords={
            "t": TIMES,
            "u": CENTRES,
            "width": list(widths),
            "ridge": list(RIDGES),
            "epsilon": list(TWO_RATES),
        },
    )


def _rates(data: xr.Dataset) -> tuple[float, float]:
    """Return the rate at which the limit nears the teacher, measured and by theory.

    Near f* the limit is dh/dt = d/du (f* d/du (h/f*)): the rate is its spectral gap.
    """
    late = data.limit_to_teacher.sel(t=slice(4.0, None))
    measured = -np.polyfit(late.t, np.log(late), 1)[0]
    h, face = CIRCLE / CELLS, (DENSITY + np.roll(DENSITY, -1)) / 2
    step = (np.roll(np.eye(CELLS), -1, axis=0) - np.eye(CELLS)) / h
    matrix = step.T @ (face[:, None] * step) / np.sqrt(np.outer(DENSITY, DENSITY))
    return float(measured), float(np.linalg.eigvalsh(matrix)[1])


def plot(data: xr.Dataset) -> dict[str, Any]:
    figure, (left, middle, right) = draw.figure(1, 3, size=(12, 4))
    kinds = ("neuron", "SGD", "area", "reduced")
    dashes = ((0, (1, 1.2)), "-.", (0, (6, 2)), "-")
    left.plot(data.t, data.limit_to_teacher, color=draw.COLOURS["target"], label="diffusion")
    for ridge, kind, dash in zip(data.ridge.values, kinds, dashes, strict=True):
        style = {"color": draw.COLOURS[kind], "linestyle": dash}
        left.plot(data.t, data.to_teacher.sel(ridge=ridge), label=f"ridge {ridge:g}", **style)
    for epsilon, marker in zip(data.epsilon.values, "xo", strict=True):
        style = {"color": draw.COLOURS["flow"], "markersize": 4, "fillstyle": "none"}
        some = data.two_rates.sel(epsilon=epsilon)[3::6]
        label = rf"$\varepsilon = {epsilon:g}$, ridge {TWO_RATES_RIDGE:g}"
        left.plot(some.t, some, marker, label=label, **style)
    for time, kind, dash in zip(SHOWN, ("limit", "area", "reduced"), dashes[::-1], strict=False):
        style = {"color": draw.COLOURS[kind], "linestyle": dash}
        middle.plot(data.u, data.density.sel(t=time, method="nearest"), **style)
        u = np.sort(np.mod(data.angles.sel(t=time, method="nearest").values, CIRCLE))
        between = {"color": draw.COLOURS[kind], "markersize": 4, "label": f"$t = {time:g}$"}
        middle.plot((u[1:] + u[:-1]) / 2, 1 / np.diff(u) / u.size, "o", **between)
    middle.plot(data.u, data.f_star, ":", color=draw.COLOURS["target"], label="teacher $f^*$")
    for width, kind, marker in zip(data.width.values[::-1], kinds[::-1], "os^", strict=False):
        label = f"pairs of ReLU, $M = {width}$"
        right.plot(
            data.ridge,
            data.gap.sel(width=width),
            f"{marker}-",
            color=draw.COLOURS[kind],
            label=label,
        )
    label = f"ReLU, $M = {data.width.values[-1]}$"
    right.plot(data.ridge, data.gap_relu, "x--", color=draw.COLOURS["limit"], label=label)
    left.set(yscale="log", ylim=(3e-4, 1.0), xlabel=r"time $t = 2\,\mathrm{ridge}\,\tau/M$")
    left.set(
        ylabel="distance to the teacher", title=f"$M = {data.sizes['neuron']}$ pairs, two rates 32"
    )
    middle.set(xlabel="angle $u$", ylabel="density", ylim=(0, None))
    middle.set(title=f"diffusion, and neurons at ridge {min(RIDGES):g}")
    right.set(xscale="log", yscale="log", ylim=(3e-4, 0.3), xlabel="ridge")
    right.set(ylabel="distance to the diffusion, sup over $t$", title="the limit of small ridges")
    left.legend(ncols=2, loc="upper right", frameon=False, fontsize=8.5)
    middle.legend(frameon=False)
    right.legend(loc="upper left", frameon=False)
    return {"varpro.png": figure}


def rows(data: xr.Dataset) -> list[Row]:
    measured, theory = _rates(data)
    gap = data.gap.isel(width=-1)
    resolution = 1 / (12**0.5 * float(data.width[-1]))  # of M neurons, in cumulative shares
    falls = float((gap.values[1:3] / gap.values[:2]).max())
    relu = float(data.gap_relu[-1] / gap[-1])
    lag = data.lag.values
    return [
        Row("diffusion, rate over the spectral gap at f*", measured / theory, 0.95, 1.05),
        Row("distance to the diffusion, at ridge 1e-4", float(gap[-1]), 0.0, resolution),
        Row("distance to the diffusion, ten times smaller ridge", falls, 0.0, 1.0),
        Row("that distance at ridge 1e-4, ReLU over pairs of ReLU", relu, 2.0, np.inf),
        Row("lag of two rates, order in epsilon", float(np.log10(lag[0] / lag[1])), 0.8, 1.2),
    ]
