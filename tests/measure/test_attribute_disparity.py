import itertools

import jax
import numpy as np
import pytest

from jaxdebias.contracts import ContractError
from jaxdebias.measure import (
    _attribute_disparity,
    adjust_holm,
    assess_disparity,
    homogeneity_p,
    overall_disparity,
    proportion_interval,
)

KEY = jax.random.key(0)


def table(rng, n=4000, *, gap=0.0, groups=3, classes=2, error=0.1):
    """Labels, an attribute, and predictions that are wrong more often by `gap` where the attribute is 0."""
    label, attribute = rng.integers(0, classes, n), rng.integers(0, groups, n)
    wrong = rng.random(n) < error + gap * (attribute == 0)
    return np.where(wrong, (label + 1) % classes, label), label, attribute


def entry(entries, attribute, measure):
    return next(one for one in entries if (one.attribute, one.measure) == (attribute, measure))


def test_entries_agree_with_loops():
    predicted, label, attribute = table(np.random.default_rng(0), gap=0.2)
    entries = assess_disparity(predicted, label, {"age": attribute}, key=KEY, names={"age": ("child", "adult", "old")})
    rows = {
        "accuracy": np.ones(len(label), bool),
        "true_positive_rate": label == 1,
        "false_positive_rate": label == 0,
        "positive_rate": np.ones(len(label), bool),
    }
    assert {one.measure for one in entries} == set(rows)
    for measure, family in rows.items():
        event = predicted == label if measure == "accuracy" else predicted == 1
        rates = [event[family & (attribute == value)].mean() for value in range(3)]
        found = entry(entries, "age", measure)
        assert found.gap.value == pytest.approx(max(rates) - min(rates))
        name, lowest = ("child", "adult", "old"), int(np.argmin(rates))
        assert found.lowest.name == name[lowest]
        assert found.highest.name == name[int(np.argmax(rates))]
        n = int((family & (attribute == lowest)).sum())
        assert found.lowest.n == n
        exact = proportion_interval(rates[lowest] * n, n)
        assert tuple(found.lowest[2:]) == pytest.approx(tuple(exact)[:3])
    assert entry(entries, "age", "accuracy").state == "exceeds"
    assert entry(entries, "age", "accuracy").class_ is None
    assert entry(entries, "age", "true_positive_rate").class_ == 1
    assert entries[0].state == "exceeds"
    assert overall_disparity(entries) == "exceeds"


def test_p_is_adjusted_over_attributes_pairs_and_measures():
    rng = np.random.default_rng(1)
    predicted, label, age = table(rng, 900, gap=0.06)
    sex = rng.integers(0, 2, 900)
    entries = assess_disparity(predicted, label, {"age": age, "sex": sex}, key=KEY)
    assert {one.attribute for one in entries} == {"age", "sex", "age x sex"}
    raw = []
    for one in entries:
        group = {"age": age, "sex": sex, "age x sex": 2 * age + sex}[one.attribute]
        family = {"true_positive_rate": label == 1, "false_positive_rate": label == 0}.get(
            one.measure, np.ones(900, bool)
        )
        event = predicted == label if one.measure == "accuracy" else predicted == 1
        counts = np.array(
            [(event[family & (group == g)].sum(), (family & (group == g)).sum()) for g in np.unique(group)]
        )
        raw.append(homogeneity_p(*counts.T, key=KEY, resolve=0.05 / 12))
    assert [one.p for one in entries] == pytest.approx(adjust_holm(raw), abs=0.02)
    assert len(entries) == 12


def test_more_classes_take_the_class_with_the_largest_difference():
    rng = np.random.default_rng(2)
    label, attribute = rng.integers(0, 4, 6000), rng.integers(0, 2, 6000)
    wrong = rng.random(6000) < np.where((label == 2) & (attribute == 1), 0.5, 0.1)
    predicted = np.where(wrong, (label + 1) % 4, label)
    found = entry(assess_disparity(predicted, label, {"sex": attribute}, key=KEY), "sex", "recall_of_class")
    recall = [[(predicted == label)[(label == k) & (attribute == v)].mean() for v in (0, 1)] for k in range(4)]
    assert found.class_ == 2
    assert found.gap.value == pytest.approx(recall[2][0] - recall[2][1])
    assert found.state == "exceeds"


