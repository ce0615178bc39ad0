import pytest

from jaxdebias.app.check import gate
from jaxdebias.contracts import ContractError


def rate(value, low, high, **more):
    return {"value": value, "low": low, "high": high, "n": 400, **more}


def run(aligned, conflicting, worst=0.5):
    return {
        "bias_aligned_accuracy": rate(aligned, aligned - 0.02, aligned + 0.01),
        "bias_conflicting_accuracy": rate(conflicting, conflicting - 0.04, conflicting + 0.03),
        "worst_group_accuracy": rate(worst, worst - 0.1, worst + 0.1, group="bird · water"),
    }


def test_what_holds_and_what_does_not():
    results = {"before": run(0.95, 0.5), "after": run(0.9, 0.8, worst=0.7)}
    said = gate(results, max_gap=0.15)
    assert said == (
        True,
        "passed: accuracy falls by 10.0 points (6.4 to 14.1) from bias-aligned to bias-conflicting "
        "samples, at most 15.0 points allowed",
    )
    said = gate({**results, "after": None}, max_gap=0.1)
    assert not said.passed
    assert said.reason.startswith("failed: accuracy falls by 45.0 points (41.4 to 49.1)")
    said = gate(results, max_gap=0.2, min_worst_group=0.75)
    assert not said.passed
    assert said.reason.endswith(
        "accuracy of the worst group, bird · water, is 70.0 % (60.0–80.0), at least 75.0 % "
        "asked (not separable from it)"
    )
    assert gate(results, min_worst_group=0.7).passed


def test_a_model_that_is_better_on_conflicting_samples_has_no_fall():
    assert gate({"before": run(0.8, 0.85), "after": None}, max_gap=0.0).passed


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({}, "`check`: expected --max-gap or --min-worst-group, got neither"),
        ({"max_gap": 10.0}, "`--max-gap`: expected a fraction in 0..1, got 10.0"),
        ({"min_worst_group": -1.0}, "`--min-worst-group`: expected a fraction in 0..1"),
    ],
)
def test_bad_bounds_are_one_line(bounds, said):
    with pytest.raises(ContractError, match=said):
        gate({"before": run(0.9, 0.8), "after": None}, **bounds)


def test_what_a_run_does_not_have_is_refused():
    before = {**run(0.9, 0.8), "bias_conflicting_accuracy": None, "worst_group_accuracy": None}
    with pytest.raises(ContractError, match="`--max-gap`: expected a run whose test set has bias-aligned and"):
        gate({"before": before, "after": None}, max_gap=0.1)
    with pytest.raises(ContractError, match="`--min-worst-group`: expected a run whose test set has groups"):
        gate({"before": before, "after": None}, min_worst_group=0.1)
