"""The planted-bias benchmark: its sets mean what they say, its rules are the written ones, its table shows them."""

import importlib
import json
import pathlib
import types

import jax
import numpy as np
import pytest

from jaxdebias import models
from jaxdebias.core import Batch, Dataset
from jaxdebias.measure import Interval

ROOT = pathlib.Path(__file__).parents[1]
SMALL = {"mark": (20, 8, 8, 6), "colour": (12, 10, 10, 5), "scenes": (60, 24, 24, 20)}


@pytest.fixture
def power(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "reproduce"))
    modules = map(importlib.import_module, ("audit_networks_summary", "audit_networks"))
    return types.SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


@pytest.fixture
def sets(power):
    return importlib.import_module("audit_sets")


@pytest.mark.parametrize("family", SMALL)
def test_sets_hold_what_they_promise(sets, family):
    of, made = sets.FAMILIES[family], sets.make(family, 0.1, 3, sizes=SMALL[family])
    again = sets.make(family, 0.1, 3, sizes=SMALL[family])
    names = np.array(of.values)
    for split, batch in made.dataset.splits.items():
        np.testing.assert_array_equal(batch.x, again.dataset.splits[split].x)
        assert (batch.attribute == -1).all()
        planted = made.candidates[of.planted][split]
        own = planted == names[batch.label]
        if split == "train":
            assert np.mean(~own) == pytest.approx(0.1, abs=0.051)
            assert np.mean(made.candidates["scanner"][split] == np.char.add("scanner ", batch.label.astype(str))) > 0.85
        else:
            for attribute in (of.planted, "scanner", "blur", "frame", "batch"):
                for y in np.unique(batch.label):
                    _, counts = np.unique(made.candidates[attribute][split][batch.label == y], return_counts=True)
                    assert np.ptp(counts) <= 1, (split, attribute)
        value = np.searchsorted(np.sort(names), planted)
        paper = np.array([int(name.split()[1]) for name in made.candidates["paper"][split]])
        assert (family == "mark") <= (np.mean(np.argsort(names)[value] != paper) > 0)
        assert np.mean(np.argsort(names)[value] != paper) < 0.2
    test, planted = made.dataset.splits["test"], made.candidates[of.planted]["test"]
    own = planted == names[test.label]
    if of.draw is None:
        own &= False  # scenes are drawn with grain of their own; the pairs come from the same draw
        assert (made.pairs.x != made.pairs.twin).any((1, 2, 3)).all()
    np.testing.assert_array_equal(test.x[own], made.pairs.x[own])
    if of.classes == 2 and of.draw is not None:
        np.testing.assert_array_equal(test.x[~own], made.pairs.twin[~own])


def test_a_mark_is_all_that_differs(sets):
    made = sets.make("mark", 0.1, 0, sizes=SMALL["mark"])
    sharp = made.candidates["blur"]["test"] == "none"
    differs = (made.pairs.x != made.pairs.twin).any((0, 3) if sharp.all() else 3)[sharp]
    assert not differs[:, 3:].any()
    assert not differs[:, :, 3:13].any()
    assert differs[:, :3, :3].any((1, 2)).all()


def test_no_shortcut_is_an_attribute_drawn_without_regard_to_the_label(sets):
    names, shares = np.array(["left", "right"]), []
    for seed in range(4):
        made = sets.make("mark", None, seed, sizes=SMALL["mark"])
        shares.append(np.mean(made.candidates["mark"]["train"] == names[made.dataset.splits["train"].label]))
    assert len(set(shares)) > 1
    assert np.mean(shares) == pytest.approx(0.5, abs=0.08)


def test_pictures_only_have_no_attribute(sets):
    for conflicting in (0.02, None):
        dataset = sets.pictures_only(conflicting, 0)
        assert len(dataset.splits["test"].label) == 347 * sets.RENDERINGS
        assert all((batch.attribute == -1).all() for batch in dataset.splits.values())
        spread = np.ptp(dataset.splits["train"].x.astype(int).mean((1, 2)), axis=1)
        assert (np.median(spread) < 5) == (conflicting is None)


