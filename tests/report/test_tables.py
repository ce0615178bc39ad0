import io

import pytest
from report.fake_results import FAKES, digits
from rich.console import Console

from jaxdebias.report.results import to_json
from jaxdebias.report.tables import markdown_table, print_summary


def printed(results):
    console = Console(file=io.StringIO(), width=120, color_system=None)
    print_summary(to_json(results), console)
    return console.file.getvalue()


@pytest.mark.parametrize("name", FAKES)
def test_summary_of_every_kind(name):
    text = printed(FAKES[name]())
    assert "Worst-group accuracy" in text
    assert ("after" in text.splitlines()[4:12].__str__()) == (name in ("digits", "birds"))
    assert "None" not in text


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
