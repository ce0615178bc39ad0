import dataclasses

import pytest
from report.verdict_records import verdicts
from results.small_records import measurement
from results.small_records import run as of_run

from jaxdebias.app.check import Check, by_verdict, gate
from jaxdebias.contracts import ContractError
from jaxdebias.results.records import Difference, GroupRate, Rate


def rate(value, low, high, **more):
    return (GroupRate if more else Rate)(value=value, low=low, high=high, n=400, **more)


def run(aligned, conflicting, worst=0.5):
    gap = aligned - conflicting
    return dataclasses.replace(
        measurement(),
        alignment_gap=Difference(value=gap, low=gap - 0.036, high=gap + 0.041, n=800, separable=gap > 0.036),
        bias_aligned_accuracy=rate(aligned, aligned - 0.02, aligned + 0.01),
        bias_conflicting_accuracy=rate(conflicting, conflicting - 0.04, conflicting + 0.03),
        worst_group_accuracy=rate(worst, worst - 0.1, worst + 0.1, group="bird · water"),
    )


def test_what_holds_and_what_does_not():
    record = of_run(before=run(0.95, 0.5), after=run(0.9, 0.8, worst=0.7))
    said = gate(record, max_gap=0.15)
    assert said == (
        True,
        "passed: accuracy falls by 10.0 points (6.4 to 14.1) from bias-aligned to bias-conflicting "
        "samples, at most 15.0 points allowed",
    )
    said = gate(dataclasses.replace(record, after=None), max_gap=0.1)
    assert not said.passed
    assert said.reason.startswith("failed: accuracy falls by 45.0 points (41.4 to 49.1)")
    said = gate(record, max_gap=0.2, min_worst_group=0.75)
    assert not said.passed
    assert said.reason.endswith(
        "accuracy of the worst group, bird · water, is 70.0 % (60.0–80.0), at least 75.0 % "
        "asked (not separable from it)"
    )
    assert gate(record, min_worst_group=0.7).passed


def test_a_model_that_is_better_on_conflicting_samples_has_no_fall():
    assert gate(of_run(before=run(0.8, 0.85)), max_gap=0.0).passed


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (
            {},
            "`check`: expected results with a verdict, or one of --max-gap, --min-accuracy, --min-worst-group, "
            "got none",
        ),
        ({"max_gap": 10.0}, "`--max-gap`: expected a fraction in 0..1, got 10.0"),
        ({"min_worst_group": -1.0}, "`--min-worst-group`: expected a fraction in 0..1"),
    ],
)
def test_bad_bounds_are_one_line(bounds, said):
    with pytest.raises(ContractError, match=said):
        gate(of_run(before=run(0.9, 0.8)), **bounds)


def test_what_was_not_measured_cannot_be_judged():
    before = dataclasses.replace(run(0.9, 0.8), accuracy=None, alignment_gap=None, worst_group_accuracy=None)
    for bounds, what in (
        ({"max_gap": 0.1}, "accuracy of bias-aligned and of bias-conflicting samples"),
        ({"min_worst_group": 0.1}, "accuracy of the worst group"),
        ({"min_accuracy": 0.1}, "accuracy"),
    ):
        verdict = gate(of_run(before=before), **bounds)
        assert verdict == (False, f"cannot be judged: train measured no {what} here")


def test_a_floor_of_accuracy():
    record = of_run(before=dataclasses.replace(measurement(), accuracy=rate(0.9, 0.88, 0.92)))
    assert gate(record, min_accuracy=0.8) == (
        True,
        "passed: accuracy is 90.0 % (88.0–92.0), at least 80.0 % asked",
    )
    verdict = gate(record, min_accuracy=0.91)
    assert not verdict.passed
    assert verdict.reason.endswith("at least 91.0 % asked (not separable from it)")


def test_an_unfinished_set_cannot_be_judged(tmp_path, capsys):
    (tmp_path / "measurements.json").write_text("{}")
    assert Check(run=tmp_path, max_gap=0.1).execute() == 1
    assert capsys.readouterr().out.startswith("cannot be judged: ")
    with pytest.raises(ContractError, match="no such file"):
        Check(run=tmp_path / "nowhere", max_gap=0.1).execute()


@pytest.mark.parametrize(
    ("name", "passed", "begins"),
    [
        ("within-no_sign-not_held", True, "passed: No problem found"),
        ("within-consistent-none", True, "passed: No problem found"),
        ("exceeds-no_sign-none", False, "failed: Accuracy differs by age"),
        ("verified disparity", False, "failed: Accuracy differs by age"),
        ("within-twins-verified", False, "failed: The model relies on age"),
        ("cannot_tell-no_sign-verified", False, "cannot be judged: Not enough data"),
    ],
)
def test_without_bounds_the_verdict_is_judged(name, passed, begins):
    names = {one.split("-")[0] + "-" + one.split("-")[1]: one for one in verdicts() if "-" in one}
    record = dataclasses.replace(of_run(), verdict=verdicts()[names.get("-".join(name.split("-")[:2]), name)])
    found = by_verdict(record)
    assert found.passed == passed
    assert found.reason.startswith(begins)
    assert found.reason.endswith(record.verdict.headline)
    assert by_verdict(of_run(verdict=None)) is None
