import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fairlearn import metrics as fairlearn
from oracles import metrics as oracle
from oracles import rates
from scipy import stats

from jaxdebias.contracts import ContractError
from jaxdebias.measure import (
    excludes_zero,
    fairness_differences,
    fairness_report,
    soft_demographic_parity,
    soft_equal_opportunity,
    soft_equalised_odds,
)


def data(a, k=2, seed=0, n=600):
    rng = np.random.default_rng(seed)
    attribute = rng.integers(0, a, n)
    label = rng.integers(0, k, n)
    predicted = np.where(rng.random(n) < 0.5 + 0.4 * attribute / a, label, rng.integers(0, k, n))
    return predicted, label, attribute


@pytest.mark.parametrize("a", [2, 3, 7])
def test_agrees_with_fairlearn(key, a):
    for seed in range(5):
        predicted, label, attribute = data(a, seed=seed)
        got = fairness_report(key, predicted, label, attribute)
        where = {"sensitive_features": attribute}
        expected = (
            fairlearn.demographic_parity_difference(label, predicted, **where),
            fairlearn.equal_opportunity_difference(label, predicted, **where),
            fairlearn.equalized_odds_difference(label, predicted, **where),
        )
        np.testing.assert_allclose([found.value for found in got[:3]], expected, atol=1e-6)
        np.testing.assert_allclose([found.all_groups for found in got[:3]], expected, atol=1e-6)


def test_intervals_and_tests_are_those_of_slow_formulas(key):
    predicted, label, attribute = data(3, n=400)
    got = fairness_report(key, predicted, label, attribute)
    members = {"all": np.ones(400, bool), "positive": label == 1, "negative": label == 0}
    counts = {
        name: [
            [int(np.sum(some[member & (attribute == v)])) for v in range(3)] for some in (predicted == 1, label >= 0)
        ]
        for name, member in members.items()
    }
    families = (["all"], ["positive"], ["positive", "negative"])
    for found, names in zip(got[:3], families, strict=True):
        x, n = ([counts[name][i] for name in names] for i in (0, 1))
        if len(names) == 2:  # the oracle is slow
            assert (found.low, found.high) == pytest.approx(rates.largest_difference(x, n), abs=1e-7)
        chi2 = max(stats.chi2_contingency([a, np.subtract(b, a)], correction=False).statistic
                   for a, b in zip(x, n, strict=True))  # fmt: skip
        assert found.p == pytest.approx(1 - stats.chi2.cdf(chi2, 2) ** len(x), abs=1e-9)
        rate = np.divide(x, n)[int(np.ptp(np.divide(x, n), axis=1).argmax())]
        assert (found.highest, found.lowest) == (rate.argmax(), rate.argmin())


def test_small_groups_are_listed_and_make_no_headline(key):
    """Five of five in one group: the largest difference of all groups, but not the one that is reported."""
    predicted, label, attribute = data(2)
    attribute = np.r_[attribute, np.full(9, 2)]
    label, predicted = np.r_[label, [1] * 5, [0] * 4], np.r_[predicted, [1] * 5, [0] * 4]
    got = fairness_report(key, predicted, label, attribute)
    without = fairness_report(key, *data(2))
    for found, expected in zip(got[:3], without[:3], strict=True):
        assert found[:7] == expected[:7]
        assert (found.left_out, expected.left_out) == ((2,), ())
        assert found.all_groups >= expected.all_groups
    assert got.equal_opportunity_difference.all_groups > got.equal_opportunity_difference.value
    assert fairness_report(key, predicted, label, attribute, min_group=1).equal_opportunity_difference.left_out == ()
    few = fairness_report(key, predicted[-40:], label[-40:], attribute[-40:])
    assert np.isnan(few.demographic_parity_difference.value)
    assert few.demographic_parity_difference.left_out == (0, 1, 2)
    assert few.demographic_parity_difference.all_groups > 0


@pytest.mark.parametrize("sets", [30, pytest.param(400, marks=pytest.mark.slow)])
def test_equal_rates_of_ten_groups_are_no_finding(sets):
    """Equalised odds of ten groups at one rate: a finding in at most 6.5 % of the data sets, and 3 standard errors."""
    rng, findings = np.random.default_rng(0), 0
    attribute, label = np.repeat(np.arange(10), 120), np.tile([0, 1], 600)
    for draw in range(sets):
        predicted = (rng.random(1200) < np.where(label == 1, 0.8, 0.2)).astype(int)
        odds = fairness_report(jax.random.key(draw), predicted, label, attribute).equalised_odds_difference
        findings += odds.low > 0 and odds.p <= 0.05
    assert findings / sets <= 0.065 + 3 * np.sqrt(0.065 * 0.935 / sets)


@pytest.mark.parametrize("positive", [0, 1, 2])
def test_one_class_against_the_rest_agrees_with_fairlearn(key, positive):
    predicted, label, attribute = data(3, k=3)
    got = fairness_report(key, predicted, label, attribute, classes=3, positive=positive)
    where = {"sensitive_features": attribute}
    hit, true = predicted == positive, label == positive
    expected = (
        fairlearn.demographic_parity_difference(true, hit, **where),
        fairlearn.equal_opportunity_difference(true, hit, **where),
        fairlearn.equalized_odds_difference(true, hit, **where),
    )
    np.testing.assert_allclose([interval.value for interval in got[:3]], expected, atol=1e-6)


