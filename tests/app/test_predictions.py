import csv
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from jaxdebias.app.predictions import audit_predictions
from jaxdebias.app.questions import QuestionOptions
from jaxdebias.contracts import ContractError
from jaxdebias.data._predictions import read_predictions
from jaxdebias.results.codec import read_results


def write(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def birds(path, n=600, follows=0.5):
    """Land and water birds by a model that follows the background; the weather goes with nothing."""
    rng = np.random.default_rng(0)
    names, places = ("landbird", "waterbird"), ("land", "water")
    rows = []
    for i in range(3 * n):
        train, y = i >= n, int(rng.random() < 0.5)
        place = (y if rng.random() < 0.9 else 1 - y) if train else int(rng.random() < 0.5)
        predicted = place if rng.random() < follows else y if rng.random() < 0.9 else 1 - y
        rows.append(
            [
                names[y],
                "" if train else names[predicted],
                "train" if train else "test",
                places[place],
                "" if rng.random() < 0.1 else ("sun", "rain")[rng.integers(2)],
                f"{rng.normal():.3f}",
            ]
        )
    return write(path, ["y", "prediction", "split", "background", "weather", "weight"], rows)


def test_the_finding_is_named_and_the_page_written(tmp_path):
    out = tmp_path / "out"
    results = audit_predictions(birds(tmp_path / "birds.csv"), out)
    assert read_results(out) == results
    found = {one.attribute: one for one in results.verdict.reliance}
    assert next(iter(found)) == "background"
    assert {name: one.state for name, one in found.items()} == {
        "background": "consistent",  # how the test rows came about is not known
        "weather": "no_sign",
        "weight": "no_sign",
    }
    assert results.attribute == "background"
    lean = found["background"].lean
    assert lean.low < 0.5 < lean.high
    assert results.before.bias_aligned_accuracy.value > results.before.bias_conflicting_accuracy.value
    assert results.verdict.advice.state == "disparity_cause_not_shown"
    assert results.verdict.association[0].cramers_v.value == pytest.approx(0.8, abs=0.08)
    page = (out / "report.html").read_text()
    assert "What can be concluded" in page
    assert [one.said == "" for one in results.answers] == [False, False, True, True, False]
    assert (out / "report.md").is_file()
    assert "background" in (out / "model_card.md").read_text()
    assert audit_predictions(tmp_path / "birds.csv", out) == results
    with pytest.raises(ContractError, match=r"a folder without results.*made with seed=0, not 1"):
        audit_predictions(tmp_path / "birds.csv", out, seed=1)


def test_options_are_arguments_of_the_audit(tmp_path):
    path = birds(tmp_path / "birds.csv")
    asked = QuestionOptions(tolerance=0.7, min_group=20, slices=1, drawn="assigned", given=("weight",))
    verdict = audit_predictions(path, tmp_path / "out", asked).verdict
    assert (verdict.tolerance, verdict.min_group) == (0.7, 20)
    assert {one.attribute for one in verdict.reliance} == {"background", "weather"}  # a given column is no candidate
    assert verdict.reliance[0].state == "shown_given"
    assert {one.attribute for one in verdict.disparity} == {"background", "weather"}  # no pairs
    with pytest.raises(ContractError, match=r"made with .*tolerance"):
        audit_predictions(path, tmp_path / "out")
    with pytest.raises(ContractError, match=r"`given`: expected another column of birds\.csv, got 'wieght'"):
        audit_predictions(path, tmp_path / "other", QuestionOptions(given=("wieght",)))


def test_training_counts_from_a_file(tmp_path):
    path = birds(tmp_path / "birds.csv")
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    write(tmp_path / "test.csv", header[:2] + header[3:], [row[:2] + row[3:] for row in rows if row[2] == "test"])
    cells = Counter((row[3], row[0]) for row in rows if row[2] == "train")
    counts = write(
        tmp_path / "counts.csv", ["attribute", "value", "label", "count"],
        [["background", value, label, n] for (value, label), n in cells.items()],
    )  # fmt: skip
    both = audit_predictions(path, tmp_path / "both").verdict
    verdict = audit_predictions(tmp_path / "test.csv", tmp_path / "out", train_counts=counts).verdict
    assert verdict.association[0] == both.association[0]
    assert [one.cramers_v for one in verdict.association[1:]] == [None, None]
    assert verdict.reliance[0].state == "consistent"
    alone = audit_predictions(tmp_path / "test.csv", tmp_path / "alone").verdict
    assert {one.cramers_v for one in alone.association} == {None}
    assert {one.state for one in alone.reliance} == {"cannot_tell"}


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        (["attribute", "value", "count"], [["sex", "f", "3"]], "columns attribute, value, label, count"),
        (None, [["sax", "f", "a", "3"]], "line 2`: expected one of sex, got 'sax'"),
        (None, [["sex", "x", "a", "3"]], "value among f, m, got 'x'"),
        (None, [["sex", "f", "z", "3"]], "label among a, b, got 'z'"),
        (None, [["sex", "f", "a", "-3"]], "a whole number of at least 0, got '-3'"),
        (None, [["sex", "f", "a", "0"]], "a count above 0 for each attribute, got only 0 for sex"),
    ],
)
def test_bad_training_counts_are_one_line(tmp_path, header, rows, said):
    path = write(tmp_path / "p.csv", ["label", "predicted", "sex"], [["a", "a", "f"], ["b", "b", "m"]] * 3)
    counts = write(tmp_path / "c.csv", header or ["attribute", "value", "label", "count"], rows)
    with pytest.raises(ContractError, match=re.escape(said) if "(" in said else said):
        audit_predictions(path, tmp_path / "out", train_counts=counts)