def test_states_against_the_tolerance():
    rng = np.random.default_rng(3)
    predicted, label, attribute = table(rng, 40_000)
    assert overall_disparity(assess_disparity(predicted, label, {"a": attribute}, key=KEY)) == "within"
    predicted, label, attribute = table(rng, 300)
    assert overall_disparity(assess_disparity(predicted, label, {"a": attribute}, key=KEY)) == "cannot_tell"
    predicted, label, attribute = table(rng, 4000, gap=0.2)
    wide = assess_disparity(predicted, label, {"a": attribute}, key=KEY, tolerance=0.4)
    assert overall_disparity(wide) == "within"
    assert overall_disparity(()) == "cannot_tell"


def test_positive_rates_and_calibration_do_not_decide():
    rng = np.random.default_rng(4)
    attribute = rng.integers(0, 2, 40_000)
    label = (rng.random(40_000) < np.where(attribute, 0.7, 0.3)).astype(int)
    found = assess_disparity(label, label, {"a": attribute}, key=KEY)  # a perfect model of unequal base rates
    assert entry(found, "a", "positive_rate").state == "exceeds"
    assert overall_disparity(found) == "within"


def test_small_groups_are_listed_and_take_no_part():
    rng = np.random.default_rng(5)
    predicted, label, attribute = table(rng, 3000)
    attribute[:12], predicted[:12] = 3, 1 - label[:12]  # all wrong
    found = entry(assess_disparity(predicted, label, {"a": attribute}, key=KEY), "a", "accuracy")
    assert [tuple(small) for small in found.left_out] == [("3", 12)]
    assert found.lowest.name != "3"
    assert found.gap.value < 0.1
    taken = entry(assess_disparity(predicted, label, {"a": attribute}, key=KEY, min_group=10), "a", "accuracy")
    assert taken.lowest.name == "3"


def test_one_large_group_cannot_tell():
    label = np.tile([0, 1], 100)
    attribute = np.where(np.arange(200) < 20, 1, 0)
    predicted = np.where(attribute == 1, 1 - label, label)
    found = assess_disparity(predicted, label, {"a": attribute}, key=KEY)
    assert {one.state for one in found} == {"cannot_tell"}
    assert entry(found, "a", "accuracy").left_out == (("1", 20),)
    assert assess_disparity(predicted, label, {"a": np.zeros(200, int)}, key=KEY) == ()


def test_units_are_counted_instead_of_rows():
    rng = np.random.default_rng(6)
    unit = np.repeat(np.arange(80), 25)
    attribute = np.repeat(np.arange(80) % 2, 25)
    label = rng.integers(0, 2, 2000)
    hard = np.repeat(rng.random(80) < 0.3, 25)  # whole units are wrong
    predicted = np.where(hard, 1 - label, label)
    rows = entry(assess_disparity(predicted, label, {"a": attribute}, key=KEY), "a", "accuracy")
    units = entry(assess_disparity(predicted, label, {"a": attribute}, key=KEY, unit=unit), "a", "accuracy")
    assert (rows.lowest.n, units.lowest.n) == (1000, 40)
    assert units.gap.high - units.gap.low > 2 * (rows.gap.high - rows.gap.low)
    assert units.p > rows.p


def test_padding_changes_nothing():
    predicted, label, attribute = table(np.random.default_rng(7), 600, gap=0.2)
    plain = assess_disparity(predicted, label, {"a": attribute}, key=KEY)
    more = [np.concatenate([value, value[:50]]) for value in (predicted, label, attribute)]
    weight = np.concatenate([np.ones(600), np.zeros(50)])
    padded = assess_disparity(more[0], more[1], {"a": more[2]}, key=KEY, weight=weight)
    assert padded == plain


def test_calibration_is_compared_from_a_hundred_rows():
    rng = np.random.default_rng(8)
    attribute = np.where(np.arange(3000) < 90, 2, np.arange(3000) % 2)
    q = rng.random(3000)
    label = (rng.random(3000) < np.clip(q + 0.15 * (attribute == 1), 0, 1)).astype(int)
    probabilities = np.stack([1 - q, q], 1)
    found = assess_disparity((q > 0.5).astype(int), label, {"a": attribute}, key=KEY, probabilities=probabilities)
    one = entry(found, "a", "calibration_error")
    gaps = [label[attribute == v].mean() - q[attribute == v].mean() for v in (0, 1)]
    assert one.gap.value == pytest.approx(gaps[1] - gaps[0])
    assert (one.highest.name, one.lowest.name, one.state) == ("1", "0", "exceeds")
    assert one.left_out == (("2", 90),)
    fair = (rng.random(3000) < q).astype(int)
    found = assess_disparity((q > 0.5).astype(int), fair, {"a": attribute}, key=KEY, probabilities=probabilities)
    assert entry(found, "a", "calibration_error").p > 0.05


