"""Candidate attributes: what is read of them, and the data set that one of them makes."""

import dataclasses

import numpy as np
import pytest
from auditing.toys import linear, looking_at, table

from jaxdebias.auditing.candidates import assess_candidates, counts_of, list_candidates, own_name, with_attribute
from jaxdebias.contracts import ContractError, check_dataset


def sizes(dataset):
    return {name: len(batch.label) for name, batch in dataset.splits.items()}


def test_the_own_attribute_comes_first_and_others_are_numbered():
    dataset = table()
    text = {name: np.where(np.arange(n) % 2, "b", "a") for name, n in sizes(dataset).items()}
    number = {"test": [-1, *(0.5 * i for i in range(399))]}  # 0, 1, 2, ... would be row numbers
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
        ({"a": {"tset": np.ones(400), "test": np.ones(400)}}, "tset"),
    ],
)
def test_refused(given, message):
    with pytest.raises(ContractError, match=message):
        list_candidates(table(), given)


def test_a_decoy_is_told_from_the_shortcut(key):
    dataset, rng = table(), np.random.default_rng(1)
    near = {
        name: np.where(rng.random(400) < 0.8, batch.attribute, 1 - batch.attribute)
        for name, batch in dataset.splits.items()
    }
    noise = {name: rng.integers(0, 2, 400) for name in dataset.splits}
    logits = linear(looking_at(0.0, 10.0), dataset.splits["test"].x)
    found = assess_candidates(key, logits, dataset, list_candidates(dataset, {"near": near, "noise": noise}))
    assert [(one.name, one.verdict) for one in found] == [
        ("attribute", "shortcut"),
        ("near", "explained"),
        ("noise", "none"),
    ]
    assert found[0].gap.value == 1.0


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
