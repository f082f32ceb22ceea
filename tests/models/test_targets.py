"""Targets: values, where their pieces meet, and derivatives by their numbers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tts_jax as tts


def test_piecewise_constant_has_its_values_and_a_jump_belongs_to_its_right(target):
    edges = np.asarray([0.0, *target.jumps, 1.0])
    middles = (edges[1:] + edges[:-1]) / 2
    np.testing.assert_array_equal(target(jnp.asarray(middles)), target.values)
    np.testing.assert_array_equal(target(jnp.asarray(target.jumps)), target.values[1:])
    before = np.nextafter(target.jumps, 0)
    np.testing.assert_array_equal(target(jnp.asarray(before)), target.values[:-1])
    np.testing.assert_array_equal(target(jnp.asarray([[0.0, 1.0]])), [[1.0, 5.0]])
    np.testing.assert_array_equal(target.heights, [4.0, -4.0, 2.0, -2.0, 4.0])


def test_a_target_without_jumps_is_a_constant():
    np.testing.assert_array_equal(
        tts.PiecewiseConstant([], [3.0])(jnp.asarray([0.0, 0.5])), [3.0, 3.0]
    )


def test_a_cell_takes_the_piece_of_its_lower_end(target):
    """A node of a cell that ends at a jump may round onto it, and still is below the jump."""
    x = jnp.asarray([[0.2, 0.2], [0.2, 0.3]])
    np.testing.assert_array_equal(target.on_cells(x, jnp.asarray([0.1, 0.2])), [[1, 1], [5, 5]])


def test_additive_steps_sum_over_coordinates_and_jumps():
    target = tts.AdditiveSteps([0.3, 0.5, 0.7])
    x = np.random.default_rng(0).uniform(size=(2, 50, 4))
    expected = sum((x[..., k] >= c).astype(float) for k in range(4) for c in (0.3, 0.5, 0.7))
    np.testing.assert_array_equal(target(jnp.asarray(x)), expected)
    assert float(target(jnp.asarray([0.3, 0.0]))) == 1.0


def test_additive_steps_weigh_each_jump():
    target = tts.AdditiveSteps([0.3, 0.6], [2.0, -5.0])
    found = target(jnp.asarray([[0.1, 0.2], [0.4, 0.2], [0.4, 0.7]]))
    np.testing.assert_array_equal(found, [0.0, 2.0, 2.0 + 2.0 - 5.0])


def test_a_teacher_is_its_network():
    network = tts.ShallowNetwork(tts.CubicStep(0.1))
    taught = tts.Params(np.asarray([1.0, 2.0, -3.0]), np.asarray([0.5, 0.2]))
    teacher = tts.Teacher(network, taught)
    x = jnp.asarray([0.0, 0.2, 0.35, 0.5, 1.0])
    np.testing.assert_allclose(teacher(x), [1.0, -0.5, -2.0, -1.0, 0.0], rtol=1e-14)
    np.testing.assert_allclose(
        np.sort(teacher.as_target().cuts()), [0.15, 0.2, 0.25, 0.45, 0.5, 0.55], rtol=1e-14
    )
    assert teacher.as_target().degree == 3
    np.testing.assert_array_equal(teacher.as_target()(x), teacher(x))


def test_a_teacher_of_smooth_units_has_no_degree():
    network = tts.ShallowNetwork(tts.Tanh(0.1))
    teacher = tts.Teacher(network, tts.Params(np.zeros(2), np.full(1, 0.5)))
    assert teacher.as_target().degree is None


def test_a_teacher_of_several_inputs_labels_them_and_is_no_target_of_a_population_problem():
    network = tts.AdditiveNetwork(tts.CubicStep(0.1))
    taught = tts.Params(np.asarray([[1.0], [-2.0]]), np.asarray([[0.5], [0.2]]))
    teacher = tts.Teacher(network, taught)
    np.testing.assert_array_equal(teacher(jnp.asarray([[0.9, 0.0], [0.0, 0.9]])), [1.0, -2.0])
    assert teacher.as_target() is None
    with pytest.raises(ValueError, match="`target` must be of one input"):
        tts.Problem(tts.ShallowNetwork(tts.CubicStep(0.1)), teacher)


def test_a_function_without_a_degree_is_cut_into_cells_and_at_its_kinks():
    smooth = tts.Function(jnp.sin, kinks=[0.26], cells=4)
    np.testing.assert_array_equal(np.sort(smooth.cuts()), [0.0, 0.25, 0.26, 0.5, 0.75, 1.0])
    polynomial = tts.Function(lambda x: x, kinks=[0.26], degree=1)
    np.testing.assert_array_equal(polynomial.cuts(), [0.26])
    np.testing.assert_array_equal(smooth(jnp.asarray([0.3])), np.sin([0.3]))


@pytest.mark.parametrize("of", [tts.PiecewiseConstant, tts.AdditiveSteps])
def test_numbers_of_a_target_may_be_lists_arrays_and_traced(of):
    jumps, levels = [0.3, 0.6], [1.0, 2.0, 4.0][: 3 if of is tts.PiecewiseConstant else 2]
    x = jnp.asarray([0.4, 0.7])
    if of is tts.AdditiveSteps:
        x = x[:, None]
    expected = of(jumps, levels)(x)
    assert expected.dtype == jnp.float64
    np.testing.assert_array_equal(of(np.asarray(jumps), tuple(levels))(x), expected)

    @eqx.filter_jit
    def traced(jumps, levels):
        return of(jumps, levels)(x)

    np.testing.assert_array_equal(traced(jnp.asarray(jumps), jnp.asarray(levels)), expected)
    by_levels = jax.jacfwd(lambda v: of(jumps, v)(x))(jnp.asarray(levels))
    reached = [[0, 1, 0], [0, 0, 1]] if of is tts.PiecewiseConstant else [[1, 0], [1, 1]]
    np.testing.assert_array_equal(by_levels, reached)


def test_an_object_that_cannot_be_referred_to_weakly_is_a_function_too():
    """JAX would end the process at the second one."""

    class Slope:
        __slots__ = ("k",)

        def __init__(self, k):
            self.k = k

        def __call__(self, x):
            return self.k * x

    for k in (1.0, 9.0):
        assert float(tts.Function(Slope(k))(jnp.asarray(2.0))) == 2 * k


def test_a_teacher_of_several_inputs_is_its_network():
    network = tts.TwoLayerNetwork(tts.Tanh())
    params = tts.init_two_layer(jax.random.key(0), network, 3, 4, outer_scale=1.0, bias_scale=1.0)
    x = jax.random.normal(jax.random.key(1), (7, 3))
    np.testing.assert_array_equal(tts.Teacher(network, params)(x), network(params, x))
    drawn = tts.sample_problem(
        jax.random.key(2), network, tts.Teacher(network, params), 5, inputs=3
    )
    np.testing.assert_array_equal(drawn.risk(params), 0.0)