def test_probabilities_are_used(tmp_path):
    """Three classes in columns that were rounded to two digits."""
    rng = np.random.default_rng(0)
    label, sex = rng.integers(0, 3, 900), rng.integers(0, 2, 900)
    q = rng.dirichlet(np.ones(3), 900) * 0.5 + 0.5 * np.eye(3)[label]
    rows = [["abc"[y], "abc"[p.argmax()], *p.round(4), "fm"[a]] for y, p, a in zip(label, q, sex, strict=True)]
    path = write(tmp_path / "p.csv", ["label", "predicted", "p_a", "p_b", "p_c", "sex"], rows)
    verdict = audit_predictions(path, tmp_path / "out").verdict
    assert {entry.measure for entry in verdict.disparity} == {
        "accuracy", "recall_of_class", "positive_rate", "calibration_error"
    }  # fmt: skip


def test_what_is_not_known_of_training_is_said_nowhere(tmp_path):
    """A file without a split column holds test rows alone: no aligned cell, no gap between aligned and conflicting."""
    rng = np.random.default_rng(0)
    rows = [[y := int(rng.integers(2)), y if rng.random() < 0.8 else 1 - y, "fm"[rng.integers(2)]] for _ in range(200)]
    write(tmp_path / "p.csv", ["label", "predicted", "sex"], rows)
    results = audit_predictions(tmp_path / "p.csv", tmp_path / "out")
    assert not any(map(any, results.aligned))
    assert results.before.bias_aligned_accuracy is None
    assert results.verdict.association[0].cramers_v is None
    page, card, table = (
        (tmp_path / "out" / name).read_text() for name in ("report.html", "model_card.md", "report.md")
    )
    for words in ("The training data", "In  of them", "0 samples", "in training,"):
        assert words not in page
    for text in (page, card, table):
        assert "Whether label and sex are associated in training is unknown" in text
        assert "Bias-aligned accuracy" not in text
        assert "Bias-conflicting accuracy" not in text
    rows = [["test", *row] for row in rows] + [["train", *row] for row in rows]
    write(tmp_path / "both.csv", ["split", "label", "predicted", "sex"], rows)
    results = audit_predictions(tmp_path / "both.csv", tmp_path / "both")
    assert results.verdict.association[0].n == 200
    assert "The training data" in (tmp_path / "both" / "report.html").read_text()


def test_a_model_without_a_problem(tmp_path):
    asked = QuestionOptions(slices=1)
    results = audit_predictions(birds(tmp_path / "birds.csv", n=9000, follows=0.0), tmp_path / "out", asked)
    assert {one.state for one in results.verdict.reliance} == {"no_sign"}
    assert results.verdict.advice.state == "no_problem_found"
    assert results.verdict.headline in (tmp_path / "out" / "report.html").read_text().replace("\u202f%", " %").replace(
        "\u00a0points", " points"
    )


def test_what_is_read(tmp_path):
    path = write(
        tmp_path / "p.csv",
        ["label", "predicted", "sex", "only", "note"],
        [["10", "2", "f", "x", ""], ["2", "2", "", "x", "<b>"], ["10", "10", "m", "x", "a"]],
    )
    read = read_predictions(path)
    assert read.classes == ("2", "10")  # numbers in their order
    assert read.label.tolist() == [1, 0, 1]
    assert read.predicted.tolist() == [0, 0, 1]
    assert not read.train.any()
    assert set(read.columns) == {"sex", "note"}  # a column of one value is no candidate
    assert read.columns["sex"].value.tolist() == [0, -1, 1]
    assert read.columns["note"].names == ("<b>", "a")


