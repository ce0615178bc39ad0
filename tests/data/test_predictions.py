"""Files of predictions: what they mean, whatever library wrote them."""

import csv

import numpy as np
import pandas as pd
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.data._predictions import read_predictions


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def table(n=60):
    rng = np.random.default_rng(0)
    label = np.arange(n) % 2
    return label, np.where(rng.random(n) < 0.8, label, 1 - label), np.array(["f", "m"])[rng.integers(0, 2, n)]


SPELLINGS = {
    "int and float": (lambda y: y, lambda p: f"{p}.0"),
    "float and int": (lambda y: f"{y}.0", lambda p: p),
    "bool and int": (bool, lambda p: p),
    "int and lower bool": (lambda y: y, lambda p: str(bool(p)).lower()),
    "blanks": (lambda y: f" {y}", lambda p: f"{p} "),
    "scientific": (lambda y: f"{y}e0", lambda p: p),
}


@pytest.mark.parametrize(("of_label", "of_predicted"), SPELLINGS.values(), ids=SPELLINGS)
def test_classes_are_matched_by_value(tmp_path, of_label, of_predicted):
    label, predicted, sex = table()
    rows = [(of_label(y), of_predicted(p), a) for y, p, a in zip(label, predicted, sex, strict=True)]
    read = read_predictions(write(tmp_path / "p.csv", ["label", "predicted", "sex"], rows))
    np.testing.assert_array_equal(read.label, label)
    np.testing.assert_array_equal(read.predicted, predicted)
    assert len(read.classes) == 2
    assert read.remarks == ()


@pytest.mark.parametrize("train", [pd.NA, None, np.nan])
def test_training_rows_without_prediction_as_pandas_writes_them(tmp_path, train):
    label, predicted, sex = table()
    frame = pd.DataFrame({"label": label, "predicted": predicted, "sex": sex, "split": ["train", "test", "test"] * 20})
    frame["predicted"] = frame["predicted"].where(frame["split"] == "test", train).astype("Float64")
    frame.to_csv(tmp_path / "p.csv", index=False)
    read = read_predictions(tmp_path / "p.csv")
    np.testing.assert_array_equal(read.predicted, np.where(read.train, -1, predicted))
    assert read.classes == ("0", "1")


@pytest.mark.parametrize(
    ("of_label", "of_predicted"),
    [
        (lambda y: ("no", "yes")[y], str),
        (str, lambda p: f"[{p}]"),
        (str, lambda p: f"class {p}"),
        (str, lambda p: p + 2),
    ],
)
def test_values_that_are_mostly_no_labels_are_refused(tmp_path, of_label, of_predicted):
    label, predicted, sex = table()
    rows = [(of_label(y), of_predicted(p), a) for y, p, a in zip(label, predicted, sex, strict=True)]
    with pytest.raises(
        ContractError, match=r"`p.csv`: expected predicted among the labels .* of 60 rows agree"
    ) as caught:
        read_predictions(write(tmp_path / "p.csv", ["label", "predicted", "sex"], rows))
    assert "\n" not in str(caught.value)


def test_a_prediction_that_is_no_label_is_said(tmp_path):
    rows = [("a", "a", "f"), ("b", "b", "m"), ("b", "c", "f")]
    read = read_predictions(write(tmp_path / "p.csv", ["label", "predicted", "sex"], rows))
    assert read.classes == ("a", "b", "c")
    assert read.remarks == ("Predicted, but the label of no row: 'c'.",)


def test_probabilities_in_predicted_are_taken_as_such(tmp_path):
    label, predicted, sex = table()
    score = np.where(predicted == 1, 0.7, 0.2)
    score[:2] = 0, 1  # saturated ones are probabilities, too
    names = ("cat", "dog")
    rows = [(names[y], p, a) for y, p, a in zip(label, score, sex, strict=True)]
    read = read_predictions(write(tmp_path / "p.csv", ["label", "predicted", "sex"], rows))
    np.testing.assert_array_equal(read.predicted, (score > 0.5).astype(int))
    np.testing.assert_allclose(read.probability, np.stack([1 - score, score], 1))
    assert read.remarks == ("predicted holds probabilities: they were read as those of class 'dog'.",)


@pytest.mark.parametrize("half", [False, True])
def test_mostly_saturated_probabilities_are_no_classes(tmp_path, half):
    rows = [("0", "0.0", "f"), ("1", "1.0", "m"), ("0", "0.0", "m"), ("1", "0.4" if half else "0", "f")]
    read = read_predictions(write(tmp_path / "p.csv", ["label", "predicted", "sex"], rows))
    assert (read.probability is not None) == half
    assert read.predicted.tolist() == [0, 1, 0, 0]
    assert read.classes == ("0", "1")


def test_a_column_of_probabilities_beside_the_classes(tmp_path):
    label, predicted, sex = table()
    score = np.where(predicted == 1, 0.7, 0.2)
    header = ["label", "predicted", "probability", "sex"]
    read = read_predictions(write(tmp_path / "p.csv", header, zip(label, predicted, score, sex, strict=True)))
    np.testing.assert_allclose(read.probability[:, 1], score)
    assert list(read.columns) == ["sex"]
    confidence = np.where(predicted == 1, 0.7, 0.8)  # of the predicted class: the same model
    read = read_predictions(write(tmp_path / "p.csv", header, zip(label, predicted, confidence, sex, strict=True)))
    np.testing.assert_allclose(read.probability[:, 1], score)
    assert "predicted class" in read.remarks[0]
    alone = ["label", "probability", "sex"]
    read = read_predictions(write(tmp_path / "p.csv", alone, zip(label, score, sex, strict=True)))
    np.testing.assert_array_equal(read.predicted, predicted)


