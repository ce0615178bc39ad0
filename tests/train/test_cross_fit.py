import jax
import numpy as np
import pytest
from train.glyphs import glyphs

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.mitigate import cell_balanced, cell_tables, erm
from jaxdebias.train import Optimizer, cross_fit

KEY = jax.random.key(0)
MLP = models.mlp(hidden=(32,), classes=4)
PLAIN = erm(MLP, optimizer=Optimizer(learning_rate=1e-2))


def test_neither_label_nor_attribute_of_a_sample_enters_what_is_said_of_it():
    learner = cell_balanced(MLP, optimizer=Optimizer(learning_rate=1e-2), groups=np.ones((4, 4), np.int64))
    tables = cell_tables(np.arange(1, 17).reshape(4, 4))
    data = glyphs(201, conflicting=0.1)
    before = cross_fit(KEY, learner, data, steps=10, batch_size=64, hyper=tables)
    mine = before.fold[0] == 1
    changed = data._replace(
        label=np.where(mine, (data.label + 1) % 4, data.label),
        attribute=np.where(mine, (data.attribute + 2) % 4, data.attribute),
    )
    after = cross_fit(KEY, learner, changed, steps=10, batch_size=64, hyper=tables)
    np.testing.assert_array_equal(before.probability[mine], after.probability[mine])
    assert not np.array_equal(before.probability[~mine], after.probability[~mine])
    # Attributes alone matter too, through draws and offsets.
    shifted = data._replace(attribute=np.where(mine, (data.attribute + 2) % 4, data.attribute))
    after = cross_fit(KEY, learner, shifted, steps=10, batch_size=64, hyper=tables)
    assert not np.array_equal(before.probability[~mine], after.probability[~mine])


def test_rows_without_weight_are_not_learned_from():
    data = glyphs(120, conflicting=0.1)
    out = np.arange(120) % 3 == 0
    weight = np.where(out, 0, 1).astype(np.float32)
    one = cross_fit(KEY, PLAIN, data._replace(weight=weight), steps=6, batch_size=30)
    spoilt = data._replace(weight=weight, label=np.where(out, 3 - data.label, data.label).astype(np.int32))
    np.testing.assert_array_equal(one.probability, cross_fit(KEY, PLAIN, spoilt, steps=6, batch_size=30).probability)
    everyone = data._replace(weight=np.ones(120, np.float32))
    assert not np.array_equal(one.probability, cross_fit(KEY, PLAIN, everyone, steps=6, batch_size=30).probability)


def test_refuses():
    data = glyphs(200, conflicting=0.1)
    with pytest.raises(ContractError, match="at least 6 rows for 3 folds"):
        cross_fit(KEY, PLAIN, jax.tree.map(lambda leaf: leaf[:5], data), steps=2, folds=3)
    with pytest.raises(ContractError, match="label"):
        cross_fit(KEY, PLAIN, data._replace(label=data.label + 1), steps=2)
