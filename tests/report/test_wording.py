import pytest
from report.fake_results import FAKES, about, digits

from jaxdebias.report import wording
from jaxdebias.results.records import to_json


def verdict_of(results):
    return wording.verdict(to_json(results))


@pytest.mark.parametrize(
    ("name", "headline", "outcome"),
    [
        ("digits", "Yes: the model follows the colour.", "The edit removes most of the bias."),
        ("digits_erm", "Yes: the model follows the colour.", ""),
        ("birds", "Yes: the model follows the background.", "GroupDRO removes nearly all of the bias."),
        ("census", "Slightly: the model leans on the sex.", "The edit was not accepted."),
        ("fair", "No sign that the model follows the attribute.", ""),
        ("faces", "Yes: the model follows the age.", "The edit removes about half of the bias."),
    ],
)
def test_headlines(name, headline, outcome):
    verdict = verdict_of(FAKES[name]())
    assert (verdict.headline, verdict.outcome) == (headline, outcome)


def test_sentences_hold_the_numbers_of_the_result():
    results = digits()
    results["before"] |= {
        "bias_aligned_accuracy": about(0.997, 0.002, 1000),
        "bias_conflicting_accuracy": about(0.48, 0.02, 1000),
    }
    text = " ".join(verdict_of(results).diagnosis)
    assert "Accuracy falls from 99.7 % on bias-aligned to 48.0 % on bias-conflicting digits." in text
    assert "moves the probability of the true label by 46.8 points" in text


def test_matched_pairs_are_not_called_the_same_sample():
    verdict = verdict_of(FAKES["faces"]())
    assert (
        "Between different faces of one label, with the age that goes with it and with another, the mean "
        "probability of the true label differs by 60.5 points."
    ) in verdict.diagnosis
    assert "The gap between matched pairs falls from 60.5 to 25.0 points." in verdict.repair
    for sentence in verdict.diagnosis + verdict.repair:
        assert "nothing but" not in sentence
        assert "ounterfactual" not in sentence
    results = FAKES["faces"]()
    assert wording.metric_of(results, "counterfactual_bias").name == "Matched-pair gap"
    assert wording.metric_of(results, "accuracy") is wording.METRIC["accuracy"]
    assert wording.metrics_of(digits()) == wording.METRICS


def test_an_edit_that_does_nothing_is_called_so():
    results = digits()
    results["after"] = results["before"]
    verdict = verdict_of(results)
    assert verdict.outcome == "The edit made no measurable difference."
    assert any("stays, within the error" in sentence for sentence in verdict.repair)


def test_an_edit_that_makes_it_worse_is_called_so():
    results = digits()
    results["after"] = {**results["after"], "counterfactual_bias": about(0.7, 0.02, 500)}
    assert verdict_of(results).outcome == "The edit made it worse."


def test_paired_changes_are_preferred():
    results = digits()
    results["changes"] = {"accuracy": {"value": 0.01, "low": -0.01, "high": 0.03}}
    assert not wording.metric_change(to_json(results), "accuracy").separable
    assert wording.metric_change(to_json(results), "bias_conflicting_accuracy").separable


def test_no_evidence_is_said():
    results = to_json(FAKES["fair"]())
    results["before"] |= {"bias_aligned_accuracy": None, "bias_conflicting_accuracy": None}
    verdict = wording.verdict(results)
    assert verdict.level == "unknown"
    assert verdict.headline.startswith("These measurements cannot say")


def test_errors_that_follow_by_hand():
    """Three labels, two attributes: attribute 0 goes with label 0, attribute 1 with label 1."""
    confusion = [[[9, 0, 0], [5, 20, 5]], [[10, 0, 0], [0, 9, 0]], [[6, 4, 0], [1, 9, 0]]]
    results = {
        "label_names": list("xyz"),
        "attribute_names": list("pq"),
        "aligned": [[True, False], [False, True], [False, False]],
    }
    # errors of (0, 1): 25, 20 follow; of (1, 0): 10, 10 follow; of (2, 0): 10, 6 follow; of (2, 1): 10, 9 follow
    assert wording.errors_that_follow(results, {"confusion_by_group": confusion}) == 45 / 55


def test_baselines_are_judged_both_ways():
    remarks = " ".join(wording.baseline_remarks(to_json(digits())))
    assert "Fine-tuning and from scratch are more accurate than the edit." in remarks
    assert "DFR is not separable in accuracy from the edit." in remarks
