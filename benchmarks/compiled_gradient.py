"""The exact gradient of the risk, written by hand for Numba: what SciPy's solvers get to integrate.

Twice. `by_cells` is what the definition of the risk leads to: sort the points where a piece ends,
and integrate the polynomials between them by Gauss-Legendre quadrature. `by_pairs` knows what this
package found out, that the integrals of pairs of neurons have a closed form: the sums of
`tts_jax.steps` in scalar loops, with what 0 and 1 cut off by quadrature.
"""

import numba
import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)
_compiled = numba.njit(fastmath=True, cache=True)


@_compiled
def _step(z):
    if z <= -0.5:
        return 0.0
    if z >= 0.5:
        return 1.0
    if z < 0:
        return 4 * (z + 0.5) ** 3
    return 1 - 4 * (0.5 - z) ** 3


@_compiled
def _primitive(z):
    if z <= -0.5:
        return 0.0
    if z >= 0.5:
        return z
    if z < 0:
        return (z + 0.5) ** 4
    return z + (0.5 - z) ** 4


@_compiled
def _beyond(p, q):
    """The integral over y < 0 of step(y - p) step(y - q), and its derivative by p."""
    start = max(p, q) - 0.5
    edges = np.array([start, min(max(p, start), 0.0), min(max(q, start), 0.0), 0.0])
    edges.sort()
    value, slope = 0.0, 0.0
    for k in range(3):
        half = 0.5 * (edges[k + 1] - edges[k])
        for n in range(4):
            y = edges[k] + half * (1 + _NODES[n])
            r = max(0.5 - abs(y - p), 0.0)
            value += half * _WEIGHTS[n] * _step(y - p) * _step(y - q)
            slope -= half * _WEIGHTS[n] * 12 * r * r * _step(y - q)
    return value, slope


@_compiled
def by_pairs(y, eta, jumps, values, out):
    """Into out (2m+1,), the derivatives by a (m+1,) and u (m,), for y = (a, u)."""
    m = (y.size - 1) // 2
    a, u = y[: m + 1], np.empty(m)
    for i in range(m):
        u[i] = min(max(y[m + 1 + i], -0.5 * eta), 1 + 0.5 * eta)
    mean = values[0]
    for k in range(jumps.size):
        mean += (values[k + 1] - values[k]) * (1 - jumps[k])
    out[0] = 2 * (a[0] - mean)
    for i in range(m):
        top = eta * _primitive((1 - u[i]) / eta)
        by_top = -_step((1 - u[i]) / eta)
        single = top - eta * _primitive(-u[i] / eta)
        by_single = by_top + _step(-u[i] / eta)
        by_a, by_u = (a[0] - values[0]) * single, (a[0] - values[0]) * by_single
        for k in range(jumps.size):
            w, z = values[k + 1] - values[k], (jumps[k] - u[i]) / eta
            by_a -= w * (top - eta * _primitive(z))
            by_u -= w * (by_top + _step(z))
        for j in range(m):
            d = u[i] - u[j]
            t = abs(d) / eta
            gram, slope = 1 - max(u[i], u[j]), -1.0 if d > 0 else 0.0
            if t < 1:
                p, q = 1 - t, max(0.5 - t, 0.0)
                p2, q2 = p * p, q * q
                gram -= eta * ((0.8 / 7) * p2 * p2 * p2 * p - 1.6 * q2 * q2 * q2)
                tail = 0.8 * p2 * p2 * p2 - 9.6 * q2 * q2 * q
                slope += tail if d > 0 else -tail
            if u[i] < 0.5 * eta and u[j] < 0.5 * eta:
                value, by_first = _beyond(u[i] / eta, u[j] / eta)
                gram, slope = gram - eta * value, slope - by_first
            if u[i] > 1 - 0.5 * eta or u[j] > 1 - 0.5 * eta:
                p, q = (1 - u[i]) / eta, (1 - u[j]) / eta
                gram += eta * (_primitive(-p) + _primitive(-q))
                slope += _step(-p)
                if p < 0.5 and q < 0.5:
                    value, by_first = _beyond(p, q)
                    gram, slope = gram - eta * value, slope + by_first
            by_a += a[j + 1] * gram
            by_u += a[j + 1] * slope
        out[0] += 2 * a[i + 1] * single
        out[1 + i] = 2 * by_a
        inside = u[i] == y[m + 1 + i]
        out[1 + m + i] = 2 * a[i + 1] * by_u if inside else 0.0


@_compiled
def by_cells(y, eta, jumps, values, out):
    """The same."""
    m = (y.size - 1) // 2
    a, u = y[: m + 1], y[m + 1 :]
    cuts = np.empty(3 * m + jumps.size + 2)
    for j in range(m):
        for k in range(3):
            cuts[3 * j + k] = min(max(u[j] + (0.5 * k - 0.5) * eta, 0.0), 1.0)
    cuts[3 * m : -2] = jumps
    cuts[-2], cuts[-1] = 0.0, 1.0
    cuts.sort()
    order = np.argsort(u)
    out[:] = 0.0
    # In the order of u, neurons before `first` have had their whole transition, and those from
    # `last` on none of it.
    first, last, piece, behind = 0, 0, 0, a[0]
    whole = np.zeros(m + 1)  # [k]: what cells give to each of the first k neurons
    for c in range(cuts.size - 1):
        half = 0.5 * (cuts[c + 1] - cuts[c])
        if half <= 0:
            continue
        middle = cuts[c] + half
        while piece < jumps.size and middle > jumps[piece]:
            piece += 1
        while last < m and middle > u[order[last]] - 0.5 * eta:
            last += 1
        while first < last and middle > u[order[first]] + 0.5 * eta:
            behind += a[1 + order[first]]
            first += 1
        if last == first:
            whole[first] += 4 * half * (behind - values[piece])
            continue
        for n in range(4):
            x, weight = middle + half * _NODES[n], 2 * half * _WEIGHTS[n]
            error = behind - values[piece]
            for i in range(first, last):
                error += a[1 + order[i]] * _step((x - u[order[i]]) / eta)
            for i in range(first, last):
                j = order[i]
                z = (x - u[j]) / eta
                r = max(0.5 - abs(z), 0.0)
                out[1 + j] += weight * error * _step(z)
                out[1 + m + j] -= weight * error * a[1 + j] * 12 * r * r / eta
            whole[first] += weight * error
    total = 0.0
    for k in range(m, 0, -1):
        total += whole[k]
        out[order[k - 1] + 1] += total
    out[0] = total + whole[0]


def velocity(gradient, epsilon, eta, jumps, values, width):
    """A function (t, y) -> dy/dtau for SciPy, by one of the two gradients."""
    out = np.empty(2 * width + 1)
    scale = -np.concatenate([np.full(width + 1, 1 / epsilon), np.ones(width)])

    def right(t, y):
        gradient(y, eta, jumps, values, out)
        return out * scale

    return right
