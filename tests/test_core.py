import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdebias.batching import concatenate, unpair
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Classifier, Dataset, RepairSets, Split, as_float, counted, group_of, repair_sets, take


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
    said, unsaid = (Classifier(None, None, None, Split(None, None, path)) for path in (("head",), None))
    assert (said.head_path, unsaid.head_path) == (("head",), ("params", "head"))
    assert Classifier._field_defaults["spatial"] is None


def rows(n, start=0):
    x = np.arange(start, start + 2 * n, dtype=np.float32).reshape(n, 2)
    return Batch(x, np.arange(n, dtype=np.int32) % 2, np.zeros(n, np.int32))


def test_concatenated_rows_keep_their_order_and_weights():
    one, two = rows(3), rows(2, start=10)
    both = concatenate(one, two._replace(weight=np.array([0.0, 2.0], np.float32)))
    np.testing.assert_array_equal(both.x, np.concatenate([one.x, two.x]))
    np.testing.assert_array_equal(both.label, np.concatenate([one.label, two.label]))
    assert both.weight.tolist() == [1, 1, 1, 0, 2]
    assert concatenate(one, two).weight is None
    with pytest.raises(ContractError, match="`x of the batches`: expected one dtype and shape of a row"):
        concatenate(one, two._replace(x=two.x[:, :1]))


def test_unpaired_rows_keep_weight_and_unit():
    pairs = rows(2)._replace(twin=-rows(2).x, weight=np.array([1.0, 0.0]), unit=np.array([4, 7], np.int32))
    got = unpair(pairs)
    np.testing.assert_array_equal(got.x, np.concatenate([pairs.x, pairs.twin]))
    assert (got.weight.tolist(), got.unit.tolist()) == ([1, 0, 1, 0], [4, 7, 4, 7])
    assert got.attribute.tolist() == [0, 0, -1, -1]
    with pytest.raises(ContractError, match=r"`pairs.twin`: expected the other rendering of x"):
        unpair(rows(2))


def test_padding_is_left_out_and_only_padding():
    batch = rows(3)._replace(weight=np.array([0.5, 0.0, 2.0], np.float32))
    assert counted(batch).x.tolist() == [[0, 1], [4, 5]]
    assert counted(rows(3)).x is rows(3).x or counted(rows(3)).x.tolist() == rows(3).x.tolist()
    sets = RepairSets(train=batch, accept=rows(2)).counted()
    assert (len(sets.train.label), len(sets.accept.label), sets.edit) == (2, 2, None)


def dataset(splits, pairs):
    names = {"label_names": ("a", "b"), "attribute_names": ("c",), "aligned": np.ones((2, 1), bool)}
    return Dataset(name="toy", variant={}, splits=splits, pairs=pairs, **names)


def test_the_sets_of_a_repair_never_hold_the_test_split():
    splits = {name: rows(n) for n, name in enumerate(("train", "edit", "accept", "test"), 1)}
    pairs = {name: rows(n)._replace(twin=rows(n).x) for n, name in enumerate(("edit", "accept", "test"), 5)}
    sets = repair_sets(dataset(splits, pairs))
    assert [len(batch.label) for batch in sets] == [1, 2, 5, 3, 6]
    assert repair_sets(dataset({"train": rows(1)}, {}))[1:] == (None,) * 4
