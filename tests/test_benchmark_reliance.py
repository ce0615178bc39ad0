"""The simulation of reliance: families hold what they promise, a small part runs, margins find what is wrong."""

import importlib
import json
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def power(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "reproduce"))
    return importlib.import_module("audit_power")


@pytest.fixture
def families(power):
    return importlib.import_module("audit_families")


def columns(table):
    of = table.arguments
    return of["predicted"], of["label"], of["values"], of["probabilities"]


def test_families_are_those_that_were_asked_for(power, families):
    assert sum(family.kind == "clean" for family in families.FAMILIES.values()) >= 7
    plan = {
        name: sum(power.sets_of(name, number, 1.0) for number in range(len(family.designs)))
        for name, family in families.FAMILIES.items()
    }
    kinds = {name: family.kind for name, family in families.FAMILIES.items()}
    assert sum(sets for name, sets in plan.items() if kinds[name] == "clean") >= 2000
    assert sum(sets for name, sets in plan.items() if kinds[name] == "reliance") >= 1000
    asked = {(d["gap"], d["n"], d["drawn"], d["scores"]) for d in families.FAMILIES["balanced labels"].designs}
    assert asked == {
        (gap, n, drawn, scores)
        for gap in (0.07, 0.14)
        for n in (500, 2000)
        for drawn in ("assigned", "as_they_come")
        for scores in (True, False)
    }
    for family in families.FAMILIES.values():
        assert len({json.dumps(design) for design in family.designs}) == len(family.designs)


def test_a_balanced_model_has_the_accuracy_and_the_gap(families):
    made = families.balanced_reliance(np.random.default_rng(0), n=200_000, gap=0.14, drawn="assigned", scores=True)
    predicted, label, values, q = columns(made)
    right, same = predicted == label, values["used"] == label
    assert right.mean() == pytest.approx(0.9, abs=0.003)
    assert right[same].mean() - right[~same].mean() == pytest.approx(0.14, abs=0.005)
    np.testing.assert_array_equal(q.argmax(1), predicted)


def test_base_rates_differ_and_scores_are_calibrated(families):
    made = families.base_rates(
        np.random.default_rng(1), n=200_000, shift=1.0, classes=3, drawn="as_they_come", scores=True
    )
    predicted, label, values, q = columns(made)
    rates = [np.mean(label[values["group"] == v] == v) for v in range(3)]
    assert min(rates) > 0.45
    for group in range(3):  # within groups, too: the value says nothing beyond x
        sure = (values["group"] == group) & (q.max(1) > 0.8)
        assert np.mean((predicted == label)[sure]) == pytest.approx(q.max(1)[sure].mean(), abs=0.01)


@pytest.mark.parametrize("drawn", ["picked", "unknown"])
def test_picked_rows_are_balanced(families, drawn):
    made = families.base_rates(np.random.default_rng(2), n=800, shift=0.5, classes=2, drawn=drawn, scores=True)
    _, label, values, _ = columns(made)
    cells = np.bincount(2 * label + values["group"], minlength=4)
    assert (np.ptp(cells) == 0) == (drawn == "picked")
    assert cells.sum() == 800


def test_labels_are_wrong_in_the_directions_that_are_said(families):
    made = families.one_way(
        np.random.default_rng(3), n=100_000, noise=0.3, told=True, drawn="as_they_come", scores=True
    )
    _, label, values, _ = columns(made)
    of_one = [np.mean(label[values["group"] == v]) for v in (0, 1)]
    assert of_one == [pytest.approx(0.5, abs=0.01), pytest.approx(0.35, abs=0.01)]
    assert made.arguments["wrong_labels"] is True
    made = families.noisy_group(
        np.random.default_rng(4), n=100_000, noise=0.3, share=0.7, drawn="assigned", scores=True
    )
    predicted, label, values, _ = columns(made)
    wrong = [np.mean((predicted != label)[values["group"] == v]) for v in (0, 1)]
    assert wrong[1] - wrong[0] == pytest.approx(0.26, abs=0.03)


