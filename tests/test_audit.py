"""The one call: five answers, each from what was given, and nothing where nothing was given."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from auditing.toys import SPLIT, linear, looking_at, table

import jaxdebias
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Split, take
from jaxdebias.results.codec import read_run

NOISE = {name: np.random.default_rng(3).integers(0, 2, 400) for name in ("train", "edit", "accept", "test")}


def blind(dataset):
    unknown = {
        name: batch._replace(attribute=np.full(len(batch.label), -1, np.int32))
        for name, batch in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=unknown, pairs={}, pairing="none")


@pytest.fixture(scope="module")
def report():
    return jaxdebias.audit(
        linear,
        looking_at(0.5, 2.0),
        table(noise=0.1),
        split=SPLIT,
        attribute="colour",
        candidates={"scanner": NOISE},
        fix=True,
    )


def test_the_shortcut_is_named_explained_and_taken_out(report):
    assert report.shortcuts == ["colour"]
    assert {one.name: one.verdict for one in report.record.candidates} == {
        "colour": "shortcut",
        "scanner": "none",
    }
    which, how, where, because, what = report.answers
    assert "Colour is one" in which.said
    assert "scanner" in which.said
    assert "goes with their label are right" in how.said
    assert (where.said, bool(where.needs)) == ("", True)
    assert "do most for the dependence on the colour" in because.said
    assert "verified on the test set" in what.said
    assert report.fix in ("dfr", "fmd")
    assert report.record.advice.verified.held
    assert report.record.changes["group_mean_accuracy"].low > 0.2
    test = table(noise=0.1).splits["test"]
    right = np.asarray(linear(report.params, test.x)).argmax(-1) == test.label
    assert right[test.attribute != test.label].mean() > 0.8


def test_the_report_is_written_whole(report, tmp_path):
    out = report.write(tmp_path / "out")
    assert sorted(file.name for file in out.iterdir()) == [
        "model_card.md",
        "params.npz",
        "report.html",
        "report.md",
        "results.json",
    ]
    record = read_run(out)
    assert record == report.record
    assert record.answers == report.answers
    assert json.loads((out / "results.json").read_text()) == report.results
    page = (out / "report.html").read_text()
    for one in report.answers:
        assert one.question in page
    with pytest.raises(ContractError, match="a folder without results"):
        report.write(out)
    report.write(out, overwrite=True)
    assert "1. Which attribute is a shortcut?" in str(report)


def test_a_sound_model_is_left_alone(tmp_path):
    report = jaxdebias.audit(linear, looking_at(4.0, 0.0), table(noise=0.1), split=SPLIT, fix=True)
    assert (report.shortcuts, report.fix) == ([], "leave it")
    assert report.record.edit is None
    assert "Leave it" in report.answers[4].said
    report.write(tmp_path / "out")
    assert not (tmp_path / "out" / "params.npz").exists()


def test_predictions_alone_answer_two_questions():
    dataset = table(noise=0.1)
    classes = np.asarray(linear(looking_at(0.5, 2.0), dataset.splits["test"].x)).argmax(-1)
    report = jaxdebias.audit(None, None, dataset, predicted=classes)
    assert report.shortcuts == ["attribute"]
    assert report.fix == "not tried"
    assert [bool(one.said) for one in report.answers] == [True, True, False, False, True]
    assert "before its last layer" in report.answers[3].needs
    assert report.record.before.counterfactual_bias is None


def test_without_training_rows_the_association_is_unknown_and_said_so():
    """A test split in which attribute and label are exactly independent has no aligned cell: that is no finding."""
    label, value = np.tile([0, 0, 1, 1], 50).astype(np.int32), np.tile([0, 1], 100)
    predicted = np.where(np.arange(200) % 7, label, value)
    test = Batch(x=np.zeros((200, 1), np.float32), label=label, attribute=np.full(200, -1, np.int32))
    dataset = dataclasses.replace(
        table(), splits={"test": test}, pairs={}, pairing="none", aligned=np.zeros((2, 2), bool)
    )
    report = jaxdebias.audit(None, None, dataset, predicted=predicted, candidates={"tone": {"test": value}})
    findings = " ".join(report.record.findings)
    assert "only bias-aligned or only bias-conflicting" not in findings
    assert "How tone and the label are associated in training is unknown" in findings
    given = {"test": value, "train": value}
    dataset = dataclasses.replace(dataset, splits={"test": test, "train": test._replace(x=test.x + 1)})
    report = jaxdebias.audit(None, None, dataset, predicted=predicted, candidates={"tone": given})
    assert "associated in training is unknown" not in " ".join(report.record.findings)


def test_a_function_alone_has_pairs_too():
    report = jaxdebias.audit(linear, looking_at(0.5, 2.0), table(noise=0.1))
    assert report.record.before.counterfactual_bias.value > 0.3
    assert report.fix == "not tried"


def test_without_any_attribute_nothing_is_claimed():
    report = jaxdebias.audit(linear, looking_at(0.5, 2.0), blind(table(noise=0.1)), split=SPLIT)
    assert report.shortcuts == []
    assert "No attribute was given" in report.answers[0].said
    assert "column" in report.answers[0].needs
    assert report.answers[1].said == ""
    assert report.record.before.accuracy.value > 0.4


def test_test_rows_in_training_are_a_leak():
    dataset = table(noise=0.1)
    test, train = dataset.splits["test"], dataset.splits["train"]
    both = Batch(
        *(None if one is None else np.concatenate([one, other[:7]]) for one, other in zip(train, test, strict=True))
    )
    leaky = dataclasses.replace(dataset, splits={**dataset.splits, "train": both})
    classes = test.label.copy()
    found = jaxdebias.audit(None, None, leaky, predicted=classes).record.findings
    assert any(text.startswith("Leakage: 7 samples of the split 'train'") for text in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"predicted": np.zeros(400, int)}, "a model with its params, or predicted, got both"),
        ({"pixels": "all"}, "pixels"),
        ({"pixels": "patches"}, "none for a table"),
        ({"candidates": {"x": {"test": np.zeros(3)}}}, r"\[n=400\]"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ContractError, match=message):
        jaxdebias.audit(linear, looking_at(0.5, 2.0), table(noise=0.1), **arguments)


def test_no_test_split_is_refused():
    dataset = table()
    bare = dataclasses.replace(dataset, splits={"train": dataset.splits["train"]}, pairs={})
    with pytest.raises(ContractError, match="a split named test, got train"):
        jaxdebias.audit(linear, looking_at(0.5, 2.0), bare)


def test_a_classifier_brings_what_looks_inside(key):
    """One of our networks, untrained: every stage runs, and nothing is found."""
    dataset = table(noise=0.1)
    classifier = jaxdebias.models.mlp(hidden=(4,), classes=2)
    params = classifier.init(key, dataset.splits["train"].x[:2])
    report = jaxdebias.audit(classifier, jax.tree.map(lambda leaf: leaf * 0, params), dataset)
    assert report.shortcuts == []
    assert report.record.inputs.model == "features and head"
    assert any("constant" in text for text in report.record.findings)


def test_padding_counts_in_no_number():
    dataset = table(noise=0.1)
    rows = {name: np.r_[np.arange(400), np.full(112, 399)] for name in dataset.splits}
    weight = np.r_[np.ones(400), np.zeros(112)].astype(np.float32)
    padded = dataclasses.replace(
        dataset,
        splits={name: take(batch, rows[name])._replace(weight=weight) for name, batch in dataset.splits.items()},
        pairs={name: take(batch, rows[name])._replace(weight=weight) for name, batch in dataset.pairs.items()},
    )
    noise = {name: values[rows[name]] for name, values in NOISE.items()}
    ways = {"pixels": "none", "discover": False}
    args = linear, looking_at(0.5, 2.0)
    plain = jaxdebias.audit(*args, dataset, split=SPLIT, candidates={"scanner": NOISE}, **ways).results
    other = jaxdebias.audit(*args, padded, split=SPLIT, candidates={"scanner": noise}, **ways).results
    for key in ("before", "candidates", "harmful", "helpful", "findings"):
        assert other[key] == plain[key]
    predicted = np.asarray(dataset.splits["test"].attribute)
    plain = jaxdebias.audit(None, None, dataset, predicted=predicted, **ways).results
    other = jaxdebias.audit(None, None, padded, predicted=predicted[rows["test"]], **ways).results
    assert other["before"] == plain["before"]
    assert other["candidates"] == plain["candidates"]


def test_a_model_that_puts_out_probabilities_has_the_same_bias():
    dataset, params = table(noise=0.1), looking_at(0.5, 2.0)
    ways = {"pixels": "none", "discover": False}
    softmax = lambda params, x: jax.nn.softmax(linear(params, x))  # noqa: E731
    plain = jaxdebias.audit(linear, params, dataset, **ways).results
    other = jaxdebias.audit(softmax, params, dataset, **ways).results
    bias = [one["before"]["counterfactual_bias"]["value"] for one in (plain, other)]
    assert bias[1] == pytest.approx(bias[0], abs=1e-5)
    said = "The model puts out probabilities, not logits: their logarithms were taken as logits."
    assert (said in plain["findings"], said in other["findings"]) == (False, True)
    outputs = softmax(params, dataset.splits["test"].x)
    assert said in jaxdebias.audit(None, None, dataset, predicted=outputs, **ways).results["findings"]
    cut = Split(SPLIT.features, softmax)
    with pytest.raises(ContractError, match="`model`: expected logits, got probabilities"):
        jaxdebias.audit(softmax, params, dataset, split=cut, **ways)


def test_a_split_of_another_model_is_refused():
    other = Split(SPLIT.features, lambda params, z: linear(params, z) + z[:, :1])
    with pytest.raises(ContractError, match="`split`: expected the model cut in two"):
        jaxdebias.audit(linear, looking_at(0.5, 2.0), table(), split=other, pixels="none", discover=False)


def test_how_values_were_understood_is_a_finding():
    text = {name: np.where(values == 0, "a", "NA") for name, values in NOISE.items()}
    text["test"][::3] = "b"
    text["train"][::3] = "b"
    ways = {"pixels": "none", "discover": False}
    report = jaxdebias.audit(linear, looking_at(0.5, 2.0), table(), candidates={"scanner": text}, **ways)
    assert any("scanner: " in said and "cells with 'NA' are unknown." in said for said in report.record.findings)
