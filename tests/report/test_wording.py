import pytest
from report.fake_parts import between, changed
from report.fake_results import FAKES, digits

from jaxdebias.report import wording
from jaxdebias.results.records import Change


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
    verdict = wording.verdict(FAKES[name]())
    assert (verdict.headline, verdict.outcome) == (headline, outcome)


def test_sentences_hold_the_numbers_of_the_result():
    record = changed(
        digits(),
        before__bias_aligned_accuracy=between(0.995, 0.997, 0.999),
        before__bias_conflicting_accuracy=between(0.46, 0.48, 0.5),
    )
    text = " ".join(wording.verdict(record).diagnosis)
    assert "Accuracy falls from 99.7 % on bias-aligned to 48.0 % on bias-conflicting digits." in text
    assert "moves the probability of the true label by 46.8 points" in text


def test_matched_pairs_are_not_called_the_same_sample():
    verdict = wording.verdict(FAKES["faces"]())
    assert (
        "Between different faces of one label, with the age that goes with it and with another, the mean "
        "probability of the true label differs by 60.5 points."
    ) in verdict.diagnosis
    assert "The gap between matched pairs falls from 60.5 to 25.0 points." in verdict.repair
    for sentence in verdict.diagnosis + verdict.repair:
        assert "nothing but" not in sentence
        assert "ounterfactual" not in sentence
    record = FAKES["faces"]()
    assert wording.metric_of(record, "counterfactual_bias").name == "Matched-pair gap"
    assert wording.metric_of(record, "accuracy") is wording.METRIC["accuracy"]
    assert wording.metrics_of(digits()) == wording.METRICS


def test_an_edit_that_does_nothing_is_called_so():
    verdict = wording.verdict(changed(digits(), after=digits().before))
    assert verdict.outcome == "The edit made no measurable difference."
    assert any("stays, within the error" in sentence for sentence in verdict.repair)


def test_an_edit_that_makes_it_worse_is_called_so():
    record = changed(digits(), after__counterfactual_bias=between(0.68, 0.7, 0.72))
    assert wording.verdict(record).outcome == "The edit made it worse."


def test_paired_changes_are_preferred():
    change = Change(value=0.01, low=0.005, high=0.03, n=1000, separable=False)
    record = changed(digits(), changes={"accuracy": change})
    assert wording.metric_change(record, "accuracy").separable is False
    assert wording.metric_change(record, "bias_conflicting_accuracy").separable is None


def test_no_evidence_is_said():
    record = changed(FAKES["fair"](), before__bias_aligned_accuracy=None, before__bias_conflicting_accuracy=None)
    verdict = wording.verdict(record)
    assert verdict.level == "unknown"
    assert verdict.headline.startswith("These measurements cannot say")


def test_errors_that_follow_by_hand():
    """Three labels, two attributes: attribute 0 goes with label 0, attribute 1 with label 1."""
    confusion = (((9, 0, 0), (5, 20, 5)), ((10, 0, 0), (0, 9, 0)), ((6, 4, 0), (1, 9, 0)))
    aligned = ((True, False), (False, True), (False, False))
    record = changed(FAKES["fair"](), aligned=aligned, before__confusion_by_group=confusion)
    # errors of (0, 1): 25, 20 follow; of (1, 0): 10, 10 follow; of (2, 0): 10, 6 follow; of (2, 1): 10, 9 follow
    assert wording.errors_that_follow(record, record.before) == 45 / 55


def test_baselines_are_judged_both_ways():
    remarks = " ".join(wording.baseline_remarks(digits()))
    assert "Fine-tuning and from scratch are more accurate than the edit." in remarks
    assert "DFR is not separable in accuracy from the edit." in remarks