def test_three_at_a_time_find_a_slice_that_no_pair_shows():
    rng = np.random.default_rng(9)
    n = 6000
    attributes = {name: rng.integers(0, 3, n) for name in ("race", "age", "sex")}
    label = rng.integers(0, 2, n)
    bad = (attributes["race"] == 0) & (attributes["age"] == 0) & (attributes["sex"] == 0)
    predicted = np.where(rng.random(n) < 0.05 + 0.4 * bad, 1 - label, label)
    entries = assess_disparity(predicted, label, attributes, key=KEY, slices=3, names={"sex": ("f", "m", "n")})
    found = entry(entries, "race x age x sex", "accuracy")
    assert found.lowest.name == "0, 0, f"
    assert found.state == "exceeds"
    combinations = [" x ".join(c) for size in (1, 2, 3) for c in itertools.combinations(attributes, size)]
    assert {one.attribute for one in entries} == set(combinations)


@pytest.mark.slow
@pytest.mark.parametrize("slices", [2, 3])
def test_equal_service_is_rarely_called_unequal(slices):
    rng = np.random.default_rng(10)
    false = 0
    for _ in range(24):
        attributes = {name: rng.integers(0, 3, 500) for name in "abc"}
        label = rng.integers(0, 2, 500)
        predicted = np.where(rng.random(500) < 0.1, 1 - label, label)
        entries = assess_disparity(predicted, label, attributes, key=KEY, slices=slices, tolerance=0.0)
        false += any(one.p <= 0.05 for one in entries)
    assert false <= 4  # 5 % of 24, and three standard errors


def test_refusals():
    label = np.array([0, 1] * 30)
    with pytest.raises(ContractError, match="at least one"):
        assess_disparity(label, label, {}, key=KEY)
    with pytest.raises(ContractError, match="slices"):
        assess_disparity(label, label, {"a": label}, key=KEY, slices=4)
    with pytest.raises(ContractError, match="tolerance"):
        assess_disparity(label, label, {"a": label}, key=KEY, tolerance=5.0)
    with pytest.raises(ContractError, match="probabilities"):
        assess_disparity(label, label, {"a": label}, key=KEY, probabilities=np.ones((60, 3)) / 3)


def test_weights_count_in_the_rates(key):
    rng = np.random.default_rng(12)
    predicted, label, group = table(rng, 600, gap=0.2)
    weight = rng.integers(1, 4, 600).astype(float)
    found = entry(assess_disparity(predicted, label, {"g": group}, key=key, weight=weight), "g", "accuracy")
    rates = [np.average((predicted == label)[group == g], weights=weight[group == g]) for g in range(3)]
    assert found.gap.value == pytest.approx(max(rates) - min(rates))
    of_rows = entry(assess_disparity(predicted, label, {"g": group}, key=key), "g", "accuracy")
    assert abs(of_rows.gap.value - found.gap.value) > 1e-3


def test_tests_are_resolved_at_the_level_that_many_are_judged_at(key, monkeypatch):
    levels, slices = [], []

    def homogeneity(x, n, *, key, resolve):
        levels.append(resolve)
        return 0.5

    def largest(*args, **kwargs):
        slices.append(args)
        return 0.03

    monkeypatch.setattr(_attribute_disparity, "homogeneity_p", homogeneity)
    monkeypatch.setattr(_attribute_disparity, "slice_p", largest)
    predicted, label, a = table(np.random.default_rng(13), 800)
    b, c = (np.random.default_rng(seed).integers(0, 2, 800) for seed in (1, 2))
    entries = assess_disparity(predicted, label, {"a": a, "b": b, "c": c}, key=key, slices=3, level=0.9)
    assert len(levels) > 12
    assert levels == pytest.approx([0.1 / len(levels)] * len(levels))
    np.testing.assert_allclose([one.p for one in entries], 0.12)  # four measures, each tested over all slices at once
    assert len(slices) == 4