def test_rules_are_the_written_ones(power):
    assert power.state_of("none", Interval(0.3, 0.2, 0.4, 9)) == "clean"
    assert power.state_of(0.1, Interval(0.3, 0.06, 0.4, 9)) == "strong"
    assert power.state_of(0.1, Interval(0.3, 0.04, 0.4, 9)) == "weak"
    large, none = Interval(0.1, 0.06, 0.2, 9), Interval(0.0, -0.1, 0.1, 9)

    def judged(*given):
        said = power.judged(*given)
        return said["right"], said["right_advice"]

    assert judged("clean", "ink", [], "no_problem_found", None) == (True, True)
    assert judged("clean", "ink", [], "disparity_cause_not_shown", None) == (True, True)
    assert judged("clean", "ink", ["blur"], "reliance_repaired", None) == (False, False)
    assert judged("strong", "ink", ["ink"], "reliance_repaired", None) == (True, True)
    assert judged("strong", "ink", ["ink", "paper"], "reliance_retrain", large) == (False, False)
    assert judged("strong", "ink", [], "disparity_cause_not_shown", none) == (False, True)
    assert judged("strong", "ink", ["ink"], "reliance_retrain", large) == (True, False)
    assert judged("weak", "ink", [], "no_problem_found", None) == (True, True)
    assert judged("weak", "ink", ["paper"], "reliance_retrain", large) == (False, False)
    cells = power.plan()
    assert len({cell for cell in cells if cell.part == "sets"}) >= 40
    assert len(cells) == len(set(cells))
    assert sum(cell.part == "pictures only" for cell in cells) >= 8


def test_intervals_are_over_units(power):
    values, unit = np.array([1.0, 1.0, 0.0, 1.0, -1.0, 0.0]), np.array([0, 0, 1, 1, 2, 2])
    got = power.over_units(values, unit)
    means = np.array([1.0, 0.5, -0.5])
    assert got.value == pytest.approx(means.mean())
    assert got.high - got.value == pytest.approx(1.96 * means.std(ddof=1) / 3**0.5)
    assert got.n == 3
    assert power.over_units(values, None).n == 6


def test_a_small_acceptance_split_has_both_sides(power, sets):
    made = sets.make("mark", 0.1, 0, sizes=SMALL["mark"])
    few = power.few(made)
    accept, mark = few.dataset.splits["accept"], few.candidates["mark"]["accept"]
    assert len(accept.label) == len(mark) == power.FEW
    assert {(int(y), str(m)) for y, m in zip(accept.label, mark, strict=True)} == {
        (y, m) for y in (0, 1) for m in ("left", "right")
    }
    assert len(few.dataset.splits["edit"].label) == len(made.dataset.splits["edit"].label)


def row(family, conflicting, seed, state, planted, right, **values):
    return {
        "part": "sets",
        "family": family,
        "conflicting": conflicting,
        "seed": seed,
        "state": state,
        "gap": {"value": 0.2, "low": 0.1, "high": 0.3, "n": 9},
        "accuracy": 0.8,
        "verdicts": {
            planted: "no_sign" if state == "clean" else "shown_given",
            "frame": "no_sign" if right else "shown",
        },
        "fix": "no_problem_found" if state == "clean" else "reliance_repaired",
        "held": None if state == "clean" else True,
        "gain": {"low": 0.1},
        "right": right,
        "right_advice": True,
    } | values