def test_one_column_per_class(tmp_path):
    rows = [(0.5, 0.3, 0.2, "c", "f", ""), (0.1, 0.2, 0.7005, "a", "m", "test"), (0.2, 0.5, 0.3, "b", "f", "test")]
    rows = [(*row[:5], row[5] or "test") for row in rows] + [("", "", "", "a", "f", "train")]
    header = ["p_a", "p_b", "p_c", "label", "sex", "split"]
    read = read_predictions(write(tmp_path / "p.csv", header, rows))
    assert read.classes == ("a", "b", "c")
    assert read.predicted.tolist() == [0, 2, 1, -1]
    np.testing.assert_allclose(read.probability[:3].sum(1), 1)
    np.testing.assert_allclose(read.probability[1], np.array([0.1, 0.2, 0.7005]) / 1.0005)
    assert np.isnan(read.probability[3]).all()
    with pytest.raises(ContractError, match=r"row 3`: expected probabilities that sum to 1 \(within 0.001\), got 1.1"):
        read_predictions(write(tmp_path / "p.csv", header, [rows[0], (0.1, 0.2, 0.8, *rows[1][3:]), *rows[2:]]))
    with pytest.raises(ContractError, match=r"row 2`: expected a probability for p_a, got '-0\.5'"):
        read_predictions(write(tmp_path / "p.csv", header, [(-0.5, 0.3, 1.2, *rows[0][3:]), *rows[1:]]))
    numbers = [(0.5, 0.5, "1.0", "f"), (0.4, 0.6, "0.0", "m")]
    assert read_predictions(write(tmp_path / "p.csv", ["p_0", "p_1", "y", "sex"], numbers)).predicted.tolist() == [0, 1]


def test_what_is_no_attribute_is_left_out_by_name(tmp_path):
    label, predicted, sex = table(300)
    rng = np.random.default_rng(1)
    logit = np.where(predicted == 1, 1, -1) * (0.1 + rng.random(300))
    rows = zip(
        [f"{i}.png" for i in range(300)], range(300), logit, logit**2, label == predicted, rng.normal(size=300), label,
        predicted, sex, strict=True,
    )  # fmt: skip
    header = ["", "id", "z", "confidence", "correct", "age", "label", "predicted", "sex"]
    read = read_predictions(write(tmp_path / "p.csv", header, rows))
    assert list(read.columns) == ["age", "sex"]
    said = {text.split()[0]: text for text in read.remarks}
    assert "A column without a name was left out of the candidates: it is an identifier: 300 values" in said["A"]
    assert "an identifier: 300 values in 300 rows" in said["id"]
    assert "the model's own score" in said["z"]
    assert "a score of the model" in said["confidence"]
    assert "whether the prediction is right" in said["correct"]


def test_a_strong_shortcut_is_no_score(tmp_path):
    """A model that answers the background: its column of few values tells every prediction, and stays."""
    label, predicted, _ = table()
    rows = [(y, p, ("land", "water")[p], f"{p / 2}") for y, p in zip(label, predicted, strict=True)]
    read = read_predictions(write(tmp_path / "p.csv", ["label", "predicted", "place", "depth"], rows))
    assert list(read.columns) == ["place", "depth"]


def test_values_that_training_spells_otherwise(tmp_path):
    rows = [("a", "", "Male", 0, "train"), ("b", "", "Female", 1, "train")] * 2
    rows += [("a", "a", "male", "0.0", "test"), ("b", "b", "female", "1.0", "test")]
    read = read_predictions(write(tmp_path / "p.csv", ["label", "predicted", "sex", "site", "split"], rows))
    assert read.columns["site"].value.tolist() == [0, 1, 0, 1, 0, 1]
    assert read.columns["sex"].value[read.train].tolist() == [-1] * 4
    assert (read.columns["sex"].value[~read.train] >= 0).all()
    assert "only in train: 'Female', 'Male'; only in test: 'female', 'male'" in read.remarks[0]


@pytest.mark.parametrize("missing", ["nan", "NA", "?", "<NA>"])
def test_missing_text(tmp_path, missing):
    rows = [("a", "a", "f"), ("b", "b", "m"), ("b", "a", missing)]
    read = read_predictions(write(tmp_path / "p.csv", ["label", "predicted", "sex"], rows))
    assert read.columns["sex"].value.tolist() == [0, 1, -1]
    assert read.remarks == (f"sex: 1 cell with {missing!r} is unknown.",)
    with pytest.raises(ContractError, match="row 2`: expected a value for label, got "):
        read_predictions(write(tmp_path / "p.csv", ["label", "predicted", "sex"], [(missing, "a", "f"), *rows]))


def test_a_column_of_probabilities_by_name(tmp_path):
    rows = [(i % 2, i % 2, 0.2 + 0.5 * (i % 2), "fm"[i // 2 % 2]) for i in range(40)]
    path = write(tmp_path / "p.csv", ["label", "predicted", "risk", "sex"], rows)
    read = read_predictions(path, probability="risk")
    np.testing.assert_allclose(read.probability[:2], [[0.8, 0.2], [0.3, 0.7]])
    assert set(read.columns) == {"sex"}
    assert read_predictions(path).probability is None
    with pytest.raises(ContractError, match=r"`probability`: expected a column of p.csv, got 'chance'"):
        read_predictions(path, probability="chance")


def test_measurements_are_no_classes(tmp_path):
    rows = [(i / 7, i / 7, "fm"[i % 2]) for i in range(40)]
    with pytest.raises(ContractError, match="expected classes in label, got 40 different numbers"):
        read_predictions(write(tmp_path / "p.csv", ["label", "predicted", "sex"], rows))
