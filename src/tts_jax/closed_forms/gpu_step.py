"""Steps of the Rosenbrock method for many runs in one GPU kernel, with a run in each thread.

XLA would launch some hundred kernels for a step. Most would read and write the matrices of all
runs, and the terms of cut neurons, which few runs need, would be computed for all. Here a thread
computes its matrix column by column and factorises each column at once; numbers that do not fit
registers are in memory of the thread.

The matrix is the one that `PairwiseGradientSystem.factorise` solves with, in the order bias,
weights, positions; `gpu_factor` factorises it.
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
from ..integrators.rosenbrock import TABLEAU_A, TABLEAU_C, TABLEAU_M, SolverStep
from . import gpu_matrix as formulas
from .gpu_factor import ColumnFactor
from .pairwise import PairwiseState

_COUNT = len(TABLEAU_M)

_NEURON_ROWS = (
    *("from_zero", "from_one", "weight", "products", "by_first", "twice"),
    *("moving", "right_value", "right_integral", "by_a", "by_a_u", "by_u"),
)
"""Names of the numbers of every neuron that are kept in memory, where an index may be traced."""


def steps_on_gpu(system: Any, is_batched: Any, y: PairwiseState, h: Array) -> SolverStep:
    """Return the `rosenbrock_step` of R runs of a `PairwiseGradientSystem`.

    The runs are on the last axis of `y`, of `h` (R,), and of the arrays of the system for which
    `is_batched`, a tree of truth values, is True.
    """
    width, runs = y.u.shape
    size = 2 * width + 1
    arrays, static = eqx.partition(system, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    leaves = [leaf.astype(jnp.float64) for leaf in leaves]
    flags = jax.tree.leaves(is_batched)
    numbers = [KernelOperand(*pair) for pair in zip(leaves, flags, strict=True)]
    state = jnp.concatenate([y.bias[None], y.a, y.u])
    tables = jnp.concatenate([jnp.ravel(jnp.asarray(t)) for t in (TABLEAU_A, TABLEAU_C, TABLEAU_M)])
    size_and_zero = jnp.stack([h, jnp.zeros_like(h)])
    operands = [
        KernelOperand(state, True),
        KernelOperand(size_and_zero, True),
        KernelOperand(tables, False),
        *numbers,
    ]

    def body(block: Array, inputs: list[KernelInput], outputs: list[KernelOutput]) -> None:
        del block
        system_arrays = [number.read() for number in inputs[3:]]

        def call_formula(function: Callable, *arguments: ScalarArray) -> list[ScalarArray]:
            """Return what a function of the system and of arrays of one run returns, by scalars."""
            shapes = [
                jax.ShapeDtypeStruct(v.shape, np.float64) for v in (*system_arrays, *arguments)
            ]

            def of_arrays(*arrays: Array) -> Tree:
                arrays_of_run = jax.tree.unflatten(structure, arrays[: len(system_arrays)])
                run_system = eqx.combine(arrays_of_run, static)
                return function(run_system, *arrays[len(system_arrays) :])

            program = ScalarProgram(jax.make_jaxpr(of_arrays)(*shapes), (BLOCK_RUNS,))
            return program(*system_arrays, *arguments)

        _Thread(width, call_formula, inputs[0], inputs[1], inputs[2], outputs).step()

    rows = (size, _COUNT * size, size * size, size, len(_NEURON_ROWS) * width)
    after, stages, *_ = launch(body, operands, [(n, np.dtype(np.float64)) for n in rows], runs)
    stages = stages.reshape(_COUNT, size, runs)
    return SolverStep(_state_of_rows(after, width), _state_of_rows(stages, width))


def _state_of_rows(rows: Array, width: int) -> PairwiseState:
    """Return rows (..., 2m+1, R) as a `PairwiseState`, with the runs on the last axis."""
    return PairwiseState(rows[..., 0, :], rows[..., 1 : width + 1, :], rows[..., width + 1 :, :])


class _Thread:
    """The step of a block of runs in the kernel, one in each thread: see `launch`.

    `call_formula` calls a function of the system with arrays of scalars; `neuron_rows` holds the
    numbers that `_NEURON_ROWS` names, m rows for each name.
    """

    def __init__(
        self,
        width: int,
        call_formula: Callable,
        state: KernelInput,
        size_and_zero: KernelInput,
        tables: KernelInput,
        outputs: list[KernelOutput],
    ):
        self.width, self.size, self.call_formula = width, 2 * width + 1, call_formula
        self.start = [state.at(k) for k in range(self.size)]
        self.h, self.zero, self.tables = size_and_zero.at(0), size_and_zero.at(1), tables
        self.after, self.stages, columns, inverse, self.neuron_rows = outputs
        self.factor = ColumnFactor(width, self.zero, columns, inverse)

    def step(self) -> None:
        """Take the step from the state that the kernel is given, and write it to the outputs."""
        self._factorise()

        def stage(i: Array, carry: Array) -> Array:
            at = self._add_stages(self.start, i, lambda j: i * _COUNT + j)
            vector_field = self._vector_field(at)
            coupled = self._add_stages(
                [self.zero] * self.size, i, lambda j: (_COUNT + i) * _COUNT + j
            )
            mass_term = self._call(
                lambda s, *y: s.apply_mass(PairwiseState(*y)), *self._split(coupled)
            )
            right = [f + g / self.h for f, g in zip(vector_field, mass_term, strict=True)]
            for k, value in enumerate(self.factor.solve(right)):
                self.stages[i * self.size + k] = value
            return carry

        _repeat(_COUNT, stage)
        after = self._add_stages(self.start, _COUNT, lambda j: 2 * _COUNT**2 + j)
        for k, value in enumerate(after):
            self.after[k] = value

    def _add_stages(self, start: list[Array], count: Any, entry: Callable) -> list[Array]:
        """Return `start` plus the first `count` stages, stage j times `tables[entry(j)]`."""

        def add(j: Array, total: list[Array]) -> list[Array]:
            by = self.tables.at(entry(j))
            return [v + by * self.stages[j * self.size + k] for k, v in enumerate(total)]

        return jax.lax.fori_loop(0, count, add, start)

    def _vector_field(self, at: list[Array]) -> list[Array]:
        bias, a, u = self._split(at)
        self._store_positions(bias, a, u)
        sums = self._sum_over_neurons(formulas.overlap_and_slope)
        self._sum_over_cut_pairs(formulas.cut_product_and_slope, ("products", "by_first"))
        return self._call(
            formulas.vector_field_by_sums,
            bias,
            a,
            u,
            *sums,
            self._neurons("products"),
            self._neurons("by_first"),
        )

    def _factorise(self) -> None:
        bias, a, u = self._split(self.start)
        self._store_positions(bias, a, u)
        sums = self._sum_over_neurons(formulas.slope_and_twice)
        self._sum_over_cut_pairs(formulas.cut_slope_and_twice, ("by_first", "twice"))
        h = scalar_array([ScalarValue(self.h)], ())
        by_first, twice = self._neurons("by_first"), self._neurons("twice")
        bias_column, *terms = self.call_formula(
            formulas.neuron_terms, h, bias, a, u, *sums, by_first, twice
        )
        for name, values in zip(formulas.NEURON_TERMS, terms, strict=True):
            for k, scalar in enumerate(values):
                self._store(name, k, self._as_vector(scalar))
        self.factor.begin_column(0, 0, self._as_vectors(bias_column))
        self.factor.invert_corner()
        _repeat(self.width, self._weight_column)
        _repeat(self.width, self._position_column)

    def _weight_column(self, c: Array, carry: Array) -> Array:
        """Compute and store the column of the weight of neuron c, from the first weight on."""
        column = 1 + c
        names = ("from_zero", "moving", "right_value", "right_integral")
        rows = self.call_formula(
            formulas.column_of_weight,
            *(self._neurons(name) for name in names),
            *(self._neuron(name, c) for name in ("from_zero", "from_one", "right_integral")),
        )
        self.factor.begin_column(column, 1, self._as_vectors(np.concatenate(rows)))
        self.factor.add(column, 1 + c, self._load("by_a", c))
        self.factor.add(column, 1 + self.width + c, self._load("by_a_u", c))

        def add_pair(end: Array, r: Array, is_cut: Array) -> None:
            arguments = [*self._pair(end, r, c), self._neuron("moving", r), _sign(end)]
            for k, value in enumerate(self._call(formulas.cut_column_of_weight, *arguments)):
                self.factor.add(column, 1 + k * self.width + r, jnp.where(is_cut, value, 0.0))

        self._for_cut_partners(c, add_pair)
        self.factor.end_column(column, 1)
        return carry

    def _position_column(self, c: Array, carry: Array) -> Array:
        """Compute and store the column of the position of neuron c, from the first position on."""
        first = 1 + self.width
        column = first + c
        (rows,) = self.call_formula(
            formulas.column_of_position,
            *(self._neurons("from_zero"), self._neurons("moving")),
            *(self._neuron("from_zero", c), self._neuron("moving", c)),
        )
        self.factor.begin_column(column, first, self._as_vectors(rows))
        self.factor.add(column, column, self._load("by_u", c))

        def add_pair(end: Array, r: Array, is_cut: Array) -> None:
            moving = (self._neuron("moving", r), self._neuron("moving", c))
            (value,) = self._call(formulas.cut_column_of_position, *self._pair(end, r, c), *moving)
            self.factor.add(column, first + r, jnp.where(is_cut, value, 0.0))

        self._for_cut_partners(c, add_pair)
        self.factor.end_column(column, first)
        return carry

    def _store_positions(self, bias: ScalarArray, a: ScalarArray, u: ScalarArray) -> None:
        """Store the weights, and the distances of the neurons from 0 and 1 in units of eta."""
        values_of_names = self.call_formula(formulas.positions_and_weights, bias, a, u)
        names = ("from_zero", "from_one", "weight")
        for name, values in zip(names, values_of_names, strict=True):
            for k, scalar in enumerate(values):
                self._store(name, k, self._as_vector(scalar))

    def _sum_over_neurons(self, function: Callable) -> list[ScalarArray]:
        """Return two sums over the neurons j, of the terms that `function(x, x_j, a_j)` returns."""
        positions = self._neurons("from_zero")
        zeros = [[self.zero] * self.width] * 2

        def add(j: Array, sums: list[list[Array]]) -> list[list[Array]]:
            position, weight = self._neuron("from_zero", j), self._neuron("weight", j)
            terms = self.call_formula(function, positions, position, weight)
            return [
                [total + self._as_vector(term) for total, term in zip(*pair, strict=True)]
                for pair in zip(sums, terms, strict=True)
            ]

        sums = jax.lax.fori_loop(0, self.width, add, zeros)
        return [scalar_array([ScalarValue(v) for v in total], (self.width,)) for total in sums]

    def _sum_over_cut_pairs(self, function: Callable, names: tuple[str, str]) -> None:
        """Store two sums over the neurons that an end cuts along with neuron r, for each r.

        `function`, of a cut pair, returns the terms; `names`: the rows in which to store the sums.
        """
        for name in names:
            for k in range(self.width):
                self._store(name, k, self.zero)

        def add_neuron(c: Array, carry: Array) -> Array:
            def add_pair(end: Array, r: Array, is_cut: Array) -> None:
                arguments = [*self._pair(end, r, c), self._neuron("weight", c), _sign(end)]
                for name, value in zip(names, self._call(function, *arguments), strict=True):
                    row = _NEURON_ROWS.index(name) * self.width + r
                    self._add(self.neuron_rows, row, jnp.where(is_cut, value, 0.0))

            self._for_cut_partners(c, add_pair)
            return carry

        _repeat(self.width, add_neuron)

    def _for_cut_partners(self, c: Array, function: Callable[[Array, Array, Array], None]) -> None:
        """Call `function(end, r, is_cut)` for the neurons r that an end cuts along with neuron c.

        `end`: 0 or 1; `is_cut`: for which runs of the block that holds.
        """

        def at_end(end: Array, carry: Array) -> Array:
            c_is_cut = self._from_end(end, c) < 0.5

            def at_row(r: Array, carry: Array) -> Array:
                is_cut = c_is_cut & (self._from_end(end, r) < 0.5)

                def call(_: Array, carry: Array) -> Array:
                    function(end, r, is_cut)
                    return carry

                return _repeat(_any_run(is_cut), call, carry)

            def all_rows(_: Array, carry: Array) -> Array:
                return _repeat(self.width, at_row, carry)

            return _repeat(_any_run(c_is_cut), all_rows, carry)

        _repeat(2, at_end)

    def _from_end(self, end: Array, k: Array) -> Array:
        # The rows of "from_one" follow those of "from_zero".
        return self._load("from_zero", end * self.width + k)

    def _pair(self, end: Array, r: Array, c: Array) -> tuple[ScalarArray, ScalarArray]:
        p, q = (ScalarValue(self._from_end(end, k)) for k in (r, c))
        return scalar_array([p], ()), scalar_array([q], ())

    def _call(self, function: Callable, *arguments: ScalarArray) -> list[Array]:
        """Return the numbers that a formula returns, as vectors in row-major order."""
        parts = self.call_formula(function, *arguments)
        return [self._as_vector(scalar) for part in parts for scalar in part.ravel()]

    def _as_vectors(self, scalars: ScalarArray) -> list[Array]:
        return [self._as_vector(scalar) for scalar in scalars]

    def _as_vector(self, scalar: ScalarValue) -> Array:
        return scalar.value if np.ndim(scalar.value) else self.zero + scalar.value

    def _split(self, rows: list[Array]) -> tuple[ScalarArray, ScalarArray, ScalarArray]:
        """Return rows (2m+1) as the bias, the weights and the positions."""
        scalars = [ScalarValue(value) for value in rows]
        bias, a, u = scalars[:1], scalars[1 : 1 + self.width], scalars[1 + self.width :]
        return (
            scalar_array(bias, ()),
            scalar_array(a, (self.width,)),
            scalar_array(u, (self.width,)),
        )

    def _load(self, name: str, k: Any) -> Array:
        return self.neuron_rows[_NEURON_ROWS.index(name) * self.width + k]

    def _store(self, name: str, k: Any, value: Array) -> None:
        self.neuron_rows[_NEURON_ROWS.index(name) * self.width + k] = value

    def _add(self, rows: KernelOutput, row: Any, value: Array) -> None:
        rows[row] = rows[row] + value

    def _neuron(self, name: str, k: Any) -> ScalarArray:
        return scalar_array([ScalarValue(self._load(name, k))], ())

    def _neurons(self, name: str) -> ScalarArray:
        return scalar_array(
            [ScalarValue(self._load(name, k)) for k in range(self.width)], (self.width,)
        )


def _repeat(count: Any, body: Callable, carry: Any = None) -> Array:
    return jax.lax.fori_loop(0, count, body, jnp.int32(0) if carry is None else carry)


def _any_run(condition: Array) -> Array:
    """Return 1 if a condition holds for any run of the block, else 0."""
    return jnp.max(condition.astype(jnp.float32)).astype(jnp.int32)


def _sign(end: Array) -> ScalarArray:
    return scalar_array([ScalarValue(1.0 - 2.0 * end.astype(jnp.float64))], ())
