"""SGD of the paper's setting by hand in CUDA C: a run in each thread, its numbers in registers.

What a strong user would write for this one network and target. It draws the same samples as the
package, and is compiled while it runs, by CuPy.
"""

import cupy
import numpy as np

SOURCE = """
#define WIDTH %(width)d
#define JUMPS %(jumps)d
typedef %(real)s real;

__device__ __forceinline__ unsigned turn(unsigned v, int by) {
  return (v << by) | (v >> (32 - by));
}

__device__ __forceinline__ void threefry(
    unsigned k0, unsigned k1, unsigned high, unsigned low, unsigned* out0, unsigned* out1) {
  const unsigned k[3] = {k0, k1, k0 ^ k1 ^ 0x1BD11BDAu};
  const int by[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  unsigned a = high + k[0], b = low + k[1];
  #pragma unroll
  for (int round = 0; round < 20; ++round) {
    a += b; b = a ^ turn(b, by[round %% 8]);
    if (round %% 4 == 3) {
      const int i = round / 4 + 1;
      a += k[i %% 3]; b += k[(i + 1) %% 3] + i;
    }
  }
  *out0 = a; *out1 = b;
}

extern "C" __global__ void __launch_bounds__(128) sgd(
    real* state, const unsigned* seed, int runs, unsigned first, int steps,
    real h, real eh, real eta, real noise, const real* jumps, const real* values) {
  const int run = blockIdx.x * blockDim.x + threadIdx.x;
  if (run >= runs) return;
  real a[WIDTH + 1], base[WIDTH], moved[WIDTH], v[JUMPS], f[JUMPS + 1];
  #pragma unroll
  for (int j = 0; j <= WIDTH; ++j) a[j] = state[j * runs + run];
  #pragma unroll
  for (int j = 0; j < WIDTH; ++j) { base[j] = state[(WIDTH + 1 + j) * runs + run]; moved[j] = 0; }
  #pragma unroll
  for (int k = 0; k < JUMPS; ++k) v[k] = jumps[k];
  #pragma unroll
  for (int k = 0; k <= JUMPS; ++k) f[k] = values[k];
  const unsigned s0 = seed[run], s1 = seed[runs + run];
  const real sharp = 1 / eta;
  for (int step = 0; step < steps; ++step) {
    unsigned high, low;
    threefry(s0, s1, 0u, first + step, &high, &low);
    const real x = %(fraction)s;
    real y = f[0];
    #pragma unroll
    for (int k = 0; k < JUMPS; ++k) y = x >= v[k] ? f[k + 1] : y;
    y += noise * ((real)(int)(low & 0xFFFFFFu) * (real)%(unit)s + ((real)%(unit)s / 2 - 1));
    real sigma[WIDTH], slope[WIDTH], even = 0, odd = 0;
    #pragma unroll
    for (int j = 0; j < WIDTH; ++j) {
      const real z = (x - (base[j] + moved[j])) * sharp;
      const real c = fmin(fmax(z, (real)-0.5), (real)0.5), b = fabs(c), d = (real)0.5 - b;
      sigma[j] = (real)0.5 + c * (3 + b * (4 * b - 6));
      slope[j] = 12 * d * d;
      if (j %% 2) odd += a[j + 1] * sigma[j]; else even += a[j + 1] * sigma[j];
    }
    const real r = 2 * (a[0] + even + odd - y), by_a = h * r, by_u = eh * r * sharp;
    a[0] -= by_a;
    #pragma unroll
    for (int j = 0; j < WIDTH; ++j) {
      moved[j] += by_u * a[j + 1] * slope[j];
      a[j + 1] -= by_a * sigma[j];
    }
  }
  #pragma unroll
  for (int j = 0; j <= WIDTH; ++j) state[j * runs + run] = a[j];
  #pragma unroll
  for (int j = 0; j < WIDTH; ++j) state[(WIDTH + 1 + j) * runs + run] = base[j] + moved[j];
}
"""
FRACTION = {
    "float": "(real)(int)(high >> 8) * 5.9604644775390625e-8f",
    "double": "((real)high * 256.0 + (real)(low >> 24)) * 9.094947017729282379150390625e-13",
}


class HandWritten:
    """`run(state, seed, steps)`: so many steps from state (2m+1, R), in place, seeds (2, R)."""

    def __init__(self, problem, width, dtype):
        self.dtype = np.dtype(dtype)
        self.jumps = cupy.asarray(np.asarray(problem.target.jumps), self.dtype)
        self.values = cupy.asarray(np.asarray(problem.target.values), self.dtype)
        self.eta = self.dtype.type(problem.network.activation.eta)
        real = "float" if self.dtype == np.float32 else "double"
        unit = "1.1920928955078125e-7"
        words = {"width": width, "jumps": self.jumps.size, "real": real, "unit": unit}
        source = SOURCE % (words | {"fraction": FRACTION[real]})
        self.kernel = cupy.RawKernel(source, "sgd", options=("-std=c++17",))

    def run(self, state, seed, steps, step_size, epsilon, noise):
        runs, real = state.shape[1], self.dtype.type
        numbers = (real(step_size), real(step_size * epsilon), self.eta, real(noise))
        given = (state, seed, np.int32(runs), np.uint32(0), np.int32(steps), *numbers)
        self.kernel((-(-runs // 128),), (128,), (*given, self.jumps, self.values))
        cupy.cuda.Device().synchronize()
