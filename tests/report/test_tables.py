import io

import pytest
from report.fake_results import FAKES, digits
from rich.console import Console

from jaxdebias.report import markdown_table, print_summary
from jaxdebias.report._tables import print_repair
from jaxdebias.results.records import to_json


def printed(results):
    console = Console(file=io.StringIO(), width=120, color_system=None)
    print_summary(to_json(results), console)
    return console.file.getvalue()


@pytest.mark.parametrize("name", FAKES)
def test_summary_of_every_kind(name):
    text = printed(FAKES[name]())
    assert "Worst-group accuracy" in text
    assert ("after" in text.splitlines()[4:12].__str__()) == (name in ("digits", "birds", "faces"))
    assert "None" not in text


def test_a_repair_from_files_shows_what_was_measured():
    metrics = dict.fromkeys(("worst_group_accuracy", "bias_aligned_accuracy", "bias_conflicting_accuracy"))
    rate = {"low": 0.1, "high": 0.9, "n": 9}
    results = {
        "method": "fmd", "bias": "gap", "seconds": 1.94, "features": 512, "classes": 2, "findings": ["Remark."],
        "before": {**metrics, "accuracy": {"value": 0.4771, **rate}, "counterfactual_bias": {"value": 0.5, **rate}},
        "after": {**metrics, "accuracy": {"value": 0.6, **rate}, "counterfactual_bias": {"value": 0.2, **rate}},
        "changes": {"accuracy": {"value": 0.1229, "low": 0.1, "high": 0.15}},
        "edit": {"accepted": True, "reason": "All rounds were taken."},
    }  # fmt: skip

    def said(results):
        console = Console(file=io.StringIO(), width=120, color_system=None)
        print_repair(results, console)
        return console.file.getvalue()

    text = said(results)
    assert "FMD on 512 features and 2 classes: accepted." in text
    assert "47.7 % (10.0–90.0)" in text
    assert "+12.3 points" in text
    assert "Matched-pair gap" in text
    assert "Worst-group" not in text
    assert "Remark." in text
    text = said(results | {"edit": {"accepted": False, "reason": "Rolled back."}})
    assert "not accepted" in text
    assert "60.0 %" not in text


def test_summary_shows_before_after_and_baselines_with_intervals():
    results = digits()
    results["before"]["accuracy"] = {"value": 0.4771, "low": 0.4512, "high": 0.5014, "n": 1000}
    text = printed(results)
    assert "47.7 % (45.1–50.1)" in text
    for name in results["baselines"]:
        assert name in text


def test_markdown_table_of_json_rows():
    rows = [to_json(digits()), {**to_json(digits(repaired=False)), "dataset": "a|b"}]
    rows[0]["after"]["counterfactual_bias"] = {"value": 0.162, "low": 0.14, "high": 0.18, "n": 9}
    table = markdown_table(
        rows, {"data": "dataset", "bias": "after.counterfactual_bias", "time": "seconds", "seed": "seed"}
    )
    lines = table.splitlines()
    assert lines[2] == "| digits | 16.2 points (14.0–18.0) | 74 s |    0 |"
    assert lines[3].startswith("| a\\|b   |")
    assert "–" in lines[3]
    assert len({len(line) for line in lines}) == 1


def test_markdown_table_without_rows_is_a_header():
    assert markdown_table([], ["a", "b"]).splitlines()[0] == "| a   | b   |"
