"""Which repair is recommended, from which samples that is known, and when the model is left as it is."""

import dataclasses

import jax
import numpy as np
import pytest
from auditing.toys import SPLIT, linear, looking_at, table

from jaxdebias import auditing, models
from jaxdebias.auditing.advice import (
    ESTIMATE,
    Subject,
    _halved,
    _sorted,
    balanced_rows,
    judged_changes,
    repairs,
    try_repairs,
    verify,
    worth_it,
)
from jaxdebias.core import take
from jaxdebias.measure import PairedChange


def subject(dataset, classifier=None):
    return Subject(SPLIT, dataset, classifier, dataset)


@pytest.fixture(scope="module")
def tried():
    return try_repairs(jax.random.key(0), subject(table(noise=0.1)), looking_at(0.5, 2.0))


@pytest.mark.slow
def test_a_repair_that_helps_is_recommended_and_holds(key, tried):
    dataset, params = table(noise=0.1), looking_at(0.5, 2.0)
    assert {one.name for one in tried.options} == {"dfr", "dfr_train", "fmd", "refit_head", "fine_tune_head"}
    best = tried.recommended
    assert best is tried.options[0]
    assert best.expected["balanced_accuracy"].low > 0.2
    assert "balanced_accuracy" in best.gains
    before = auditing.measure(key, linear, params, dataset)
    found = verify(jax.random.key(1), subject(dataset), best, before, measure_key=key)
    assert found.held
    assert found.changes["balanced_accuracy"].low > 0.2
    assert found.after.groups.bias_conflicting_accuracy.value > 0.8
    judged = repairs(tried, found)
    assert judged[0].verified
    assert [one.test is None for one in judged] == [False, *[True] * (len(judged) - 1)]


@pytest.mark.slow
def test_a_model_without_the_shortcut_gains_nothing(key):
    found = try_repairs(key, subject(table(noise=0.1)), looking_at(4.0, 0.0))
    assert found.recommended is None
    assert found.options


@pytest.mark.slow
def test_all_layers_are_trained_where_they_can_be(key):
    dataset = table(noise=0.1)
    classifier = models.mlp(hidden=(4,), classes=2)
    params = classifier.init(key, dataset.splits["train"].x[:2])
    features = dataclasses.replace(
        dataset,
        splits={
            name: batch._replace(x=np.asarray(classifier.vector.features(params, batch.x)))
            for name, batch in dataset.splits.items()
        },
        pairs={
            name: batch._replace(
                x=np.asarray(classifier.vector.features(params, batch.x)),
                twin=np.asarray(classifier.vector.features(params, batch.twin)),
            )
            for name, batch in dataset.pairs.items()
        },
    )
    split = classifier.vector._replace(features=lambda params, z: z)
    found = try_repairs(key, Subject(split, features, classifier, dataset), params)
    assert {"fine_tune", "scratch", "dfr"} <= {one.name for one in found.options}
    assert {one.name for one in found.options if one.whole} == {"fine_tune", "scratch", "group_balanced"}
    assert all(np.isfinite(one.expected["balanced_accuracy"].value) for one in found.options)


def test_training_rows_are_drawn_group_by_group(key):
    train = table(n=400, conflicting=0.1).splits["train"]
    attribute = np.where(np.arange(400) < 40, -1, train.attribute)
    drawn = balanced_rows(key, train._replace(attribute=attribute))
    assert len(drawn.label) == 360
    assert drawn.attribute.min() == 0
    share = np.bincount(2 * drawn.label + drawn.attribute) / 360
    np.testing.assert_allclose(share, 0.25, atol=0.08)
    assert balanced_rows(key, train._replace(attribute=np.full(400, -1))) is None
    one_group = take(train, np.flatnonzero((train.label == 0) & (train.attribute == 0)))
    assert balanced_rows(key, one_group) is None