def test_names_cannot_smuggle_html_into_the_page(tmp_path):
    labels = ("<b>a</b>", "c", "c", "<b>a</b>") * 20
    rows = [[y, y, ("<script>alert(1)</script>", "no")[i % 2]] for i, y in enumerate(labels)]
    audit_predictions(write(tmp_path / "<i>.csv", ["label", "predicted", "<u>note</u>"], rows), tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    for evil in ("<script>alert", "<b>a", "<u>note", "<i>"):
        assert evil not in page


def test_how_the_file_was_understood_is_among_the_findings(tmp_path):
    rng = np.random.default_rng(0)
    label, sex = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    score = np.clip(0.5 * sex + 0.25 + rng.uniform(-0.2, 0.2, 400), 0, 1).round(3)  # follows sex
    rows = [(f"{y}.0", p, bool(a), f"{i}.png") for i, (y, p, a) in enumerate(zip(label, score, sex, strict=True))]
    results = audit_predictions(
        write(tmp_path / "p.csv", ["label", "predicted", "sex", "file"], rows), tmp_path / "out"
    )
    assert results.before.accuracy.value == pytest.approx((label == sex).mean(), abs=1e-6)
    assert [one.attribute for one in results.verdict.reliance] == ["sex"]
    said = " ".join(results.findings)
    assert "predicted holds probabilities: they were read as those of class '1'." in said
    assert "file was left out of the candidates: it is an identifier: 400 values in 400 rows." in said


def test_one_table_one_verdict_whatever_its_spelling(tmp_path):
    path = birds(tmp_path / "birds.csv", n=200)
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    of = {"landbird": "0", "waterbird": "1", "": ""}
    plain = [[of[y], of[p], *rest] for y, p, *rest in rows]
    floats = [[f"{y}.0", p and f"{p}.0", *rest] for y, p, *rest in plain]
    mixed = [[bool(int(y)), p and f"{p}.0", *rest] for y, p, *rest in plain]
    found = []
    for number, table in enumerate((plain, floats, mixed)):
        results = audit_predictions(write(tmp_path / "p.csv", header, table), tmp_path / str(number))
        found.append((results.verdict, results.before.accuracy, results.label_names))
    assert found[0] == found[1] == found[2]


def test_the_first_line_on_a_table_of_pandas(tmp_path):
    """Labels as floats, integers that may be missing, missing text, the index: the gap is that of the frame."""
    rng = np.random.default_rng(0)
    label, sex = rng.integers(0, 2, 600), rng.choice(["f", "m"], 600)
    predicted = np.where(rng.random(600) < np.where(sex == "f", 0.7, 0.95), label, 1 - label)
    frame = pd.DataFrame({"label": label.astype(float), "predicted": predicted, "sex": sex})
    frame["site"] = pd.array(rng.integers(0, 3, 600), dtype="Int64")
    frame.loc[frame.index[::10], ["sex", "site"]] = pd.NA
    frame.to_csv(tmp_path / "p.csv")
    results = audit_predictions(tmp_path / "p.csv", tmp_path / "out")
    rate = (frame["label"] == frame["predicted"]).groupby(frame["sex"]).agg(["mean", "size"])
    (low, n_low), (high, n_high) = rate.loc["f"], rate.loc["m"]
    expected = f"Accuracy differs by sex: {100 * low:.1f} % for f (n = {n_low:.0f}), {100 * high:.1f} % for m"
    assert results.verdict.headline.startswith(
        f"{expected} (n = {n_high:.0f}), a gap of {100 * (high - low):.1f} points"
    )
    assert results.attribute_names == ("f", "m")
    assert {entry.attribute for entry in results.verdict.disparity} == {"sex", "site", "sex x site"}
    assert "A column without a name was left out" in " ".join(results.findings)


GOOD = ["label", "predicted", "split", "sex"]


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        (["label", "sex"], [["a", "f"]], "`p.csv`: expected a column predicted or prediction, got label, sex"),
        (GOOD, [], "`p.csv`: expected at least one row"),
        (GOOD, [["a", "b", "val", "f"]], "`p.csv row 2`: expected split train or test, got 'val'"),
        (GOOD, [["a", "b", "train", "f"]], "`p.csv`: expected at least one row of split test"),
        (GOOD, [["a", "b", "test", "f"], ["a", "", "test", "m"]], "`p.csv row 3`: expected a value for predicted"),
        (GOOD, [["a", "a", "test", "f"]], "`p.csv`: expected at least two classes, got a"),
        (GOOD, [["a", "b", "test", "f"]], "`p.csv`: expected predicted among the labels 'a', got 'b'"),
        (GOOD, [["a", "a", "test", "f"], ["b", "b", "test", "f"]], "`p.csv`: expected at least one more column"),
        (["label", "label"], [["a", "b"]], "`p.csv`: expected columns with different names"),
        (
            GOOD,
            [["a", "a", "test", ""], ["b", "b", "test", ""], ["a", "", "train", "f"], ["a", "", "train", "m"]],
            "`p.csv`: expected a candidate with known values in the test rows",
        ),
    ],
)
def test_bad_files_are_one_line(tmp_path, header, rows, said):
    with pytest.raises(ContractError, match=said):
        audit_predictions(write(tmp_path / "p.csv", header, rows), tmp_path / "out")
