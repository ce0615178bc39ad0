"""A gender classifier trained on adults alone, on real faces: the audit names the children and accuses nothing."""

import csv
import functools

import jax
import numpy as np
import pytest

import jaxdebias
from jaxdebias.app.predictions import audit_predictions
from jaxdebias.batching import predict_rows
from jaxdebias.core import Batch, Dataset
from jaxdebias.data._sets.utkface import read_faces, read_images, utkface_folder
from jaxdebias.mitigate import erm
from jaxdebias.report import answers
from jaxdebias.train import FitConfig, Optimizer, fit

EDGES, AGES = np.array([3, 10, 18, 60]), ("0-2", "3-9", "10-17", "18-59", "60 and over")
SIZE = 24


@pytest.fixture
def deployed(data_dir):
    return trained_on_adults(data_dir)


@functools.cache
def trained_on_adults(data_dir):
    """(classifier, its parameters, data set without attribute, split -> ages)."""
    folder = utkface_folder(data_dir)
    faces = read_faces(folder)
    age = np.digitize(faces.age, EDGES)
    order = np.random.default_rng(0).permutation(len(age))
    adults = order[age[order] == 3]
    rows = {"train": adults[:1500]}
    others = np.setdiff1d(order, rows["train"])
    others = np.random.default_rng(1).permutation(others)
    rows |= {"edit": others[:600], "accept": others[600:1000], "test": others[1000:]}
    x, label = read_images(folder, SIZE), faces.gender.astype(np.int32)
    unknown = {name: np.full(len(of), -1, np.int32) for name, of in rows.items()}
    dataset = Dataset(
        name="faces",
        variant={},
        splits={name: Batch(x[of], label[of], unknown[name]) for name, of in rows.items()},
        pairs={},
        label_names=("male", "female"),
        attribute_names=("unknown",),
        aligned=np.zeros((2, 1), bool),
        pairing="none",
    )
    classifier = jaxdebias.models.mlp(hidden=(64,), classes=2)
    learner = erm(classifier, optimizer=Optimizer(learning_rate=1e-3))
    trained = fit(jax.random.key(0), learner, dataset.splits["train"], FitConfig(epochs=20, batch_size=64))
    ages = {name: [AGES[value] for value in age[of]] for name, of in rows.items()}
    return classifier, trained.state.variables, dataset, ages


def accuracy_by_age(deployed):
    classifier, params, dataset, ages = deployed
    test = dataset.splits["test"]
    right = np.asarray(predict_rows(classifier.apply, params, test.x)).argmax(-1) == test.label
    return {name: right[np.array(ages["test"]) == name].mean() for name in AGES}


def check_verdict(record, accuracy):
    """Children are named, the first line is true, and nothing is claimed about reliance on age."""
    verdict = record.verdict
    assert verdict.advice.state in ("disparity_cause_not_shown", "disparity_repaired")
    assert all(one.state not in ("shown", "shown_given") for one in verdict.reliance)
    by_accuracy = next(one for one in verdict.disparity if (one.attribute, one.measure) == ("age", "accuracy"))
    assert by_accuracy.state == "exceeds"
    assert by_accuracy.lowest.name in AGES[:3]
    assert by_accuracy.lowest.value == pytest.approx(accuracy[by_accuracy.lowest.name])
    assert by_accuracy.highest.value == pytest.approx(accuracy[by_accuracy.highest.name])
    first = answers.text(record).splitlines()[0]
    assert first == verdict.headline
    worst = verdict.disparity[0]
    for group in (worst.lowest, worst.highest):
        assert f"{100 * group.value:.1f} % for {group.name} (n = {group.n:,})" in first
    assert "the cause is not shown" in first
    page_words = " ".join([*(one.said for one in record.answers), *record.findings])
    for word in ("relies on", "follows", "eave it"):
        assert word not in page_words


@pytest.mark.slow
@pytest.mark.realdata
def test_the_audit_of_the_model_names_the_children(deployed):
    classifier, params, dataset, ages = deployed
    ways = {"candidates": {"age": ages}, "items": "faces", "pixels": "none", "discover": False, "fix": True}
    report = jaxdebias.audit(classifier.apply, params, dataset, split=classifier.vector, **ways)
    check_verdict(report.record, accuracy_by_age(deployed))
    assert report.record.verdict.advice.repair is not None  # something was tried


@pytest.mark.slow
@pytest.mark.realdata
def test_the_audit_of_its_predictions_says_the_same(deployed, tmp_path):
    classifier, params, dataset, ages = deployed
    path, names = tmp_path / "predictions.csv", dataset.label_names
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["split", "label", "predicted", "p_male", "p_female", "age"])
        for split in ("train", "test"):
            batch = dataset.splits[split]
            p = np.asarray(jax.nn.softmax(predict_rows(classifier.apply, params, batch.x), -1))
            for label, q, age in zip(batch.label, p, ages[split], strict=True):
                rows.writerow([split, names[label], names[q.argmax()], f"{q[0]:.6f}", f"{q[1]:.6f}", age])
    record = audit_predictions(path, tmp_path / "out")
    check_verdict(record, accuracy_by_age(deployed))
    assert record.verdict.advice.state == "disparity_cause_not_shown"  # nothing can be tried on predictions
