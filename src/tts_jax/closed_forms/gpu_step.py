"""Steps of the Rosenbrock method for many runs in one kernel: each thread has a run.

XLA would go through some hundred kernels for a step, most with the matrices of all runs from memory
and back, and do for all runs what few of them need. Here a thread computes its matrix column by
column and factorises it as it goes; what does not fit registers is in memory of its own.

The matrix is that of `PairwiseGradientSystem.linearise`, for the bias, the weights and the positions in this
order. It is symmetric and needs no pivots (see `solvers.inverse`): it is L D L^T. Of that the
columns of L D are kept, and 1/D.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._types import Array, Tree
from ..batching.gpu_kernel import BLOCK_RUNS, KernelInput, KernelOperand, KernelOutput, launch
from ..batching.scalar_program import ScalarArray, ScalarProgram, ScalarValue, scalar_array
from ..batching.summation import pairwise_sum
from ..integrators.rosenbrock import TABLEAU_A, TABLEAU_C, TABLEAU_M, SolverStep
from . import gpu_matrix as columns
from .pairwise import PairwiseState

_COUNT = len(TABLEAU_M)

_ASIDE = (
    *("place", "rest", "weight", "products", "by_first", "twice"),
    *("moving", "lift", "single", "by_a", "by_a_u", "by_u"),
)
"""Numbers of every neuron that are kept aside, to be found by the number of the neuron."""


def steps_on_gpu(system: Any, own: Any, y: PairwiseState, h: Array) -> SolverStep:
    """`rosenbrock_step` of R runs of a `PairwiseGradientSystem`.

    The runs are on the last axis of `y`, of `h` (R,), and of what is `own` of the system, a tree of
    truth values.
    """
    width, runs = y.u.shape
    size = 2 * width + 1
    arrays, static = eqx.partition(system, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    leaves = [leaf.astype(jnp.float64) for leaf in leaves]
    numbers = [KernelOperand(*both) for both in zip(leaves, jax.tree.leaves(own), strict=True)]
    state = jnp.concatenate([y.bias[None], y.a, y.u])
    tables = jnp.concatenate([jnp.ravel(jnp.asarray(t)) for t in (TABLEAU_A, TABLEAU_C, TABLEAU_M)])
    own_numbers = jnp.stack([h, jnp.zeros_like(h)])
    operands = [
        KernelOperand(state, True),
        KernelOperand(own_numbers, True),
        KernelOperand(tables, False),
        *numbers,
    ]

    def body(block: Array, held: list[KernelInput], outputs: list[KernelOutput]) -> None:
        del block
        known = [number.read() for number in held[3:]]

        def traced(function: Callable, *given: ScalarArray) -> list[ScalarArray]:
            """A function of the system and arrays of one run, of entries."""
            arrays = [jax.ShapeDtypeStruct(v.shape, np.float64) for v in (*known, *given)]

            def whole(*arrays: Array) -> Tree:
                mine = jax.tree.unflatten(structure, arrays[: len(known)])
                return function(eqx.combine(mine, static), *arrays[len(known) :])

            return ScalarProgram(jax.make_jaxpr(whole)(*arrays), (BLOCK_RUNS,))(*known, *given)

        _Thread(width, traced, held[0], held[1], held[2], outputs).step()

    rows = (size, _COUNT * size, size * size, size, len(_ASIDE) * width)
    after, stages, *_ = launch(body, operands, [(n, np.dtype(np.float64)) for n in rows], runs)
    return SolverStep(_layers(after, width), _layers(stages.reshape(_COUNT, size, runs), width))


def _layers(rows: Array, width: int) -> PairwiseState:
    """PairwiseState of rows (..., 2m+1, R), with the runs on the last axis."""
    return PairwiseState(rows[..., 0, :], rows[..., 1 : width + 1, :], rows[..., width + 1 :, :])


class _Thread:
    """A run in the kernel, a vector of them to be precise: see `launch`.

    `traced` calls a function of the system and arrays with entries; of the `KernelOutput`, `columns` holds
    column k of L D at k (2m+1) and after, `inverse` 1/D, and `aside` what `_ASIDE` names.
    """

    def __init__(
        self,
        width: int,
        traced: Callable,
        state: KernelInput,
        numbers: KernelInput,
        tables: KernelInput,
        outputs: list[KernelOutput],
    ):
        self.width, self.size, self.traced = width, 2 * width + 1, traced
        self.start = [state.at(k) for k in range(self.size)]
        self.h, self.zero, self.tables = numbers.at(0), numbers.at(1), tables
        self.after, self.stages, self.columns, self.inverse, self.aside = outputs

    def step(self) -> None:
        self._factorise()

        def stage(i: Array, carry: Array) -> Array:
            at = self._combined(self.start, i, lambda j: i * _COUNT + j)
            vector_field = self._vector_field(at)
            pull = self._combined([self.zero] * self.size, i, lambda j: (_COUNT + i) * _COUNT + j)
            pull = self._call(lambda s, *y: s.apply_mass(PairwiseState(*y)), *self._parts(pull))
            right = [f + g / self.h for f, g in zip(vector_field, pull, strict=True)]
            for k, value in enumerate(self._solved(right)):
                self.stages[i * self.size + k] = value
            return carry

        _times(_COUNT, stage)
        after = self._combined(self.start, _COUNT, lambda j: 2 * _COUNT**2 + j)
        for k, value in enumerate(after):
            self.after[k] = value

    def _combined(self, start: list[Array], count: Any, entry: Callable) -> list[Array]:
        """`start` plus the first stages, each times an entry of the tables."""

        def add(j: Array, total: list[Array]) -> list[Array]:
            by = self.tables.at(entry(j))
            return [v + by * self.stages[j * self.size + k] for k, v in enumerate(total)]

        return jax.lax.fori_loop(0, count, add, start)

    def _vector_field(self, at: list[Array]) -> list[Array]:
        bias, a, u = self._parts(at)
        self._keep_places(a, u)
        sums = self._over_others(columns.overlap_and_slope)
        self._over_cut(columns.cut_vector_field, ("products", "by_first"))
        return self._call(
            columns.vector_field_by_sums,
            bias,
            a,
            u,
            *sums,
            self._all("products"),
            self._all("by_first"),
        )

    def _factorise(self) -> None:
        bias, a, u = self._parts(self.start)
        self._keep_places(a, u)
        sums = self._over_others(columns.slope_and_twice)
        self._over_cut(columns.cut_bends, ("by_first", "twice"))
        h = scalar_array([ScalarValue(self.h)], ())
        edge, *kept = self.traced(
            columns.edges, h, bias, a, u, *sums, self._all("by_first"), self._all("twice")
        )
        for name, values in zip(columns.EDGES, kept, strict=True):
            for k, number in enumerate(values):
                self._put(name, k, self._spread(number))
        self._begin_column(0, 0, edge)
        self.inverse[0] = 1.0 / self.columns[0]
        _times(self.width, self._weight_column)
        _times(self.width, self._position_column)

    def _weight_column(self, c: Array, carry: Array) -> Array:
        """That of the weight of neuron c, from the first weight on."""
        column = 1 + c
        rows = self.traced(
            columns.column_of_weight,
            *(self._all(name) for name in ("place", "moving", "lift", "single")),
            *(self._one(name, c) for name in ("place", "rest", "single")),
        )
        self._begin_column(column, 1, np.concatenate(rows))
        self._add(self.columns, column * self.size + 1 + c, self._get("by_a", c))
        self._add(self.columns, column * self.size + 1 + self.width + c, self._get("by_a_u", c))

        def cut(side: Array, r: Array, near: Array) -> None:
            given = [*self._pair(side, r, c), self._one("moving", r), _sign(side)]
            for k, value in enumerate(self._call(columns.cut_weight, *given)):
                row = column * self.size + 1 + k * self.width + r
                self._add(self.columns, row, jnp.where(near, value, 0.0))

        self._cut_with(c, cut)
        self._end_column(column, 1)
        return carry

    def _position_column(self, c: Array, carry: Array) -> Array:
        """That of the position of neuron c, from the first position on."""
        first = 1 + self.width
        column = first + c
        (rows,) = self.traced(
            columns.column_of_position,
            *(self._all("place"), self._all("moving")),
            *(self._one("place", c), self._one("moving", c)),
        )
        self._begin_column(column, first, rows)
        self._add(self.columns, column * self.size + column, self._get("by_u", c))

        def cut(side: Array, r: Array, near: Array) -> None:
            moving = (self._one("moving", r), self._one("moving", c))
            (value,) = self._call(columns.cut_position, *self._pair(side, r, c), *moving)
            row = column * self.size + first + r
            self._add(self.columns, row, jnp.where(near, value, 0.0))

        self._cut_with(c, cut)
        self._end_column(column, first)
        return carry

    def _begin_column(self, column: Any, first: int, rows: ScalarArray) -> None:
        """Store the rows from `first` on, less what the columns before it take."""

        def less(k: Array, rows: list[Array]) -> list[Array]:
            by = self.columns[k * self.size + column] * self.inverse[k]
            return [v - by * self.columns[k * self.size + first + i] for i, v in enumerate(rows)]

        left = [self._spread(number) for number in rows]
        left = jax.lax.fori_loop(0, column, less, left)
        for i, value in enumerate(left):
            self.columns[column * self.size + first + i] = value

    def _end_column(self, column: Any, first: int) -> None:
        """Keep the inverse of the diagonal, and zeros in its place and above, from `first` on."""
        start = column * self.size
        self.inverse[column] = 1.0 / self.columns[start + column]
        for i in range(self.width):
            value = self.columns[start + first + i]
            self.columns[start + first + i] = jnp.where(first + i <= column, self.zero, value)

    def _solved(self, right: list[Array]) -> list[Array]:
        """The matrix^-1 of it. Written out for the rows, but not for the columns."""
        one, width = 1 + self.width, self.width
        bias, rest = right[0], self._less(0, 1, right[0], right[1:])

        def weight_down(c: Array, rest: list[Array]) -> list[Array]:
            return self._less(1 + c, 1, _pick(rest[:width], c), rest)

        rest = jax.lax.fori_loop(0, width, weight_down, rest)
        weights, places = rest[:width], rest[width:]

        def place_down(c: Array, places: list[Array]) -> list[Array]:
            return self._less(one + c, one, _pick(places, c), places)

        places = jax.lax.fori_loop(0, width, place_down, places)

        def place_up(turn: Array, places: list[Array]) -> list[Array]:
            c = width - 1 - turn
            return _put(places, c, self._row(one + c, one, _pick(places, c), places))

        places = jax.lax.fori_loop(0, width, place_up, places)

        def weight_up(turn: Array, weights: list[Array]) -> list[Array]:
            c = width - 1 - turn
            row = self._row(1 + c, 1, _pick(weights, c), [*weights, *places])
            return _put(weights, c, row)

        weights = jax.lax.fori_loop(0, width, weight_up, weights)
        return [self._row(0, 1, bias, [*weights, *places]), *weights, *places]

    def _less(self, column: Any, first: int, by: Array, rows: list[Array]) -> list[Array]:
        by, start = by * self.inverse[column], column * self.size + first
        return [v - self.columns[start + i] * by for i, v in enumerate(rows)]

    def _row(self, column: Any, first: int, value: Array, rows: list[Array]) -> Array:
        start = column * self.size + first
        total = pairwise_sum([self.columns[start + i] * v for i, v in enumerate(rows)])
        return (value - total) * self.inverse[column]

    def _keep_places(self, a: ScalarArray, u: ScalarArray) -> None:
        """Put aside where the neurons are, from 0 and from 1, in units of eta."""
        kept = (*self.traced(columns.places, u), a)
        for name, values in zip(("place", "rest", "weight"), kept, strict=True):
            for k, number in enumerate(values):
                self._put(name, k, self._spread(number))

    def _over_others(self, function: Callable) -> list[ScalarArray]:
        """Sums over the neurons j of a_j times what a function of x_i - x_j returns."""
        places = self._all("place")
        nothing = [[self.zero] * self.width] * 2

        def add(j: Array, sums: list[list[Array]]) -> list[list[Array]]:
            found = self.traced(function, places, self._one("place", j), self._one("weight", j))
            return [
                [total + self._spread(more) for total, more in zip(*both, strict=True)]
                for both in zip(sums, found, strict=True)
            ]

        sums = jax.lax.fori_loop(0, self.width, add, nothing)
        return [scalar_array([ScalarValue(v) for v in total], (self.width,)) for total in sums]

    def _over_cut(self, function: Callable, names: tuple[str, str]) -> None:
        """Put aside such sums over pairs of neurons that the same end cuts."""
        for name in names:
            for k in range(self.width):
                self._put(name, k, self.zero)

        def one(c: Array, carry: Array) -> Array:
            def cut(side: Array, r: Array, near: Array) -> None:
                given = [*self._pair(side, r, c), self._one("weight", c), _sign(side)]
                for name, value in zip(names, self._call(function, *given), strict=True):
                    row = _ASIDE.index(name) * self.width + r
                    self._add(self.aside, row, jnp.where(near, value, 0.0))

            self._cut_with(c, cut)
            return carry

        _times(self.width, one)

    def _cut_with(self, c: Array, function: Callable[[Array, Array, Array], None]) -> None:
        """`function(side, r, near)` for the neurons r that the end cuts which cuts c, if one does.

        `side`: 0 or 1; `near`: in which runs it does so.
        """

        def end(side: Array, carry: Array) -> Array:
            near_c = self._from_end(side, c) < 0.5

            def row(r: Array, carry: Array) -> Array:
                near = near_c & (self._from_end(side, r) < 0.5)

                def one(_: Array, carry: Array) -> Array:
                    function(side, r, near)
                    return carry

                return _times(_any(near), one, carry)

            return _times(_any(near_c), lambda _, carry: _times(self.width, row, carry), carry)

        _times(2, end)

    def _from_end(self, side: Array, k: Array) -> Array:
        return self._get("place", side * self.width + k)  # those from 1 come after them

    def _pair(self, side: Array, r: Array, c: Array) -> tuple[ScalarArray, ScalarArray]:
        p, q = (ScalarValue(self._from_end(side, k)) for k in (r, c))
        return scalar_array([p], ()), scalar_array([q], ())

    def _call(self, function: Callable, *given: ScalarArray) -> list[Array]:
        """The numbers that a function returns, in rows."""
        found = self.traced(function, *given)
        return [self._spread(number) for part in found for number in part.ravel()]

    def _spread(self, number: ScalarValue) -> Array:
        return number.value if np.ndim(number.value) else self.zero + number.value

    def _parts(self, rows: list[Array]) -> tuple[ScalarArray, ScalarArray, ScalarArray]:
        numbers = [ScalarValue(value) for value in rows]
        bias, a, u = numbers[:1], numbers[1 : 1 + self.width], numbers[1 + self.width :]
        return (
            scalar_array(bias, ()),
            scalar_array(a, (self.width,)),
            scalar_array(u, (self.width,)),
        )

    def _get(self, name: str, k: Any) -> Array:
        return self.aside[_ASIDE.index(name) * self.width + k]

    def _put(self, name: str, k: Any, value: Array) -> None:
        self.aside[_ASIDE.index(name) * self.width + k] = value

    def _add(self, rows: KernelOutput, row: Any, value: Array) -> None:
        rows[row] = rows[row] + value

    def _one(self, name: str, k: Any) -> ScalarArray:
        return scalar_array([ScalarValue(self._get(name, k))], ())

    def _all(self, name: str) -> ScalarArray:
        return scalar_array(
            [ScalarValue(self._get(name, k)) for k in range(self.width)], (self.width,)
        )


def _times(count: Any, body: Callable, carry: Any = None) -> Array:
    return jax.lax.fori_loop(0, count, body, jnp.int32(0) if carry is None else carry)


def _pick(values: list[Array], k: Array) -> Array:
    found = values[0]
    for i, value in enumerate(values):
        found = jnp.where(k == i, value, found)
    return found


def _put(values: list[Array], k: Array, new: Array) -> list[Array]:
    return [jnp.where(k == i, new, value) for i, value in enumerate(values)]


def _any(near: Array) -> Array:
    """1 if so in any run of the block, else 0."""
    return jnp.max(near.astype(jnp.float32)).astype(jnp.int32)


def _sign(side: Array) -> ScalarArray:
    return scalar_array([ScalarValue(1.0 - 2.0 * side.astype(jnp.float64))], ())
