"""The pages say what the measured JSON says, and the scripts' rows mean what their docstrings say."""

import importlib
import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


def test_dbvae_tables_judge_whole_cases_and_name_the_others(tables, tmp_path):
    assert tables.dbvae("dbvae") == tables.timed("dbvae_speed") == "Not measured yet."
    made = {"device": "cpu", "date": "today", "versions": {"jax": "1", "flax": "2", "python": "3"}}
    rate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3}
    summary = [{"case": "cue", "arm": "dbvae", "seeds": 2, **dict.fromkeys(("rare", "common", "worst", "auc"), rate)}]
    margins = [{"case": "cue", "quantity": "dbvae.auc", "margin": ">= 0.9", "got": 0.5, "met": False}]
    aim = [{"case": "old", "arm": "flow", **rate, "reached": True}]
    made |= {"rows": [], "planned": 300, "summary": summary, "margins": margins, "aim": aim}
    (tmp_path / "dbvae.json").write_text(json.dumps(made | {"unfinished": {"dark": [3, 39]}}))
    said = tables.dbvae("dbvae")
    assert "| cue | dbvae | 2 | 50.0 (40.0–60.0) | 50.0 (40.0–60.0) |" in said
    assert "- **missed**: cue, dbvae.auc >= 0.9, got 0.500" in said
    assert "| old | flow | +0.50 (+0.40 to +0.60) | yes |" in said
    assert "Not judged yet, as rows are missing: dark (3 of 39)." in said
    (tmp_path / "dbvae.json").write_text(json.dumps(made | {"unfinished": {}, "aim": []}))
    assert "Not judged" not in tables.dbvae("dbvae")


def test_tables_have_not_drifted():
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "tables.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_table_shows_finished_runs_only(tables, tmp_path):
    path = tmp_path / "fmd_utkface.json"
    assert tables.utkface() == "Not measured yet."
    stack = {"jax": "1", "flax": "2", "python": "3"}
    made = {"rows": [], "device": "cpu", "versions": stack, "date": "today"}
    path.write_text(json.dumps(made))
    assert tables.utkface() == "Not measured yet."
    rate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 2, "median": 0.5}
    names = ("accuracy", "bias_conflicting_accuracy", "bias_aligned_accuracy", "worst_group_accuracy",
             "group_mean_accuracy", "counterfactual_bias", "group_gap", "changed_share")  # fmt: skip
    summary = [
        {"cell": "2 %", "method": method, "seeds": 2, "needs": "pairs", "samples": 700, **dict.fromkeys(names, rate),
         "changed": rate | {"median": 12_345}, "seconds": rate | {"median": 3.5}}
        for method in ("fine-tune all", "fmd ext", "new", "erm")
    ]  # fmt: skip
    path.write_text(json.dumps(made | {"summary": summary}))
    lines = tables.utkface().splitlines()
    first = [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("|")][2:]
    assert first == ["trained (ERM), no repair", "**FMD**, head, `ext`", "fine-tuning, all layers", "new"]
    assert "| 12,345 | 700 | pairs | 3.5 wall |" in lines[5]
    assert "today" in lines[-1]


@pytest.fixture
def attention_iou(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "reproduce"))
    modules = map(importlib.import_module, ("attention_iou_scenes", "attention_iou_trends", "attention_iou"))
    return types.SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


def looked(found, data, level, seed, **values):
    """A row of the script: every rate .5 unless `values` says otherwise."""
    rates = {
        name: {"value": values.get(name, 0.5), "low": 0.0, "high": 1.0, "n": 9}
        for name in (*found.ACCURACIES, *found.SCORES)
    }
    return {
        "data": data,
        "level": level,
        "seed": seed,
        "empty_maps": 0,
        "object_chance": 0.4,
        "background_chance": 0.9,
        **rates,
    }


def test_tau_of_levels_and_of_networks(attention_iou):
    accuracy = np.array([[0.8, 0.7], [0.5, 0.6], [0.2, 0.1]])
    score = np.array([[0.1, 0.3], [0.4, 0.2], [0.9, 0.8]])
    got = attention_iou.taus(score, accuracy)
    # Means: accuracies .75 .55 .15, scores .2 .3 .85. First seed against order; second: one of three pairs with it.
    assert got.levels.value == pytest.approx(-1)
    assert got.seeds == pytest.approx([-1, -1 / 3])

    def sign_products(a, b):
        pairs = [(i, j) for i in range(len(a)) for j in range(i)]
        return np.mean([np.sign((a[i] - a[j]) * (b[i] - b[j])) for i, j in pairs])

    assert got.networks.value == pytest.approx(sign_products(score.ravel(), accuracy.ravel()))
    # Four draws of two seeds: (0, 0), (0, 1), (1, 0), (1, 1).
    low, high = np.quantile([-1, -1, -1, -1 / 3], [0.025, 0.975])
    assert (got.levels.low, got.levels.high, got.levels.n) == (pytest.approx(low), pytest.approx(high), 2)


def test_trends_and_margins_of_attention_iou(attention_iou, tables, tmp_path):
    rows = [
        looked(
            attention_iou,
            data,
            level,
            seed,
            bias_conflicting_accuracy=0.9 - step / 10 + seed / 100,
            object_all=0.7 - rate * step + seed / 50,
            background_all=0.6 + rate * step,
        )
        for data, rate in (("composites", 0.04), ("scenes", 0.02), ("fewer scenes", 0.04))
        for step, level in enumerate(attention_iou.LEVELS)
        for seed in range(3)
    ]
    said = attention_iou.trends(rows[::-1])
    assert said["composites"]["object fall"]["value"] == pytest.approx(0.2)
    assert said["scenes"]["background rise"]["value"] == pytest.approx(0.1)
    assert said["scenes"]["object tau, levels"]["value"] == pytest.approx(1)
    assert said["scenes"]["background tau, seeds"] == pytest.approx([-1, -1, -1])
    met = {(one["data"], one["quantity"]): one["met"] for one in attention_iou.verdicts(said)}
    assert len(met) == len(attention_iou.MARGINS)
    # A step of .02 is as large as that between two seeds, so single networks are out of order; ties within a level
    # leave the background's tau at -135 / sqrt(135 * 153) = -.94.
    assert {margin for margin, good in met.items() if not good} == {
        ("scenes", "object fall"),
        ("scenes", "background rise"),
        ("scenes", "object tau, networks"),
    }
    assert said["scenes"]["background tau, networks"]["value"] == pytest.approx(-((135 / 153) ** 0.5))
    # Goals hold for all levels only, and a seed counts where it has all of them.
    assert attention_iou.verdicts(attention_iou.trends(rows[:9])) == []
    assert attention_iou.trends(rows[1:18])["composites"]["seeds"] == [1, 2]

    with pytest.raises(SystemExit, match=r"composites: accuracy at 50 % has to be at least 0.72 .* got 0.5"):
        attention_iou.check_learned("composites", rows)
    assert tables.attention_iou() == "Not measured yet."
    table = {
        "rows": rows,
        "summary": attention_iou.summary(rows),
        "trends": said,
        "margins": attention_iou.verdicts(said),
        "device": "cpu",
        "date": "today",
        "versions": {"jax": "1", "flax": "2", "python": "3"},
    }
    (tmp_path / "attention_iou.json").write_text(json.dumps(table))
    page = tables.attention_iou()
    assert "| 100 | 50.0 (50.0–50.0) |" in page
    assert "- **missed**: object fall >= 0.15, got 0.10" in page
    assert "the object score falls by +0.20 (+0.20 to +0.20)" in page
