import io

import pytest
from report.fake_parts import between, changed
from report.fake_results import FAKES, digits
from results.small_records import change, features
from rich.console import Console

from jaxdebias.report import markdown_table, print_summary
from jaxdebias.report._tables import print_repair
from jaxdebias.results.codec import to_json


def printed(record):
    console = Console(file=io.StringIO(), width=120, color_system=None)
    print_summary(record, console)
    return console.file.getvalue()


@pytest.mark.parametrize("name", FAKES)
def test_summary_of_every_kind(name):
    text = printed(FAKES[name]())
    assert "Worst-group accuracy" in text
    assert ("after" in text.splitlines()[4:12].__str__()) == (name in ("digits", "birds", "faces"))
    assert "None" not in text


def test_a_repair_from_files_shows_what_was_measured():
    record = changed(
        features(),
        method="fmd",
        bias="gap",
        features=512,
        findings=("Remark.",),
        before__accuracy=between(0.1, 0.4771, 0.9),
        after__accuracy=between(0.1, 0.6, 0.9),
        changes={"accuracy": change(0.1229)},
        edit__reason="All rounds were taken.",
    )

    def said(record):
        console = Console(file=io.StringIO(), width=120, color_system=None)
        print_repair(record, console)
        return console.file.getvalue()

    text = said(record)
    assert "FMD on 512 features and 2 classes: accepted." in text
    assert "47.7 % (10.0–90.0)" in text
    assert "+12.3 points" in text
    assert "Matched-pair gap" in text
    assert "Worst-group" not in text
    assert "Remark." in text
    text = said(changed(record, edit__accepted=False, edit__reason="Rolled back."))
    assert "not accepted" in text
    assert "60.0 %" not in text


def test_summary_shows_before_after_and_baselines_with_intervals():
    record = changed(digits(), before__accuracy=between(0.4512, 0.4771, 0.5014))
    text = printed(record)
    assert "47.7 % (45.1–50.1)" in text
    for name in record.baselines:
        assert name in text


def test_markdown_table_of_json_rows():
    rows = [to_json(digits()), {**to_json(digits(repaired=False)), "dataset": "a|b"}]
    rows[0]["after"]["counterfactual_bias"] = {"value": 0.162, "low": 0.14, "high": 0.18, "n": 9}
    table = markdown_table(
        rows,
        {
            "data": "dataset",
            "bias": "after.counterfactual_bias",
            "time": "provenance.seconds",
            "seed": "provenance.seed",
        },
    )
    lines = table.splitlines()
    assert lines[2] == "| digits | 16.2 points (14.0–18.0) | 74 s |    0 |"
    assert lines[3].startswith("| a\\|b   |")
    assert "–" in lines[3]
    assert len({len(line) for line in lines}) == 1


def test_markdown_table_without_rows_is_a_header():
    assert markdown_table([], ["a", "b"]).splitlines()[0] == "| a   | b   |"
