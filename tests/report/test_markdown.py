import dataclasses
import re

import pytest
from report.fake_parts import between, changed
from report.fake_results import FAKES, birds, faces
from report.verdict_records import verdicts

from jaxdebias.report import model_card, wording
from jaxdebias.report._markdown import escape, table
from jaxdebias.results.records import Change

EVIL = ("<script>alert(1)</script>", '"><img src=x>', "{{7*7}}", "a|b\n| c", "`code", "[x](javascript:1)", "**bold**",
        "# title", "back\\|slash", "&lt;")  # fmt: skip


def cells(line):
    """Of a table's line: what stands between pipes that are not escaped."""
    return [cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


@pytest.mark.parametrize("name", FAKES)
def test_every_kind_has_a_table_and_a_card(name):
    record = FAKES[name]()
    lines = table(record).splitlines()
    assert len({len(cells(line)) for line in lines}) == 1
    assert lines[1].startswith("| --- | ---: |")
    rows = {cells(line)[0] for line in lines[2:]}
    expected = {metric.name for metric in wording.metrics_of(record) if metric.of(record.before) is not None}
    assert rows == expected
    assert ("change" in lines[0]) == (name in ("digits", "birds", "faces"))  # a rolled back edit is none
    card = model_card(record)
    assert card.startswith("## Bias, Risks, and Limitations\n")
    assert table(record) in card
    assert "None" not in card
    assert "nan" not in card.lower().split()
    assert escape(wording.verdict(record).headline) in card
    for finding in record.findings:
        assert escape(finding) in card


def test_the_numbers_are_those_of_the_results():
    record = changed(
        faces(),
        before__accuracy=between(0.4512, 0.4771, 0.5014),
        after__accuracy=between(0.5612, 0.5871, 0.6114),
        changes={"accuracy": Change(value=0.11, low=0.0906, high=0.131, n=1000, separable=True)},
    )
    assert "| Accuracy | 47.7 % (45.1–50.1) | 58.7 % (56.1–61.1) | +11.0 points (9.1 to 13.1) |" in table(record)
    record = changed(record, changes={"accuracy": Change(value=0.11, low=-0.02, high=0.131, n=1000, separable=False)})
    assert "+11.0 points (−2.0 to 13.1), not separable |" in table(record)
    record = changed(record, edit__accepted=False)
    assert "| Accuracy | 47.7 % (45.1–50.1) |\n" in table(record)
    assert "58.7 %" not in model_card(record)


def test_the_card_says_what_a_reader_needs():
    record = birds()
    card = model_card(record)
    worst = record.after.worst_group_accuracy
    for said in (f"- **Worst group**: {worst.group}: accuracy", f"{worst.n} birds",
                 "background (on land, on water)", "labels: landbird, waterbird",
                 "resnet50 on waterbirds (resolution 224)", "5,794 test birds",
                 "accuracy on bias-aligned minus that on bias-conflicting birds: ", "jaxdebias 0.1.0",
                 "gpu: NVIDIA H200; seed 0; 95 % intervals."):  # fmt: skip
        assert said in card
    several = changed(record, after__worst_group_accuracy=dataclasses.replace(worst, indistinguishable=2))
    assert f"{worst.n} birds; 2 other groups cannot be told from it." in model_card(several)
    gap = wording.gap_of(record.after)
    assert f"{100 * gap.low:.1f} to {100 * gap.high:.1f}".replace("-", "−") in card


def test_the_card_says_what_was_done():
    record = changed(birds(), method="erm", after=None)
    assert "No repair was tried" in model_card(record)
    assert "Nothing was changed" in model_card(changed(record, verdict=verdicts()["exceeds-consistent-useless"]))
    repaired = changed(birds(), verdict=verdicts()["exceeds-assigned-verified"])
    assert "verified on the test set" in model_card(repaired)


def test_missing_measurements():
    record = FAKES["fair"]()
    card = model_card(changed(record, before__worst_group_accuracy=None, before__bias_aligned_accuracy=None))
    assert "not known: no test sample has a known attribute." in card
    assert "not measured: the test set has not both" in card


@pytest.mark.parametrize("evil", EVIL)
def test_names_cannot_smuggle_markup(evil):
    record = changed(
        birds(), dataset=evil, model=evil, attribute=evil, items=evil, label_names=(evil, "x"),
        attribute_names=("y", evil), findings=(evil,), variant={evil: evil}, method=evil, provenance__device=evil,
        before__worst_group_accuracy__group=evil, after__worst_group_accuracy__group=evil,
    )  # fmt: skip
    card, clean = model_card(record), model_card(changed(birds(), findings=("a finding",)))
    assert len(card.splitlines()) == len(clean.splitlines())
    assert "<" not in card
    assert not re.search(r"(?<!\\)[\[\]`]", card)
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert {len(cells(line)) for line in rows} == {4}
    assert [line for line in card.splitlines() if line.startswith("#")] == [
        "## Bias, Risks, and Limitations",
        "### Recommendations",
    ]