def test_no_positive_class_is_the_largest_over_all(key):
    predicted, label, attribute = data(3, k=4)
    each = [fairness_report(key, predicted, label, attribute, classes=4, positive=c) for c in range(4)]
    largest = fairness_report(key, predicted, label, attribute, classes=4, positive=None)
    for metric in range(3):
        assert largest[metric].value == pytest.approx(max(report[metric].value for report in each), abs=1e-6)
    assert largest.selection_rate.shape == (3, 4)
    np.testing.assert_allclose(largest.true_positive_rate[:, 2], each[2].true_positive_rate)


def test_rates_match_loop_and_unknown_attributes_are_left_out(key):
    predicted, label, attribute = data(3)
    attribute = np.where(np.arange(len(attribute)) % 5 == 0, -1, attribute)
    got = fairness_report(key, predicted, label, attribute)
    for value in range(3):
        expected = oracle.rates(predicted, label, attribute, value, 1)
        found = (got.selection_rate[value], got.true_positive_rate[value], got.false_positive_rate[value])
        np.testing.assert_allclose(found, expected)
        assert got.count[value] == (attribute == value).sum()
    by_value = np.array([oracle.rates(predicted, label, attribute, value, 1) for value in range(3)])
    spread = np.ptp(by_value, axis=0)
    expected = [spread[0], spread[1], max(spread[1:])]
    np.testing.assert_allclose([interval.value for interval in got[:3]], expected, atol=1e-6)


def test_an_attribute_without_positives_is_named_and_left_out(key):
    predicted, label, attribute = data(3)
    label = np.where(attribute == 2, 0, label)
    got = fairness_report(key, predicted, label, attribute)
    assert got.undefined == ("true_positive_rate of attribute 2: no positive of class 1",)
    assert np.isnan(got.true_positive_rate[2])
    assert got.equal_opportunity_difference.left_out == (2,)
    assert got.equal_opportunity_difference.value == pytest.approx(abs(np.subtract(*got.true_positive_rate[:2])))
    assert got.demographic_parity_difference.left_out == ()
    label = np.where(attribute == 1, 1, data(3)[1])
    got = fairness_report(key, predicted, label, attribute)
    assert got.undefined == ("false_positive_rate of attribute 1: no negative of class 1",)
    assert got.equal_opportunity_difference.left_out == ()
    assert got.equalised_odds_difference.left_out == (1,)


def test_a_value_that_never_occurs_is_left_out(key):
    predicted, label, attribute = data(2)
    got = fairness_report(key, predicted, label, attribute * 2, attributes=4)
    expected = fairness_report(key, predicted, label, attribute)
    np.testing.assert_allclose([i.value for i in got[:3]], [i.value for i in expected[:3]], atol=1e-7)
    assert np.isnan(got.selection_rate[[1, 3]]).all()
    assert got.count[[1, 3]].tolist() == [0, 0]
    assert got.undefined == ()


def test_interval_of_no_difference_reaches_zero_and_of_a_large_one_does_not(key):
    rng = np.random.default_rng(1)
    label, attribute = rng.integers(0, 2, 600), np.arange(600) % 2
    fair = fairness_report(key, rng.integers(0, 2, 600), label, attribute)
    assert not any(excludes_zero(interval) for interval in fair[:3])
    assert all(interval.low == 0 for interval in fair[:3])  # cut: a difference of extremes is not negative
    assert all(interval.low <= interval.value <= interval.high for interval in fair[:3])
    unfair = fairness_report(key, attribute, label, attribute)
    assert all(excludes_zero(interval) for interval in unfair[:3])
    assert unfair.demographic_parity_difference.value == 1


def test_interval_of_two_values_is_that_of_the_difference_of_rates(key):
    """Normal approximation of two independent rates, 300 rows each."""
    rng = np.random.default_rng(2)
    attribute = np.arange(600) % 2
    predicted = (rng.random(600) < np.where(attribute == 1, 0.6, 0.4)).astype(int)
    got = fairness_report(key, predicted, rng.integers(0, 2, 600), attribute).demographic_parity_difference
    p, q = predicted[attribute == 1].mean(), predicted[attribute == 0].mean()
    half = 1.96 * np.sqrt(p * (1 - p) / 300 + q * (1 - q) / 300)
    np.testing.assert_allclose([got.low, got.high], [p - q - half, p - q + half], atol=0.002)


def test_units_widen_the_interval(key):
    predicted, label, attribute = (np.repeat(x, 10) for x in data(2, n=200))
    alone = fairness_report(key, predicted, label, attribute).demographic_parity_difference
    tied = fairness_report(
        key, predicted, label, attribute, unit=np.repeat(np.arange(200), 10)
    ).demographic_parity_difference
    assert tied.value == pytest.approx(alone.value)
    assert tied.n < 200
    assert tied.high - tied.value > 2 * (alone.high - alone.value)


