import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from train.glyphs import glyphs

from jaxdebias import models
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch
from jaxdebias.data._colour import draw_tints
from jaxdebias.data._sets.colored_mnist import all_digits, tinted_mnist
from jaxdebias.explain import Cells, CellsConfig, _cells, find_cells, reweighing
from jaxdebias.explain._cells import plain_from
from jaxdebias.mitigate import gce
from jaxdebias.train import random_affine

COUNTS = np.array([[90, 10], [20, 80]])
CONFIG = CellsConfig(steps=40, batch_size=64)
JUDGE = gce(models.mlp(hidden=(32,), classes=4), optimizer=CONFIG.optimizer, augment=random_affine(shift=1.0))
KEY = jax.random.key(0)


@functools.cache
def found():
    """(data, what the judges say of it): one shape for many tests, so one set of programs."""
    data = glyphs(201, conflicting=0.1)
    return data, find_cells(KEY, JUDGE, data, CONFIG)


def test_weights_make_guess_and_label_independent():
    weights = reweighing(COUNTS)
    np.testing.assert_allclose(weights, [[0.61111111, 4.5], [2.75, 0.5625]], atol=1e-7)
    assert (weights * COUNTS).sum() == pytest.approx(200)
    np.testing.assert_allclose(weights * COUNTS, [[55, 45], [55, 45]])


def test_weights_of_empty_and_rare_cells():
    weights = reweighing(np.array([[10**6, 0], [1, 10**6]]))
    assert weights[0, 1] == 0
    assert weights[1, 0] == 1000  # not 5e5


def test_confidence_is_counted_above_chance():
    assert plain_from(0.9, classes=10, share=0.5) == pytest.approx(0.5)
    assert plain_from(0.9, classes=2, share=0.5) == pytest.approx(0.7)
    assert plain_from(0.9, classes=4, share=1.0) == pytest.approx(0.9)
    assert plain_from(0.9, classes=4, share=0.0) == pytest.approx(0.25)


def test_a_sample_is_judged_by_models_that_have_not_seen_it():
    """Changing the labels of a fold changes no guess of that fold, to the bit; and it changes others."""
    data, before = found()
    mine = before.fold[0] == 1
    assert 90 <= mine.sum() <= 110
    after = find_cells(KEY, JUDGE, data._replace(label=np.where(mine, (data.label + 1) % 4, data.label)), CONFIG)
    np.testing.assert_array_equal(before.probability[mine], after.probability[mine])
    assert not np.array_equal(before.probability[~mine], after.probability[~mine])


@pytest.mark.slow
def test_the_attribute_is_not_read():
    data, cells = found()
    other = find_cells(KEY, JUDGE, data._replace(attribute=np.full(201, -1, np.int32)), CONFIG)
    np.testing.assert_array_equal(cells.probability, other.probability)


@pytest.mark.slow
def test_counts_repeats_and_probabilities():
    data = glyphs(203, conflicting=0.1)
    cells = find_cells(KEY, JUDGE, data, CellsConfig(steps=10, folds=3, repeats=2, batch_size=64))
    assert cells.fold.shape == (2, 203)
    assert set(np.unique(cells.fold)) == {0, 1, 2}
    np.testing.assert_allclose(cells.probability.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(cells.guess, cells.probability.argmax(1))
    assert cells.counts[2, 1] == ((data.label == 2) & (cells.guess == 1)).sum()
    assert cells.flagged_share == pytest.approx((cells.guess != data.label).mean())


@pytest.mark.slow
def test_a_view_draws_the_rows():
    """The same judges see the same pictures, whether stored or made inside the step."""
    data, cells = found()
    rows = data._replace(x=np.arange(201, dtype=np.int32)[::-1].copy())

    def view(shared, batch: Batch) -> Batch:
        return batch._replace(x=shared[batch.x])

    lazy = find_cells(KEY, JUDGE, rows, CONFIG, shared=data.x[::-1].copy(), view=view)
    np.testing.assert_allclose(lazy.probability, cells.probability, atol=1e-6)


def test_refuses():
    data = glyphs(200, conflicting=0.1)
    with pytest.raises(ContractError, match="label"):
        find_cells(KEY, JUDGE, data._replace(label=data.label + 1), CONFIG)
    with pytest.raises(ContractError, match="at least 4 rows"):
        find_cells(KEY, JUDGE, jax.tree.map(lambda leaf: leaf[:3], data), CONFIG)
    with pytest.raises(ContractError, match="folds"):
        CellsConfig(folds=1)


@pytest.mark.slow
@pytest.mark.realdata
def test_finds_the_colours_of_real_digits_and_hesitates_without_bias(data_dir):
    """Of 300 conflicting digits among 60,000 nearly all are found and nothing else; random colours leave doubt."""
    digits = all_digits(data_dir)
    for conflicting in (0.005, 0.9):  # 0.9: colours mean nothing
        train, _ = tinted_mnist(digits, conflicting=conflicting, seed=0)
        config = CellsConfig()
        judges = gce(models.mlp(), optimizer=config.optimizer, augment=random_affine())
        cells = find_cells(KEY, judges, train, config, shared=digits.gray, view=draw_tints)
        flagged, apart = cells.guess != train.label, train.attribute != train.label
        sure, _ = cells.confidence(train.label)
        if conflicting == 0.005:
            assert apart[flagged].mean() >= 0.98
            assert flagged[apart].mean() >= 0.97
            assert sure > 0.9
        else:
            assert sure < 0.8


def test_confidence_of_flagged_and_other_samples():
    probability = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], np.float32)
    cells = Cells(np.array([0, 1, 1]), probability, np.zeros((1, 3), int), np.array([[1, 1], [0, 1]]))
    assert cells.confidence(np.array([0, 0, 1])) == pytest.approx((0.6, 0.85))
    assert np.isnan(cells.confidence(np.array([0, 1, 1]))[0])


def test_judges_do_not_learn_from_rows_of_weight_0(key, monkeypatch):
    """The weights reach the judges' training; the attribute never does."""
    seen = {}

    def cross_fit(key, learner, data, **options):
        seen["data"] = data
        return SimpleNamespace(probability=np.full((4, 2), 0.5), fold=np.zeros(4, np.int32))

    monkeypatch.setattr(_cells, "cross_fit", cross_fit)
    label, weight = np.array([0, 1, 0, 1], np.int32), np.array([1, 1, 0, 0], np.float32)
    data = Batch(x=np.zeros((4, 3), np.float32), label=label, attribute=label, weight=weight)
    find_cells(key, gce(models.mlp(hidden=(2,), classes=2)), data, CellsConfig(steps=1))
    np.testing.assert_array_equal(seen["data"].weight, weight)
    assert (seen["data"].attribute == -1).all()
