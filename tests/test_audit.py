"""The one call: five answers, each from what was given, and nothing where nothing was given."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from auditing.toys import SPLIT, linear, looking_at, table

import jaxdebias
from jaxdebias import audit
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch, Dataset, Split, take
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


def test_reliance_is_shown_by_twins_and_taken_out(report):
    verdict = report.verdict
    assert {one.attribute: one.state for one in verdict.reliance} == {"colour": "shown", "scanner": "cannot_tell"}
    assert verdict.reliance[0].evidence == "twins"
    assert verdict.advice.state == "reliance_repaired"
    assert verdict.advice.repair in ("dfr", "dfr_train", "fmd", "refit_head", "fine_tune_head")
    assert verdict.advice.held_out.low > 0.2
    assert verdict.advice.test.low > 0.2
    assert {one.attribute: one.cramers_v.low > 0 for one in verdict.association} == {"colour": True, "scanner": False}
    served, relied, where, because, what = report.answers
    assert "colour" in served.said
    assert "The model relies on colour" in relied.said
    assert "meant to be used?" in relied.said
    assert (where.said, bool(where.needs)) == ("", True)
    assert "do most for the dependence on the colour" in because.said
    assert "on the test set" in what.said
    assert str(report).startswith("The model relies on colour")
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
    assert report.results["verdict"]["advice"]["state"] == "reliance_repaired"
    assert not {"candidates", "advice", "fix"} & set(report.results)
    with pytest.raises(ContractError, match="a folder without results"):
        report.write(out)
    report.write(out, overwrite=True)
    assert "1. Does the model serve groups differently?" in str(report)


def test_a_sound_model_has_no_problem(tmp_path):
    ways = {"tolerance": 0.2, "split": SPLIT, "fix": True}
    report = jaxdebias.audit(linear, looking_at(4.0, 0.0), table(n=1600, noise=0.1), **ways)
    assert report.verdict.advice.state == "no_problem_found"
    assert report.record.edit is None
    assert "No problem found" in report.answers[4].said
    report.write(tmp_path / "out")
    assert not (tmp_path / "out" / "params.npz").exists()
    for name in ("results.json", "report.html", "report.md", "model_card.md"):
        assert "eave it" not in (tmp_path / "out" / name).read_text()


def test_predictions_alone_answer_three_questions():
    dataset = table(noise=0.1)
    classes = np.asarray(linear(looking_at(0.5, 2.0), dataset.splits["test"].x)).argmax(-1)
    report = jaxdebias.audit(None, None, dataset, predicted=classes)
    assert [(one.attribute, one.state) for one in report.verdict.reliance] == [("attribute", "consistent")]
    assert report.verdict.advice.state == "disparity_cause_not_shown"  # error rates given the label differ
    assert [bool(one.said) for one in report.answers] == [True, True, False, False, True]
    assert "before its last layer" in report.answers[3].needs
    assert "before its last layer" in report.answers[4].needs
    assert report.record.before.counterfactual_bias is None
    logits = np.asarray(linear(looking_at(0.5, 2.0), dataset.splits["test"].x))
    assigned = jaxdebias.audit(None, None, dataset, predicted=logits, drawn="assigned")
    assert [(one.state, one.drawn) for one in assigned.verdict.reliance] == [("shown_given", "assigned")]
    assert assigned.verdict.advice.state == "reliance_retrain"


def test_probabilities_beside_classes_are_used():
    dataset, rng = table(n=1200, noise=0.1), np.random.default_rng(0)
    test = dataset.splits["test"]
    q = np.clip(np.where(test.label == 1, 0.8, 0.2) + 0.15 * test.attribute + rng.uniform(-0.2, 0.2, 1200), 0, 1)
    predicted = (q > 0.6).astype(np.int32)  # another threshold than one half
    report = jaxdebias.audit(None, None, dataset, predicted=predicted, probabilities=np.stack([1 - q, q], 1))
    assert report.record.before.accuracy.value == pytest.approx((predicted == test.label).mean())
    assert "calibration_error" in {entry.measure for entry in report.verdict.disparity}


def test_what_is_asked_for_is_used():
    dataset = table(n=1200, noise=0.1)
    classes = np.asarray(linear(looking_at(0.5, 2.0), dataset.splits["test"].x)).argmax(-1)
    noise = {"test": np.random.default_rng(0).integers(0, 3, 1200)}
    ways = {"predicted": classes, "candidates": {"scanner": noise}}
    loose = jaxdebias.audit(None, None, dataset, tolerance=0.9, min_group=250, slices=1, **ways).verdict
    assert {entry.attribute for entry in loose.disparity} == {"attribute", "scanner"}
    assert "exceeds" not in {entry.state for entry in loose.disparity if entry.measure == "accuracy"}
    assert (loose.tolerance, loose.min_group) == (0.9, 250)
    rates = [entry for entry in loose.disparity if entry.measure == "true_positive_rate"]
    assert any(entry.left_out for entry in rates)
    counts = {"attribute": np.full((2, 2), 100)}
    even = jaxdebias.audit(None, None, dataset, train_counts=counts, **ways).verdict
    found = {one.attribute: one for one in even.association}
    assert (found["attribute"].n, found["attribute"].cramers_v.value, found["scanner"].cramers_v) == (400, 0.0, None)
    legitimate = {"colour": dataset.splits["test"].attribute.astype(float)}
    given = jaxdebias.audit(None, None, dataset, given=legitimate, drawn="assigned", **ways).verdict
    assert not any(one.evidence.startswith("given") for one in given.reliance)  # nothing is left beyond it
    with pytest.raises(ContractError, match="drawn"):
        jaxdebias.audit(None, None, dataset, drawn="by hand", **ways)


def test_without_training_rows_the_association_is_unknown_and_said_so():
    """A test split in which attribute and label are exactly independent has no aligned cell: that is no finding."""
    label, value = np.tile([0, 0, 1, 1], 50).astype(np.int32), np.tile([0, 1], 100)
    predicted = np.where(np.arange(200) % 7, label, value)
    test = Batch(x=np.zeros((200, 1), np.float32), label=label, attribute=np.full(200, -1, np.int32))
    dataset = dataclasses.replace(
        table(), splits={"test": test}, pairs={}, pairing="none", aligned=np.zeros((2, 2), bool)
    )
    report = jaxdebias.audit(None, None, dataset, predicted=predicted, candidates={"tone": {"test": value}})
    assert "only bias-aligned or only bias-conflicting" not in " ".join(report.record.findings)
    assert [(one.attribute, one.cramers_v, one.n) for one in report.verdict.association] == [("tone", None, 0)]
    assert "is unknown: no training counts" in report.answers[1].said
    assert not any(map(any, report.record.aligned))
    assert report.record.before.bias_aligned_accuracy is None
    assert report.record.before.bias_conflicting_accuracy is None
    given = {"test": value, "train": value}
    dataset = dataclasses.replace(dataset, splits={"test": test, "train": test._replace(x=test.x + 1)})
    report = jaxdebias.audit(None, None, dataset, predicted=predicted, candidates={"tone": given})
    assert report.verdict.association[0].n == 200


def test_a_function_alone_has_pairs_too():
    report = jaxdebias.audit(linear, looking_at(0.5, 2.0), table(noise=0.1))
    assert report.record.before.counterfactual_bias.value > 0.3
    assert report.verdict.reliance[0].evidence == "twins"
    assert report.verdict.advice.state == "reliance_retrain"


def test_without_any_attribute_nothing_is_claimed():
    report = jaxdebias.audit(linear, looking_at(0.5, 2.0), blind(table(noise=0.1)), split=SPLIT)
    assert report.verdict.reliance == report.verdict.disparity == ()
    assert report.verdict.advice.state == "not_enough_data"
    assert "no attribute" in report.answers[1].said
    assert "column" in report.answers[0].needs
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
    assert report.verdict.reliance[0].state in ("no_sign", "cannot_tell")
    assert report.record.inputs.model == "features and head"
    assert any("constant" in text for text in report.record.findings)


@pytest.mark.slow
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
    for key in ("before", "verdict", "harmful", "helpful", "findings"):
        assert other[key] == plain[key]
    predicted = np.asarray(dataset.splits["test"].attribute)
    plain = jaxdebias.audit(None, None, dataset, predicted=predicted, **ways).results
    other = jaxdebias.audit(None, None, padded, predicted=predicted[rows["test"]], **ways).results
    assert other["before"] == plain["before"]
    assert other["verdict"] == plain["verdict"]


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


def test_what_is_no_model_or_data_set_of_one_shape_is_one_line():
    dataset, logits = small_pictures(), lambda params, x: pictures_logits(x)
    with pytest.raises(ContractError, match=r"`model`: expected a function that returns logits .* a tuple"):
        audit(lambda params, x: (pictures_logits(x), 0), None, dataset, pixels="none")
    with pytest.raises(ContractError, match=r"`model`: .* a dict"):
        audit(lambda params, x: {"logits": pictures_logits(x)}, None, dataset, pixels="none")
    with pytest.raises(ContractError, match=r"`aligned`: expected bool .* got int64"):
        audit(logits, None, dataclasses.replace(dataset, aligned=np.eye(2, dtype=int)), pixels="none")
    train = dataset.splits["train"]
    splits = {"train": train._replace(x=train.x[:, :6]), "test": dataset.splits["test"]}
    with pytest.raises(ContractError, match=r"`splits\['test'\].x`: expected rows \[6, 8, 3\], as in train"):
        audit(logits, None, dataclasses.replace(dataset, splits=splits), pixels="none")


def test_a_model_without_a_hash_is_a_model():
    """As an Equinox module is one, or a dataclass."""

    @dataclasses.dataclass
    class Model:
        scale: float

        def __call__(self, params, x):
            return self.scale * pictures_logits(x)

    report = audit(Model(1.0), None, small_pictures(), pixels="none", discover=False)
    assert report.results["model"] == "Model"
    assert 0.0 <= report.results["before"]["accuracy"]["value"] <= 1.0


def small_pictures():
    rng = np.random.default_rng(0)
    label, attribute = rng.integers(0, 2, (2, 60)).astype(np.int32)
    batch = Batch(rng.integers(0, 255, (60, 8, 8, 3)).astype(np.uint8), label, attribute)
    return Dataset(
        name="toy",
        variant={"attribute": "sex"},
        splits={"train": batch, "test": batch},
        pairs={},
        label_names=("no", "yes"),
        attribute_names=("m", "f"),
        aligned=np.eye(2, dtype=bool),
        pairing="none",
    )


def pictures_logits(x):
    return jnp.stack([jnp.zeros(len(x)), x.reshape(len(x), -1).astype(jnp.float32).mean(1) - 127.0], 1)