def test_logits_are_accepted(key):
    predicted, label, attribute = data(2)
    logits = np.eye(2, dtype=np.float32)[predicted]
    got = fairness_report(key, logits, label, attribute)
    assert (
        got.demographic_parity_difference
        == fairness_report(key, predicted, label, attribute).demographic_parity_difference
    )


def test_changes_are_those_of_the_reports(key):
    before, label, attribute = data(3)
    after = np.where(np.random.default_rng(9).random(600) < 0.8, label, before)
    attribute[:9] = 3  # a small group takes no part
    got = fairness_differences(key, before, after, label, attribute)
    first, second = (fairness_report(key, one, label, attribute) for one in (before, after))
    for change, one, other in zip(got, first[:3], second[:3], strict=True):
        assert change.value == pytest.approx(other.value - one.value)
        assert change.low < change.value < change.high
        assert 0 < change.p < 1
    assert got.demographic_parity_difference.discordant == np.sum((before != after)[attribute < 3])
    assert got.equal_opportunity_difference.discordant == np.sum((before != after)[(attribute < 3) & (label == 1)])
    same = fairness_differences(key, before, before, label, attribute)
    assert all((change.value, change.p, change.separable) == (0, 1, False) for change in same)
    few = fairness_differences(key, before[:20], after[:20], label[:20], attribute[:20])
    assert np.isnan([change.value for change in few]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.array([0, 1, 2, 1])}, "`label`: expected values in 0..1, got 0..2"),
        ({"attribute": np.zeros(4, int)}, "`attribute`: expected at least two values that occur, got [0]"),
        ({"attribute": np.full(4, -1)}, "`attribute`: expected at least two values that occur, got []"),
        ({"positive": 2}, "`positive`: expected a class in 0..1, or None, got 2"),
        ({"min_group": 0}, "`min_group`: expected at least 1, got 0"),
        ({"unit": np.array([0, 1])}, "`unit`: expected int [n=4], got int64 [2]"),
        ({"predicted": np.array([0.5, 1, 0, 1])}, "`predicted`: expected classes, int [n=4], or logits"),
    ],
)
def test_refuses(key, unchecked, change, message):
    arguments = {
        "predicted": np.array([0, 1, 0, 1]),
        "label": np.array([0, 1, 1, 1]),
        "attribute": np.array([0, 1, 0, 1]),
    }
    with pytest.raises(ContractError, match=re.escape(message)):
        fairness_report(key, **(arguments | change))


def test_soft_forms_of_decisions_are_the_hard_forms(key):
    predicted, label, attribute = data(2)
    got, p = fairness_report(key, predicted, label, attribute), predicted.astype(np.float32)
    pairs = [
        (soft_demographic_parity(p, attribute), got.demographic_parity_difference),
        (soft_equal_opportunity(p, label, attribute), got.equal_opportunity_difference),
        (soft_equalised_odds(p, label, attribute), got.equalised_odds_difference),
    ]
    for soft, hard in pairs:
        assert float(soft) == pytest.approx(hard.value, abs=1e-6)


def test_soft_forms_match_means():
    rng = np.random.default_rng(3)
    p, label, attribute = rng.random(90).astype(np.float32), rng.integers(0, 2, 90), rng.integers(-1, 2, 90)

    def gap(rows):
        return abs(p[rows & (attribute == 0)].mean() - p[rows & (attribute == 1)].mean())

    every, positives, negatives = gap(label >= 0), gap(label == 1), gap(label == 0)
    assert float(soft_demographic_parity(p, attribute)) == pytest.approx(every, abs=1e-6)
    assert float(soft_equal_opportunity(p, label, attribute)) == pytest.approx(positives, abs=1e-6)
    assert float(soft_equalised_odds(p, label, attribute)) == pytest.approx(max(positives, negatives), abs=1e-6)
    both = soft_equalised_odds(p, label, attribute, odds="sum")
    assert float(both) == pytest.approx(positives + negatives, abs=1e-6)


@pytest.mark.parametrize(
    "soft",
    [
        lambda p, y, a: soft_demographic_parity(p, a),
        soft_equal_opportunity,
        soft_equalised_odds,
        lambda p, y, a: soft_equalised_odds(p, y, a, odds="sum"),
    ],
    ids=["demographic parity", "equal opportunity", "equalised odds", "equalised odds, sum"],
)
def test_soft_forms_have_numerical_gradients_with_and_without_jit(soft):
    rng = np.random.default_rng(4)
    p = jnp.asarray(rng.random(12), jnp.float32)
    label, attribute = np.tile([0, 1], 6), np.repeat([0, 1], 6)
    chex.assert_numerical_grads(lambda p: soft(p, label, attribute), (p,), order=1)
    np.testing.assert_allclose(jax.jit(soft)(p, label, attribute), soft(p, label, attribute), rtol=1e-6)


def test_soft_gradient_is_zero_where_there_is_no_difference():
    grad = jax.grad(soft_demographic_parity)(jnp.full(4, 0.5), np.array([0, 1, 0, 1]))
    np.testing.assert_array_equal(grad, 0)
