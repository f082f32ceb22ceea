"""SGD as strong users write it today: a NumPy loop, and two compiled loops for one and many runs.

The cubic step, a bias, a piecewise constant target; noise uniform on [-s, s]. Arrays: `a` (m+1,),
`u` (m,), and for runs side by side (m+1, R) and (m, R). All update in place.
"""

import numba
import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)


def numpy_loop(a, u, eta, jumps, values, h, h_slow, noise, steps, seed):
    """One sample after the other, vectorised over the neurons only."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        x = rng.uniform()
        y = values[np.searchsorted(jumps, x, side="right")] + rng.uniform(-noise, noise)
        z = np.clip((x - u) / eta, -0.5, 0.5)
        b = np.abs(z)
        sigma = 0.5 + z * (3 + b * (4 * b - 6))
        r = a[0] + a[1:] @ sigma - y
        slope = 12 * (0.5 - b) ** 2
        by_u = -2 * r * a[1:] * slope / eta
        a[0] -= h * 2 * r
        a[1:] -= h * 2 * r * sigma
        u -= h_slow * by_u


@numba.njit(inline="always")
def _mixed(state):
    """The output function of SplitMix64: 64 bits from a counter."""
    word = state
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@numba.njit(fastmath=True)
def scalar_loop(a, u, eta, jumps, values, h, h_slow, noise, steps, seed):
    """One run, one sample after the other."""
    m = u.size
    inverse = 1.0 / eta
    state = np.uint64(seed)
    sigma, slope = np.empty(m), np.empty(m)
    for _ in range(steps):
        state += _STEP
        word = _mixed(state)
        x = np.float64(word >> np.uint64(24)) * 2.0**-40
        extra = np.float64(word & np.uint64(0xFFFFFF)) * 2.0**-23 - 1.0
        y = values[0] + noise * extra
        for k in range(jumps.size):
            if x >= jumps[k]:
                y += values[k + 1] - values[k]
        r = a[0] - y
        for j in range(m):
            z = min(max((x - u[j]) * inverse, -0.5), 0.5)
            b = abs(z)
            sigma[j] = 0.5 + z * (3.0 + b * (4.0 * b - 6.0))
            slope[j] = (0.5 - b) * (0.5 - b)
            r += a[j + 1] * sigma[j]
        fast, slow = 2.0 * h * r, 24.0 * h_slow * inverse * r
        a[0] -= fast
        for j in range(m):
            u[j] += slow * a[j + 1] * slope[j]
            a[j + 1] -= fast * sigma[j]


def vector_loop(dtype, lanes):
    """A compiled loop over runs side by side, `lanes` of them in the vector registers at a time."""
    real = numba.float32 if dtype == np.float32 else numba.float64
    half, three, four, six = (real(v) for v in (0.5, 3.0, 4.0, 6.0))
    unit, to_unit, to_noise, one = real(1.0), real(2.0**-24), real(2.0**-23), real(1.0)
    two, slopes = real(2.0), real(24.0)

    @numba.njit(fastmath=True, error_model="numpy")
    def loop(a, u, eta, jumps, values, h, h_slow, noise, steps, seed):
        m, runs = u.shape
        inverse = unit / real(eta)
        h, h_slow, noise = real(h), real(h_slow), real(noise)
        for first in range(0, runs, lanes):
            A, U = np.empty((m + 1, lanes), a.dtype), np.empty((m, lanes), a.dtype)
            A[:], U[:] = a[:, first : first + lanes], u[:, first : first + lanes]
            state = np.empty(lanes, np.uint32)
            for k in range(lanes):
                state[k] = np.uint32(seed + 7919 * (first + k) + 1)
            x, r = np.empty(lanes, a.dtype), np.empty(lanes, a.dtype)
            for _ in range(steps):
                for k in range(lanes):
                    s = state[k]
                    s ^= s << np.uint32(13)
                    s ^= s >> np.uint32(17)
                    s ^= s << np.uint32(5)
                    x[k] = real(np.int32(s >> np.uint32(8))) * to_unit
                    s ^= s << np.uint32(13)
                    s ^= s >> np.uint32(17)
                    s ^= s << np.uint32(5)
                    state[k] = s
                    extra = real(np.int32(s >> np.uint32(8))) * to_noise - one
                    y = values[0] + noise * extra
                    for i in range(jumps.size):
                        y += values[i + 1] - values[i] if x[k] >= jumps[i] else real(0.0)
                    r[k] = A[0, k] - y
                for j in range(m):
                    for k in range(lanes):
                        z = min(max((x[k] - U[j, k]) * inverse, -half), half)
                        b = abs(z)
                        r[k] += A[j + 1, k] * (half + z * (three + b * (four * b - six)))
                for k in range(lanes):
                    A[0, k] -= two * h * r[k]
                for j in range(m):
                    for k in range(lanes):
                        z = min(max((x[k] - U[j, k]) * inverse, -half), half)
                        b = abs(z)
                        sigma = half + z * (three + b * (four * b - six))
                        slope = (half - b) * (half - b)
                        U[j, k] += slopes * h_slow * inverse * r[k] * A[j + 1, k] * slope
                        A[j + 1, k] -= two * h * r[k] * sigma
            a[:, first : first + lanes], u[:, first : first + lanes] = A, U

    return loop
