import numpy as np
import pytest

from jaxdebias.core import Batch, Dataset
from jaxdebias.reproduce._db_vae import over_groups
from jaxdebias.reproduce._rates import changed, group_gap, said


def dataset_of(label, attribute, aligned):
    test = Batch(x=np.zeros((len(label), 2), np.float32), label=label, attribute=attribute)
    names = ("0", "1")
    return Dataset(name="", variant={}, splits={"test": test}, pairs={}, label_names=names, attribute_names=names,
                   aligned=aligned)  # fmt: skip


def test_changed_numbers_are_counted():
    before = {"a": np.zeros((2, 3)), "b": np.ones(4)}
    after = {"a": np.array([[0.0, 1e-9, 0.0], [0.0, 0.0, 2.0]]), "b": np.ones(4)}
    assert changed(before, after) == {"changed": 2, "changed_share": 0.2}


def test_group_gap_is_signed_and_weighs_groups_alike():
    label = np.array([0, 0, 0, 1, 1], np.int32)
    attribute = np.array([0, 0, 1, 0, 1], np.int32)
    p = np.array([0.9, 0.7, 0.6, 0.1, 0.2])  # of the true class
    logits = np.zeros((5, 2))
    logits[np.arange(5), label] = np.log(p / (1 - p))
    aligned = np.eye(2, dtype=bool)
    assert group_gap(logits, dataset_of(label, attribute, aligned)) == pytest.approx(0.5 - 0.35, abs=1e-6)
    assert group_gap(logits, dataset_of(label, attribute, ~aligned)) == pytest.approx(0.35 - 0.5, abs=1e-6)
    # Without a conflicting group there is no gap.
    assert np.isnan(group_gap(logits[:2], dataset_of(label[:2], attribute[:2], aligned)))


def test_what_an_info_says_of_itself():
    found = said({"kept": True, "u": 0.5, "rows": np.zeros(3), "seconds": 3.0, "per_class": np.array([1, 2])})
    assert found == {"kept": True, "u": 0.5, "per_class": [1, 2]}


def test_mean_variance_and_precision_over_groups():
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    attribute = np.array([0, 0, 1, 1, 0, 0, 1, -1])
    predicted = np.array([0, 0, 0, 1, 1, 0, 0, 1])
    row = over_groups(predicted, label, attribute, 3)
    rates = [1.0, 0.5, 0.5, 0.0]  # the row of unknown attribute is in no group
    assert row["group_mean"] == pytest.approx(np.mean(rates))
    assert row["variance"] == pytest.approx(np.var(np.multiply(100, rates), ddof=1))
    assert row["worst_group"] == 0.0
    assert row["accuracy"] == 5 / 8
    assert row["precision"] == pytest.approx((3 / 5 + 2 / 3 + 0) / 3)  # class 2 is never predicted
    unknown = over_groups(predicted, label, np.full(8, -1), 2)
    assert [one["accuracy"] for one in unknown["groups"]] == [0.75, 0.5]
