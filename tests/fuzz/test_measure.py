"""Every public function of `measure`: whatever is handed over is refused in one line, or answered rightly."""

import jax
import numpy as np
import pytest
from fuzz.mutations import Call, changed, cheap, check, each
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import metrics as oracle

from jaxdebias import measure
from jaxdebias.contracts import ContractError
from jaxdebias.core import Batch

FUZZ = settings(
    deadline=None, derandomize=True, database=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow]
)
NUMBERS = settings(FUZZ, max_examples=20)
KEY, RNG = jax.random.key(0), np.random.default_rng(0)
N, K, A = 12, 3, 2
LABEL = (np.arange(N) % K).astype(np.int32)
ATTRIBUTE = (np.arange(N) // 3 % A).astype(np.int32)
PREDICTED = np.roll(LABEL, 2)
LOGITS, OTHERS = RNG.normal(size=(2, N, K)).astype(np.float32)
UNIT = (np.arange(N) // 2).astype(np.int32)
ALIGNED = np.array([[True, False], [False, True], [True, False]])
COUNTS = np.array([[9, 1], [2, 8], [7, 3]])
BATCH = Batch(np.zeros((N, 1), np.float32), LABEL, ATTRIBUTE, weight=np.ones(N, np.float32), unit=UNIT)
MAPS = RNG.random((4, 2, 3, 3)).astype(np.float32)
MASKS = RNG.random((4, 3, 3, 3)) > 0.5
SCORES = RNG.random((N, 2)).astype(np.float32)


def apply(params, x):
    return x @ params


def reliance(predicted, label, attribute, counts=None, unit=None):
    counts = None if counts is None else {"a": counts}
    return measure.assess_reliance(
        predicted, label, {"a": attribute}, counts, key=KEY, unit=unit, classes=K, min_group=1
    )


def disparity(predicted, label, attribute, unit=None, weight=None):
    return measure.assess_disparity(
        predicted, label, {"a": attribute}, key=KEY, classes=K, unit=unit, weight=weight, min_group=1
    )


CALLS = {
    "group_report": Call(
        lambda **k: measure.group_report(**k),
        {"predicted": PREDICTED, "batch": BATCH, "aligned": ALIGNED, "train_counts": COUNTS},
        ("predicted", "batch.label", "batch.attribute", "batch.weight", "batch.unit", "aligned", "train_counts"),
        alone=("aligned",),
        optional=("batch.weight", "batch.unit", "train_counts"),
    ),
    "group_report of logits": Call(
        lambda **k: measure.group_report(**k),
        {"predicted": LOGITS, "batch": BATCH, "aligned": ALIGNED},
        ("predicted",),
    ),
    "accuracy_differences": Call(
        lambda **k: measure.accuracy_differences(KEY, **k),
        {"before": PREDICTED, "after": LABEL, "batch": BATCH, "aligned": ALIGNED},
        ("before", "after", "aligned"),
        alone=("aligned",),
    ),
    "fairness_report": Call(
        lambda **k: measure.fairness_report(KEY, classes=K, **k),
        {"predicted": PREDICTED, "label": LABEL, "attribute": ATTRIBUTE, "unit": UNIT},
        ("predicted", "label", "attribute", "unit"),
        optional=("unit",),
    ),
    "assess_reliance": Call(
        reliance,
        {"predicted": PREDICTED, "label": LABEL, "attribute": ATTRIBUTE, "counts": COUNTS, "unit": UNIT},
        ("predicted", "label", "attribute", "counts", "unit"),
        optional=("counts", "unit"),
    ),
    "intervention_reliance": Call(
        lambda **k: measure.intervention_reliance(**k, key=KEY),
        {"before": PREDICTED, "after": LABEL, "toward": LABEL, "control": PREDICTED, "unit": UNIT},
        ("before", "after", "toward", "control", "unit"),
        optional=("control", "unit"),
    ),
    "changed_value_reliance": Call(
        lambda counts, **k: measure.changed_value_reliance(**k, train_counts=counts, key=KEY),
        {
            "before": PREDICTED,
            "after": LABEL,
            "label": LABEL,
            "value": ATTRIBUTE,
            "changed": ATTRIBUTE,
            "counts": COUNTS,
            "unit": UNIT,
        },
        ("before", "after", "label", "value", "changed", "counts", "unit"),
        optional=("unit",),
        alone=("counts",),
    ),
    "hidden_region_reliance": Call(
        lambda counts, **k: measure.hidden_region_reliance(**k, train_counts=counts, key=KEY),
        {
            "before": PREDICTED,
            "hidden": LABEL,
            "label": LABEL,
            "value": ATTRIBUTE,
            "counts": COUNTS,
            "control": PREDICTED,
            "unit": UNIT,
        },
        ("before", "hidden", "label", "value", "counts", "control", "unit"),
        optional=("control", "unit"),
        alone=("counts",),
    ),
    "assess_disparity": Call(
        disparity,
        {"predicted": PREDICTED, "label": LABEL, "attribute": ATTRIBUTE},
        ("predicted", "label", "attribute"),
    ),
    "cramers_v": Call(measure.cramers_v, {"counts": COUNTS}, ("counts",), alone=("counts",)),
    "association": Call(measure.label_association, {"counts": COUNTS}, ("counts",), alone=("counts",)),
    "group_confusion": Call(
        lambda **k: measure.group_confusion(**k, classes=K, attributes=A),
        {"predicted": PREDICTED, "label": LABEL, "attribute": ATTRIBUTE},
        ("predicted", "label", "attribute"),
    ),
    "worst_group_change": Call(
        lambda **k: measure.worst_group_change(**k, groups=K, key=KEY),
        {"before": PREDICTED == LABEL, "after": PREDICTED > LABEL, "group": LABEL, "unit": UNIT},
        ("before", "after", "group", "unit"),
        optional=("unit",),
    ),
    "mean_change": Call(
        lambda **k: measure.mean_change(**k, key=KEY),
        {"before": SCORES[:, 0], "after": SCORES[:, 1], "unit": UNIT, "weight": np.ones(N, np.float32)},
        ("before", "after", "unit", "weight"),
        optional=("unit", "weight"),
    ),
    "over_seeds": Call(measure.over_seeds, {"values": np.array([0.1, 0.2, 0.4])}, ("values",), alone=("values",)),
    "paired_over_seeds": Call(
        measure.paired_over_seeds,
        {"before": np.array([0.1, 0.2, 0.4]), "after": np.array([0.2, 0.2, 0.5])},
        ("before", "after"),
    ),
    "counterfactual_bias_of_logits": Call(
        lambda **k: measure.counterfactual_bias_of_logits(key=KEY, **k),
        {"logits": LOGITS, "logits_twin": OTHERS, "label": LABEL, "unit": UNIT, "weight": np.ones(N, np.float32)},
        ("logits", "logits_twin", "label", "unit", "weight"),
        optional=("unit", "weight"),
    ),
    "counterfactual_bias": Call(
        lambda pairs: measure.counterfactual_bias(apply, np.eye(K, dtype=np.float32), pairs, key=KEY),
        {"pairs": Batch(LOGITS, LABEL, ATTRIBUTE, twin=OTHERS)},
        ("pairs.twin", "pairs.label"),
    ),
    "attention_iou": Call(measure.attention_iou, {"a": MAPS[:, 0], "b": MAPS[:, 1]}, ("a", "b")),
    "pairwise_attention_iou": Call(measure.pairwise_attention_iou, {"maps": MAPS}, ("maps",), alone=("maps",)),
    "mask_scores": Call(measure.mask_scores, {"maps": MAPS, "masks": MASKS}, ("maps", "masks")),
    "area_fraction": Call(measure.area_fraction, {"masks": MASKS}, ("masks",), alone=("masks",)),
    "top_pixel_iou": Call(measure.top_pixel_iou, {"a": MAPS[:, 0], "mask": MASKS[:, 0]}, ("a", "mask")),
    "pointing_game": Call(measure.pointing_game, {"a": MAPS[:, 0], "mask": MASKS[:, 0]}, ("a", "mask")),
    "region_masks": Call(
        lambda mask: measure.region_masks(mask, ((1,), (0,))),
        {"mask": MASKS[:, 0].astype(np.int32)},
        ("mask",),
        alone=("mask",),
    ),
    "label_groups": Call(measure.label_groups, {"label": LABEL % 2, "attribute": ATTRIBUTE}, ("label", "attribute")),
    "score_report": Call(
        lambda **k: measure.score_report(KEY, groups=K, score="mask", **k),
        {"scores": SCORES, "group": LABEL, "chance": SCORES, "unit": UNIT},
        ("scores", "group", "chance", "unit"),
        optional=("unit",),
    ),
    "add_scores": Call(
        lambda **k: measure.group_scores(measure.add_scores(measure.empty_sums(K, (2,)), **k), score="mask"),
        {"scores": SCORES, "group": LABEL},
        ("scores", "group"),
    ),
    "soft_equalised_odds": Call(
        measure.soft_equalised_odds,
        {"probability": SCORES[:, 0], "label": LABEL % 2, "attribute": ATTRIBUTE},
        ("probability", "label", "attribute"),
    ),
}


@FUZZ
@given(st.sampled_from(cheap(CALLS)))
def test_refused_in_one_line_or_answered(one):
    name, argument, mutation = one
    check(CALLS[name], argument, mutation)


@pytest.mark.slow
@pytest.mark.unoptimised
@pytest.mark.parametrize("name", CALLS)
def test_every_change_of_every_argument(name):
    for _, argument, mutation in each({name: CALLS[name]}):
        check(CALLS[name], argument, mutation)


labels = arrays(np.int32, N, elements=st.integers(0, K - 1))
attributes = arrays(np.int32, N, elements=st.integers(-1, A - 1))


@NUMBERS
@given(labels, labels, attributes)
def test_group_reports_are_those_of_a_loop(predicted, label, attribute):
    """One class, an empty group, one side of the alignment, no known attribute: all come up."""
    report = measure.group_report(predicted, Batch(np.zeros((N, 1)), label, attribute), ALIGNED)
    confusion = oracle.confusion(predicted, label, attribute, K, A)
    np.testing.assert_array_equal(report.confusion, confusion)
    assert report.accuracy.value == pytest.approx(np.mean(predicted == label))
    count, right = confusion.sum(-1), np.einsum("yay->ya", confusion)
    known = count > 0
    np.testing.assert_array_equal(report.groups.n, count)
    np.testing.assert_allclose(report.groups.value[known], (right / np.maximum(count, 1))[known])
    assert np.isnan(report.groups.value[~known]).all()
    worst = report.worst_group_accuracy
    if not known.any():
        assert report.worst_group == (-1, -1)
        assert np.isnan(worst.value)
        assert worst.n == 0
        return
    assert worst.value == pytest.approx((right[known] / count[known]).min())
    assert report.group_mean_accuracy.value == pytest.approx((right[known] / count[known]).mean(), abs=1e-6)
    for side, found in ((ALIGNED, report.bias_aligned_accuracy), (~ALIGNED, report.bias_conflicting_accuracy)):
        if count[side].sum():
            assert found.value == pytest.approx(right[side].sum() / count[side].sum())
        else:
            assert np.isnan(found.value)
            assert found.n == 0


@NUMBERS
@given(arrays(np.int32, N, elements=st.integers(0, 1)), arrays(np.int32, N, elements=st.integers(0, 1)), attributes)
def test_fairness_is_that_of_a_loop(predicted, label, attribute):
    if len(set(attribute[attribute >= 0].tolist())) < 2:
        with pytest.raises(ContractError, match="two values that occur"):
            measure.fairness_report(KEY, predicted, label, attribute, attributes=A)
        return
    report = measure.fairness_report(KEY, predicted, label, attribute, attributes=A, min_group=1)
    rates = np.array([oracle.rates(predicted, label, attribute, value, 1) for value in range(A)])
    np.testing.assert_allclose([report.selection_rate, report.true_positive_rate, report.false_positive_rate], rates.T)
    gaps = np.abs(rates[0] - rates[1])
    assert report.demographic_parity_difference.value == pytest.approx(gaps[0], abs=1e-6)
    for found, gap in (
        (report.equal_opportunity_difference, gaps[1]),
        (report.equalised_odds_difference, max(gaps[1:], key=lambda gap: -1 if np.isnan(gap) else gap)),
    ):
        assert found.value == pytest.approx(gap, abs=1e-6, nan_ok=True)
    assert bool(report.undefined) == bool(np.isnan(rates).any())


@NUMBERS
@given(arrays(np.float32, (2, 2, 3), elements=st.floats(0, 4, width=32)))
def test_attention_iou_is_its_formula(maps):
    a, b = maps.astype(np.float64)
    found = measure.attention_iou(*maps[:, None])
    if not a.sum() or not b.sum():
        assert np.isnan(found[0])
        return
    p, q = a / a.sum(), b / b.sum()
    np.testing.assert_allclose(found[0], 4 * (p * q).sum() / ((p + q) ** 2).sum(), rtol=1e-4, atol=1e-6)


def test_one_row_is_enough():
    one = Batch(np.zeros((1, 1)), LABEL[:1], ATTRIBUTE[:1])
    report = measure.group_report(PREDICTED[:1], one, ALIGNED)
    assert report.accuracy.n == 1
    assert report.small.sum() == 1
    found = measure.assess_reliance(PREDICTED[:1], LABEL[:1], {"a": ATTRIBUTE[:1]}, {"a": COUNTS}, key=KEY, classes=K)[
        "a"
    ]
    assert (found.state, found.p) == ("cannot_tell", None)
    assert measure.assess_disparity(PREDICTED[:1], LABEL[:1], {"a": ATTRIBUTE[:1]}, key=KEY, classes=K) == ()


def test_numbers_of_rows_that_are_identifiers_do_not_fill_the_memory():
    """A table of counts as long as the largest number would need gigabytes."""
    ids = np.array([2**31 - 2, *range(N - 1)], np.int32)
    with pytest.raises(ContractError, match=r"values in 0\.\.65535"):
        measure.fairness_report(KEY, LABEL % 2, LABEL % 2, ids)
    with pytest.raises(ContractError, match=r"values in 0\.\.65535"):
        measure.assess_reliance(PREDICTED, LABEL, {"a": ids}, key=KEY)
    with pytest.raises(ContractError, match=r"values in 0\.\.65535"):
        measure.assess_reliance(ids, LABEL, {"a": ATTRIBUTE}, key=KEY)
    with pytest.raises(ContractError, match=r"values in 0\.\.65535"):
        measure.assess_disparity(ids, LABEL, {"a": ATTRIBUTE}, key=KEY)
    many = measure.assess_disparity(PREDICTED, LABEL, {"a": ids}, key=KEY, classes=K, min_group=1)
    assert {entry.state for entry in many} <= {"cannot_tell", "within", "exceeds"}


def test_small_integers_do_not_overflow():
    """The group number is label * a + attribute: of int8 it would wrap around at 128."""
    label = np.full(4, 120, np.int8)
    aligned = np.zeros((121, 2), bool)
    batch = Batch(np.zeros((4, 1)), label, np.array([0, 1, 0, 1], np.int8))
    report = measure.group_report(label.astype(np.int32), batch, aligned)
    assert report.worst_group_accuracy.value == 1.0
    assert report.count[120].tolist() == [2, 2]
    even = {"a": np.ones((121, 2))}
    found = measure.assess_reliance(label, label, {"a": batch.attribute}, even, key=KEY, min_group=1)["a"]
    assert found.mistakes == 0


def test_alignment_in_integers_is_refused():
    """`~` of integers is not `not`: the conflicting rows would be weighed by -1 and -2."""
    arguments = CALLS["accuracy_differences"].good
    with pytest.raises(ContractError, match=r"`aligned`: expected bool \[k a\]"):
        measure.accuracy_differences(KEY, **changed(arguments, "aligned", "int64"))