def test_few_mistakes_are_as_many_as_said(families):
    made = families.few_mistakes(
        np.random.default_rng(5), n=400, mistakes=5, candidates=20, drawn="as_they_come", scores=True
    )
    predicted, label, values, q = columns(made)
    assert (predicted != label).sum() == 5
    assert len(values) == 20
    np.testing.assert_array_equal(q.argmax(1), predicted)
    np.testing.assert_allclose(q.sum(1), 1.0)


def test_twins_differ_in_the_value_and_the_control_does_not(families):
    made = families.twins(np.random.default_rng(6), n=5000, strength=1.0)
    before, after, control, toward = made.twins["used"]
    np.testing.assert_array_equal(before, made.arguments["predicted"])
    assert (toward != made.arguments["values"]["used"]).all()
    assert np.mean(after == toward) > np.mean(control == toward) + 0.05


def test_columns_given_explain_clean_sets_only(families):
    for strength in (0.0, 1.0):
        made = families.columns_given(
            np.random.default_rng(7), n=100_000, curved=True, beyond=1.0, strength=strength, scores=True
        )
        q, of = made.arguments["probabilities"][:, 1], made.arguments
        odds = 2 * (of["given"]["x"] ** 2 - 1) + of["given"]["z"] + strength * (2 * of["values"]["used"] - 1)
        np.testing.assert_allclose(q, 1 / (1 + np.exp(-odds)), rtol=1e-9)


def test_margins_and_shares(power):
    base = {"designs": 1, "leans": 0, "seconds": 1.0, **dict.fromkeys(power.STATES, 0)}
    clean = {"family": "base rates", "kind": "clean", "design": {}, "sets": 1000, "false": 10, "used": 0, **base}
    design = {"gap": 0.07, "n": 500, "drawn": "as_they_come", "scores": True}
    found = {"family": "balanced labels", "kind": "reliance", "design": design, "sets": 200, "false": 0, **base}
    apart = clean | {"family": "one-way wrong labels", "kind": "apart", "false": 900}

    def met(*rows):
        return [one["met"] for one in power.margins(power.summary(rows))]

    assert met(clean, found | {"used": 80}, apart) == [True, True, True, True]
    assert met(clean | {"false": 30}, found | {"used": 80}) == [False, True, True, True]
    assert met(clean | {"false": 100}, found | {"used": 60}) == [False, False, True, False]
    pooled = power.summary([clean, clean | {"family": "other", "false": 0}, apart])["pooled"]
    assert (pooled["value"], pooled["n"]) == (0.005, 2000)


def test_run_resumes_and_is_shown(power, tmp_path, monkeypatch, tables):
    assert tables.audit_power() == "Not measured yet."
    out = tmp_path / "audit_power.json"
    arguments = ["audit_power.py", "--out", str(out), "--scale", "0.01", "--families", "twins", "balanced labels"]
    monkeypatch.setattr("sys.argv", arguments)
    power.main()
    first = json.loads(out.read_text())
    assert len(first["rows"]) == 6 + 16
    for row in first["rows"]:
        assert sum(row[state] for state in power.STATES) == row["sets"]
        assert row["false"] == 0
        assert row["used"] == row["shown"] + row["shown_given"]
    assert {"device", "versions", "date", "seeds", "planned", "summary", "margins"} <= set(first)
    monkeypatch.setattr(power, "measured", lambda *_: pytest.fail("measured again"))
    power.main()
    assert json.loads(out.read_text())["rows"] == first["rows"]
    page = tables.audit_power()
    assert page.startswith(f"Measured so far: 22 of {first['planned']} designs.")
    assert "| twins | reliance | " in page
    assert "| 7 points | 500 | as they come | yes | " in page
    monkeypatch.setattr("sys.argv", [*arguments[:3], "--scale", "0.02", *arguments[5:]])
    with pytest.raises(pytest.fail.Exception, match="measured again"):  # another number of sets
        power.main()