def test_with_few_samples_nothing_is_tried(key):
    """The interval of a handful that agrees says little."""
    dataset = table(noise=0.1)
    few = dataclasses.replace(
        dataset,
        splits={**dataset.splits, "accept": take(dataset.splits["accept"], np.arange(6))},
        pairs={**dataset.pairs, "accept": take(dataset.pairs["accept"], np.arange(6))},
    )
    found = try_repairs(key, subject(few), looking_at(1.0, 1.1))
    assert found.options == ()
    assert "60 independent samples in split 'accept', not 6" in found.missing


@pytest.mark.parametrize("without", ["edit", "accept"])
def test_what_is_missing_is_said(key, without):
    dataset = table()
    left = {name: batch for name, batch in dataset.splits.items() if name != without}
    found = try_repairs(key, subject(dataclasses.replace(dataset, splits=left)), looking_at(0.5, 2.0))
    assert found.options == ()
    assert without in found.missing
    batch = dataset.splits[without]
    blind = {**dataset.splits, without: batch._replace(attribute=np.full(400, -1, np.int32))}
    found = try_repairs(key, subject(dataclasses.replace(dataset, splits=blind)), looking_at(0.5, 2.0))
    assert found.options == ()
    assert f"two values of the attribute in split '{without}'" in found.missing


def test_no_unit_is_on_both_sides(key):
    dataset = table()
    unit = np.repeat(np.arange(100), 4).astype(np.int32)
    accept = dataset.splits["accept"]._replace(unit=unit)
    pairs = dataset.pairs["accept"]._replace(unit=unit)
    halved = _halved(
        key,
        dataclasses.replace(
            dataset, splits={**dataset.splits, "accept": accept}, pairs={**dataset.pairs, "accept": pairs}
        ),
    )
    one, other = (set(halved.splits[name].unit) for name in ("accept", ESTIMATE))
    assert len(one) == len(other) == 50
    assert not one & other
    assert set(halved.pairs[ESTIMATE].unit) == other
    assert set(halved.pairs["accept"].unit) == one


def test_only_the_balanced_accuracy_recommends():
    """Guesses depend on no attribute, and conflicting accuracy can be bought with aligned one: neither is a repair."""
    falls = PairedChange(-0.8, -0.9, -0.7, 100, 0.001, 50, True)
    nothing = PairedChange(0.0, -0.05, 0.05, 100, 1.0, 9, False)
    rises = PairedChange(0.2, 0.1, 0.3, 100, 0.001, 50, True)
    tiny = PairedChange(0.009, 0.005, 0.013, 9000, 0.001, 80, True)
    found = {
        "counterfactual_bias": falls,
        "balanced_accuracy": nothing,
        "bias_aligned_accuracy": nothing,
        "bias_conflicting_accuracy": rises,
    }
    assert _sorted(found) == (("counterfactual_bias",), ())
    assert not worth_it(*_sorted(found))
    gained = {**found, "balanced_accuracy": rises}
    assert _sorted(gained) == (("balanced_accuracy", "counterfactual_bias"), ())
    assert worth_it(*_sorted(gained))
    worse = {**gained, "counterfactual_bias": rises}
    assert _sorted(worse) == (("balanced_accuracy",), ("counterfactual_bias",))
    assert not worth_it(*_sorted(worse))
    assert not worth_it(*_sorted({**found, "balanced_accuracy": tiny}))


def test_padding_is_in_no_pool_of_the_balanced_accuracy(key):
    dataset = table(noise=0.1)
    test = dataset.splits["test"]
    n = len(test.label)
    more = np.r_[np.arange(n), np.flatnonzero(test.label == test.attribute)[:50]]  # of one pool
    padded = take(test._replace(weight=None), more)._replace(weight=(np.arange(len(more)) < n).astype(np.float32))
    found = []
    for batch in (test, padded):
        of = dataclasses.replace(dataset, splits={**dataset.splits, "test": batch})
        before, after = (
            auditing.measure(key, linear, params, of) for params in (looking_at(0.5, 2.0), looking_at(4, 0))
        )
        found.append(judged_changes(key, before, after, of, split="test")["balanced_accuracy"])
    assert found[0].value == pytest.approx(found[1].value)
