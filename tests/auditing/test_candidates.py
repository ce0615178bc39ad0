"""Candidate attributes: what is read of them, and the data set that one of them makes."""

import dataclasses

import numpy as np
import pandas as pd
import polars as pl
import pytest
from auditing.toys import table

from jaxdebias.auditing.candidates import counts_of, list_candidates, own_name, with_attribute
from jaxdebias.contracts import ContractError, check_dataset


def sizes(dataset):
    return {name: len(batch.label) for name, batch in dataset.splits.items()}


def test_the_own_attribute_comes_first_and_others_are_numbered():
    dataset = table()
    text = {name: np.where(np.arange(n) % 2, "b", "a") for name, n in sizes(dataset).items()}
    number = {"test": [-1, *(i / 2 for i in range(399))]}
    found = list_candidates(dataset, {"text": text, "number": number})
    assert list(found) == ["attribute", "text", "number"]
    assert found["attribute"].own
    assert found["attribute"].names == ("blue", "red")
    assert found["text"].names == ("a", "b")
    assert found["text"].values["train"].tolist()[:3] == [0, 1, 0]
    assert len(found["number"].names) == 4
    assert found["number"].values["test"][0] == -1
    assert not counts_of(dataset, found["number"]).any()  # not known in training
    assert counts_of(dataset, found["text"]).sum() == 400


def test_an_unknown_attribute_is_no_candidate():
    dataset = table()
    blind = dataclasses.replace(
        dataset,
        splits={name: batch._replace(attribute=np.full(400, -1, np.int32)) for name, batch in dataset.splits.items()},
    )
    assert list_candidates(blind) == {}
    assert own_name(dataclasses.replace(dataset, variant={"attribute": "colour"})) == "colour"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"attribute": {"test": np.zeros(400)}}, "another name than that of the data set's attribute"),
        ({"a": {"train": np.arange(400)}}, "values for the test split, got train"),
        ({"a": {"test": np.arange(3)}}, r"expected \[n=400\]"),
        ({"a": {"test": np.ones(400)}}, "at least two values, got 1"),
        ({"a": {"test": [f"{i}.png" for i in range(400)]}}, "values that samples share, got an identifier: 400 values"),
        ({"a": {"tset": np.ones(400), "test": np.ones(400)}}, "tset"),
    ],
)
def test_refused(given, message):
    with pytest.raises(ContractError, match=message):
        list_candidates(table(), given)


def test_values_that_training_hardly_has_end_nothing():
    """As of a model for adults that is tested on children: the association is unknown, and that is said."""
    age = {"train": ["adult", "old"] * 200, "test": ["child", "child", "infant", "adult"] * 100}
    found = list_candidates(table(), {"age": age})["age"]
    assert found.names == ("adult", "child", "infant", "old")
    assert not counts_of(table(), found).any()
    assert "only in train: 'old'; only in test: 'child', 'infant'" in found.remark
    same = list_candidates(table(), {"age": {**age, "test": ["child", "adult", "adult", "old"] * 100}})["age"]
    assert counts_of(table(), same).sum() == 400
    assert not same.remark


def test_the_data_set_of_a_candidate(key):
    dataset, rng = table(), np.random.default_rng(2)
    age = {
        name: np.where(
            rng.random(400) < 0.7, np.where(batch.label, "old", "young"), np.where(batch.label, "young", "old")
        )
        for name, batch in dataset.splits.items()
    }
    age["test"][:50] = ""
    listed = list_candidates(dataset, {"age": age})
    made = with_attribute(dataset, "age", listed["age"])
    check_dataset(made)
    assert made.attribute_names == ("old", "young")
    assert made.pairing == "matched"
    assert made.aligned.tolist() == [[False, True], [True, False]]
    assert (made.splits["test"].attribute[:50] == -1).all()
    for name, pairs in made.pairs.items():
        split = made.splits[name]
        row = {tuple(x): None for x in split.x}
        assert all(tuple(x) in row for x in pairs.x)
        assert len(pairs.twin) == len(pairs.x)
        assert made.aligned[pairs.label, pairs.attribute].all()
    assert with_attribute(dataset, "attribute", listed["attribute"]) is dataset