def test_shares_margins_and_table(power, tables, tmp_path):
    rows = [row("mark", "none", seed, "clean", "mark", seed != 0) for seed in range(10)]
    rows += [row("mark", 0.1, seed, "strong", "mark", seed > 1) for seed in range(10)]
    rows += [
        {
            "part": "pictures only",
            "family": "digits",
            "conflicting": 0.02,
            "seed": seed,
            "state": "biased",
            "suspected": seed > 0,
            "right": seed > 0,
        }
        for seed in range(4)
    ]
    said = power.summary(rows)
    assert said["sets"]["false alarms, clean"]["value"] == pytest.approx(0.1)
    assert said["sets"]["right verdicts, clean and strong"]["value"] == pytest.approx(0.85)
    assert said["sets"]["false alarms per decoy"]["n"] == 20
    assert said["sets"]["shortcut found, strong"]["value"] == 1.0
    assert said["pictures only"]["right suspicions"]["value"] == 0.75
    assert "suspected, clean" not in said["pictures only"]
    met = {(one["part"], one["quantity"]): one["met"] for one in power.verdicts(said)}
    assert met == {
        ("sets", "false alarms, clean"): False,
        ("sets", "right verdicts, clean and strong"): False,
        ("sets", "right advice, clean and strong"): True,
        ("pictures only", "right suspicions"): False,
    }
    assert tables.audit_networks() == "Not measured yet."
    made = {
        "rows": rows,
        "planned": 30,
        "device": "cpu",
        "date": "today",
        "versions": {"jax": "1", "flax": "2", "python": "3"},
    }
    (tmp_path / "audit_networks.json").write_text(json.dumps(made))
    assert tables.audit_networks() == "Measured so far: 24 of 30 sets."
    made |= {"summary": said, "margins": power.verdicts(said)}
    (tmp_path / "audit_networks.json").write_text(json.dumps(made))
    page = tables.audit_networks()
    assert "| mark | none planted | 20.0 to 20.0 | 10 clean | 9 of 10 | no_problem_found 10 | 10 of 10 |" in page
    assert "- **missed**: sets, false alarms, clean <= 0.05, got 0.100" in page


@pytest.mark.slow
def test_every_row_goes_through_the_trunk_once(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "speed"))
    monkeypatch.delitem(__import__("sys").modules, "audit", raising=False)
    cost = importlib.import_module("audit")
    rng, splits, values = np.random.default_rng(0), {}, {}
    for split, n in (("train", 90), ("edit", 60), ("accept", 60), ("test", 80)):
        label = np.arange(n, dtype=np.int32) % 2
        marker = np.where(rng.random(n) < (0.1 if split == "train" else 0.5), 1 - label, label)
        x = rng.integers(0, 100, (n, 32, 32, 3)).astype(np.uint8)
        x[marker == 1, :12, :12] = 255
        splits[split] = Batch(x=x, label=label, attribute=np.full(n, -1, np.int32))
        values[split] = marker
    dataset = Dataset(
        name="made",
        variant={},
        splits=splits,
        pairs={},
        label_names=("0", "1"),
        attribute_names=("unknown",),
        aligned=np.zeros((2, 1), bool),
        pairing="none",
    )
    said = cost.twice_computed(dataset, {"marker": values})
    assert said["distinct rows"] == 290
    assert said["rows through the trunk"] == 290
    assert said["of them shared with the maps"] == 80


def test_a_fitted_head_stands_in_its_place(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "speed"))
    cost = importlib.import_module("audit")
    rng = np.random.default_rng(1)
    label = np.arange(60, dtype=np.int32) % 2
    x = rng.integers(0, 100, (60, 16, 16, 3)).astype(np.uint8)
    x[label == 1, :8] += 120
    tiny = models.mlp(hidden=(16,), classes=2)
    dataset = Dataset(
        name="made",
        variant={},
        splits={"train": Batch(x=x, label=label, attribute=label)},
        pairs={},
        label_names=("0", "1"),
        attribute_names=("0", "1"),
        aligned=np.eye(2, dtype=bool),
    )
    params = cost.with_head(tiny, dataset)
    assert np.mean(np.asarray(jax.device_get(tiny.apply(params, x))).argmax(1) == label) > 0.95
