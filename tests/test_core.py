import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.core import Batch, Classifier, as_float, group_of, take


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_as_float_divides_bytes_only(as_array):
    got = as_float(as_array(np.arange(256, dtype=np.uint8)))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, np.arange(256) / 255.0, rtol=1e-7)
    pixels = np.linspace(0, 1, 5, dtype=np.float32)
    np.testing.assert_array_equal(as_float(as_array(pixels)), pixels)


def test_as_float_keeps_half_precision():
    assert as_float(jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_group_numbers(as_array):
    label, attribute = np.repeat(np.arange(3), 4), np.tile([-1, 0, 1, 2], 3)
    got = group_of(as_array(label), as_array(attribute), 3)
    expected = [-1 if s < 0 else y * 3 + s for y, s in zip(label, attribute, strict=True)]
    assert got.tolist() == expected
    assert got.dtype == np.int32
    assert isinstance(got, type(as_array(label)))  # NumPy in, NumPy out; a device array stays on the device


def test_group_numbers_under_jit():
    got = jax.jit(group_of, static_argnums=2)(jnp.array([0, 1]), jnp.array([1, -1]), 2)
    assert got.tolist() == [1, -1]


def test_take_indexes_every_field_that_is_there():
    batch = Batch(
        np.arange(8.0).reshape(4, 2),
        np.arange(4),
        np.arange(4) % 2,
        twin=-np.arange(8.0).reshape(4, 2),
        unit=np.array([5, 5, 6, 6]),
    )
    got = take(batch, np.array([3, 0]))
    assert got.x.tolist() == [[6, 7], [0, 1]]
    assert got.twin.tolist() == [[-6, -7], [0, -1]]
    assert got.label.tolist() == [3, 0]
    assert got.unit.tolist() == [6, 5]
    assert got.mask is None
    assert got.weight is None
    assert take(batch, slice(1, 3)).label.tolist() == [1, 2]
    assert take(batch, batch.attribute == 1).label.tolist() == [1, 3]


def test_take_inside_jit():
    batch = Batch(jnp.arange(6.0).reshape(3, 2), jnp.arange(3), jnp.zeros(3, jnp.int32))
    got = jax.jit(take)(batch, jnp.array([2, 2, 1]))
    assert got.label.tolist() == [2, 2, 1]


def test_batch_is_a_pytree_of_the_fields_that_are_there():
    batch = Batch(np.zeros((2, 3)), np.zeros(2, int), np.zeros(2, int))
    assert len(jax.tree.leaves(batch)) == 3


def test_a_classifier_points_at_its_head():
    assert Classifier._field_defaults["head_path"] == ("params", "head")
    assert Classifier._field_defaults["spatial"] is None