def test_without_samples_of_both_sides_there_are_no_pairs():
    dataset = table()
    one = {name: np.where(batch.label, "x", "y") for name, batch in dataset.splits.items()}
    made = with_attribute(dataset, "one", list_candidates(dataset, {"one": one})["one"])
    assert made.pairs == {}
    assert made.pairing == "none"


@pytest.mark.parametrize(
    "spelled",
    [
        lambda values: values.astype(float),
        lambda values: values.astype(bool),
        lambda values: [f"{value}.0" for value in values],
        lambda values: pd.Series(values, index=values.argsort(kind="stable")[::-1], dtype="Int64"),
        lambda values: pl.Series(values.astype(str)),
    ],
)
def test_values_are_the_same_in_every_split_however_spelled(spelled):
    dataset = table()
    values = {name: np.asarray(batch.attribute) for name, batch in dataset.splits.items()}
    plain = list_candidates(dataset, {"sex": values})["sex"]
    other = list_candidates(dataset, {"sex": {**values, "test": spelled(values["test"])}})["sex"]
    assert other.names == plain.names == ("0", "1")
    for name in values:
        np.testing.assert_array_equal(other.values[name], plain.values[name])
    np.testing.assert_array_equal(counts_of(dataset, other), counts_of(dataset, plain))


def test_a_missing_value_in_one_split_changes_no_other():
    dataset = table()
    values = {name: np.asarray(batch.attribute) for name, batch in dataset.splits.items()}
    with_gap = values["test"].astype(float)
    with_gap[:3] = np.nan
    found = list_candidates(dataset, {"sex": {**values, "test": with_gap}})["sex"]
    assert found.values["test"][:3].tolist() == [-1, -1, -1]
    np.testing.assert_array_equal(found.values["test"][3:], values["test"][3:])
    assert found.remark == ""
    text = list_candidates(
        dataset, {"sex": {"test": np.where(np.arange(400) < 3, "NA", ["x", "y", "z"] * 133 + ["x"])}}
    )["sex"]
    assert text.remark == "3 cells with 'NA' are unknown"


def test_without_training_counts_no_cell_is_aligned():
    dataset = table()
    values = {"test": np.where(dataset.splits["test"].label == 1, "x", "y")}
    listed = list_candidates(dataset, {"tone": values})["tone"]
    made = with_attribute(dataset, "tone", listed)
    assert not made.aligned.any()
    assert made.pairs == {}
    counts = np.array([[30, 10], [10, 30]])
    assert with_attribute(dataset, "tone", listed, counts).aligned.tolist() == [[True, False], [False, True]]


def test_a_cell_that_training_holds_as_often_as_by_chance_is_not_aligned():
    """Of three values one says nothing about the label: both of its cells have an association of exactly 0."""
    dataset = table(n=100)
    label = np.arange(100, dtype=np.int32) % 2
    value = np.where(np.arange(100) % 10 < 2, 2, np.where(np.arange(100) % 10 < 4, 1 - label, label))
    splits = {name: batch._replace(label=label) for name, batch in dataset.splits.items()}
    dataset = dataclasses.replace(dataset, splits=splits, pairs={})
    candidate = list_candidates(dataset, {"tone": {name: np.array(["a", "b", "c"])[value] for name in splits}})["tone"]
    assert counts_of(dataset, candidate).tolist() == [[30, 10, 10], [10, 30, 10]]
    made = with_attribute(dataset, "tone", candidate)
    assert made.aligned.tolist() == [[True, False, False], [False, True, False]]


def test_padding_is_in_no_count():
    dataset = table()
    train = dataset.splits["train"]._replace(weight=(np.arange(400) < 300).astype(np.float32))
    padded = dataclasses.replace(dataset, splits={**dataset.splits, "train": train})
    candidate = list_candidates(padded)["attribute"]
    expected = np.zeros((2, 2), int)
    np.add.at(expected, (train.label[:300], train.attribute[:300]), 1)
    np.testing.assert_array_equal(counts_of(padded, candidate), expected)
