import pytest
from report.fake_parts import between, changed
from report.fake_results import FAKES, digits
from report.verdict_records import verdicts

from jaxdebias.report import wording
from jaxdebias.results.records import Change


@pytest.mark.parametrize("name", FAKES)
def test_nothing_is_judged_without_a_verdict(name):
    """A result of an earlier version shows what was measured, and no word about what the model relies on."""
    verdict = wording.verdict(changed(FAKES[name](), verdict=None))
    assert (verdict.level, verdict.headline) == ("unknown", wording.NOT_JUDGED)
    said = " ".join([*verdict.diagnosis, *verdict.repair])
    assert said
    for word in ("follows", "leans", "relies", "removes", "Yes", "No sign"):
        assert word not in said


def test_what_a_repair_changed_is_beside_the_advice():
    judged = changed(digits(), command="debias", verdict=verdicts()["exceeds-assigned-verified"])
    found = wording.verdict(judged)
    assert found.headline == judged.verdict.headline
    assert found.repair[0] == judged.verdict.advice.sentence
    assert found.repair[1:] == wording.verdict(changed(digits(), verdict=None)).repair
    assert wording.verdict(changed(judged, command="audit")).repair == [judged.verdict.advice.sentence]


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
        "Between different faces of one label, with the age associated with it and with another, the mean "
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
    assert any("stays, within the error" in sentence for sentence in verdict.repair)


def test_paired_changes_are_preferred():
    change = Change(value=0.01, low=0.005, high=0.03, n=1000, separable=False)
    record = changed(digits(), changes={"accuracy": change})
    assert wording.metric_change(record, "accuracy").separable is False
    assert wording.metric_change(record, "bias_conflicting_accuracy").separable is None


def test_errors_of_the_attribute_by_hand():
    """Three labels, two attributes: attribute 0 goes with label 0, attribute 1 with label 1."""
    confusion = (((9, 0, 0), (5, 20, 5)), ((10, 0, 0), (0, 9, 0)), ((6, 4, 0), (1, 9, 0)))
    aligned = ((True, False), (False, True), (False, False))
    record = changed(FAKES["fair"](), aligned=aligned, before__confusion_by_group=confusion)
    # errors of (0, 1): 25, 20 follow; of (1, 0): 10, 10 follow; of (2, 0): 10, 6 follow; of (2, 1): 10, 9 follow
    assert wording.errors_of_the_attribute(record, record.before) == 45 / 55


def test_baselines_are_judged_both_ways():
    remarks = " ".join(wording.baseline_remarks(digits()))
    assert "Fine-tuning and from scratch are more accurate than the edit." in remarks
    assert "DFR is not separable in accuracy from the edit." in remarks
